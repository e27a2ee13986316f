"""How far each training of a sweep is, read from run folders, locks and logs alone.

Enters: the jobs of a sweep, `model_data/`, a log for each job. Leaves: a State for each, and a
table for the terminal. Nothing is asked of an engine, so that it holds without the one that started
them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from misc_utils.files import is_locked
from sweeps.grid import Job
from training.run_folder import Run, list_runs

# Lines that engines write into a log around what a training says
QUEUED, STARTED, ENDED = "=== queued", "=== started", "=== ended with exit code"
MARK = re.compile(f"^(?:({QUEUED})|({STARTED}) (.*)|{ENDED} ([0-9]+).*)$", re.MULTILINE)
KILLED = "137"  # exit code of SIGKILL
ENDED_FROM_OUTSIDE = (130, 143)  # exit codes of Ctrl-C and SIGTERM
LAST_LINES = 5  # of a log that say why a training failed
TAIL = 20_000  # bytes at the end of a log that are read

What = Literal["waiting", "started", "running", "stopped", "finished", "failed"]
WHATS = {  # -> what it means
    "waiting": "not begun",
    "started": "its process began and does not train: not yet, or no longer",
    "running": "its process holds the lock of the run",
    "stopped": "ended from outside; resumes",
    "finished": "trained to its end",
    "failed": "ended by itself before that",
}


@dataclass(frozen=True)
class State:
    """How far the training of one fold is."""

    job: Job
    what: What
    epochs: int = 0  # whole ones that are done
    where: str = ""  # host, process, job of Slurm
    score: str = ""  # of the kept epoch, where it is finished
    why: str = ""  # where it is neither running nor finished: how it ended, last lines of its log

    @property
    def line(self) -> list[str]:
        """A row of the table."""
        more = self.score or (self.where if self.what in ("running", "started") else "")
        if self.what == "failed":
            how, *lines = self.why.splitlines()
            more = ": ".join([how, *lines[-1:]])
        return [self.job.run, self.what, f"{self.epochs} of {self.job.epochs}", more]


def mark(log: Path, text: str) -> None:
    """Add a line to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as opened:
        opened.write(f"{text}\n")


def started(host: str) -> str:
    """The line with which a log begins to hold what a process says."""
    return f"{STARTED} {datetime.now().isoformat(timespec='seconds')} on {host}"


def read_states(
    model_data: Path, task: int, dataset: str, logs: Path, jobs: Sequence[Job]
) -> list[State]:
    """The state of each job, in their order; the log of a job is `<run>.log` in `logs`.

    UserError where the settings.json of a run is broken.
    """
    runs = {run.name: run for run in list_runs(model_data, task, dataset)}
    return [_read_state(model_data, runs.get(job.run), log_of(logs, job), job) for job in jobs]


def log_of(logs: Path, job: Job) -> Path:
    """Where all that a job says is kept."""
    return logs / f"{job.run}.log"


def _read_state(model_data: Path, run: Run | None, log: Path, job: Job) -> State:
    epochs = _count_epochs(run) if run else 0
    # one that is to train more epochs has not finished
    if run and run.finished and run.settings["epochs"] >= job.epochs:
        return State(job, "finished", epochs, where=_where(run), score=_score(run))
    if is_locked(model_data, job.run):
        return State(job, "running", epochs, where=_where(run) if run else "")
    text = _tail(log)
    marks = list(MARK.finditer(text))
    if not marks:
        return State(job, "stopped" if epochs else "waiting", epochs)
    queued, started, where, code = marks[-1].groups()
    said = [line for line in text.splitlines() if line.strip() and not line.startswith("===")]
    last = said[-LAST_LINES:]
    if queued:
        return State(job, "waiting", epochs)
    if started:
        return State(job, "started", epochs, where, why="\n".join(["no end in the log", *last]))
    what = "stopped" if int(code) in ENDED_FROM_OUTSIDE else "failed"
    how = f"exit code {code}" + ", killed: perhaps out of memory" * (code == KILLED)
    return State(job, what, epochs, why="\n".join([how, *last]))


def _count_epochs(run: Run) -> int:
    try:
        return max(run.history.read_text(encoding="utf-8").count("\n") - 1, 0)
    except OSError:
        return 0


def _where(run: Run) -> str:
    process = run.process
    if not process:
        return ""
    job = process.get("slurm_job")
    return f"{process['host']}, process {process['pid']}" + (f", Slurm job {job}" if job else "")


def _score(run: Run) -> str:
    monitor, best = run.settings.get("monitor"), run.record.get("best", {})
    if monitor not in best:
        return ""
    return f"{monitor.removeprefix('val_').replace('_', ' ')} {best[monitor]:.3f}"


def _tail(file: Path) -> str:
    """The end of a text file; nothing where it is not there."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(file.stat().st_size - TAIL, 0))
            return opened.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def counts(states: Sequence[State]) -> str:
    """`2 running, 3 waiting`."""
    found = Counter(state.what for state in states)
    return ", ".join(f"{found[what]} {what}" for what in WHATS if found[what])


def table(states: Sequence[State]) -> str:
    """A line for each state, in columns, and what is in them."""
    rows = [["run", "state", "epochs", ""], *(state.line for state in states)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row[:3], widths, strict=True)), row[3]]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, counts(states)])
