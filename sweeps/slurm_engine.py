"""Trainings as an array of jobs of Slurm, from a script that can be read and edited.

Enters: jobs, lines for sbatch. Leaves: `slurm.sh` in the folder of the sweep, submitted; and
`slurm.json`, which runs each array holds, to follow it again later.
"""

import json
import logging
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from misc_utils.errors import UserError
from misc_utils.files import write_text
from sweeps.grid import Job
from sweeps.states import QUEUED, log_of, mark

log = logging.getLogger(__name__)

BODY = Path(__file__).with_name("slurm.sh")  # what a job does, after its settings
BEFORE_THE_LIMIT = 120  # seconds before the time limit at which a training is asked to end


class SlurmEngine:
    """Follows the arrays of a sweep.

    Args:
        name: of the sweep, and of its jobs.
        folder: of the sweep.
        logs: folder of the logs.
        root: ISIC_ROOT. Of other variables Slurm hands on those that sbatch finds.
        at_once: trainings; None: as many as Slurm starts.
        retries: starts of a training that a signal ended.
        sbatch: options of sbatch, such as `gres=gpu:1`.
        before: lines of the script before the training starts, such as `module load cuda`.
        submit: False only writes the script.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        logs: Path,
        root: Path,
        at_once: int | None,
        retries: int,
        sbatch: Sequence[str],
        before: Sequence[str],
        submit: bool,
    ) -> None:
        self.name, self.logs, self.submit = name, logs, submit
        self.root, self.at_once, self.retries = root, at_once, retries
        self.sbatch, self.before = sbatch, before
        self.script, self.record = folder / "slurm.sh", folder / "slurm.json"
        self.said: set[str] = set()

    def start(self, jobs: Sequence[Job]) -> None:
        """Write the script and submit the jobs, those aside that are in Slurm's queue already."""
        arrays = self._arrays()
        queue = self._queue() if self.submit else []
        there = {arrays[array][int(index)] for array, index, _ in queue if index.isdecimal()}
        jobs = [job for job in jobs if job.run not in there]
        if not jobs:
            return
        self.script.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.script, self.text(jobs))
        if not self.submit:
            print(f"Written: {self.script}. Submit it: sbatch {shlex.quote(str(self.script))}")
            return
        for job in jobs:
            mark(log_of(self.logs, job), QUEUED)
        array = _call("sbatch", "--parsable", str(self.script)).strip().split(";")[0]
        arrays[array] = [job.run for job in jobs]
        write_text(self.record, json.dumps(arrays, indent=1) + "\n")
        print(f"Submitted {self.script} as Slurm job {array}, {len(jobs)} trainings.")

    def working(self) -> bool:
        """Whether any is in Slurm's queue; says once why jobs wait."""
        if not self.submit:
            return False
        try:
            queue = self._queue()
        except UserError as error:  # its controller is away for a while
            self._say(str(error))
            return True
        for _, _, reason in queue:
            if reason not in ("None", "(null)"):
                self._say(f"Slurm lets jobs wait: {reason}")
        return bool(queue)

    def interrupt(self, cancel: bool) -> None:
        """Cancel the jobs, or leave them to Slurm."""
        arrays = " ".join(sorted({array for array, _, _ in self._queue()}))
        if cancel and arrays:
            _call("scancel", *arrays.split())
            print(f"Cancelled Slurm job {arrays}.")
        elif arrays:
            print(
                f"Slurm job {arrays} goes on. Repeat the command to follow it; to end it: "
                f"scancel {arrays}"
            )

    def close(self) -> None:
        """When all is done."""

    def text(self, jobs: Sequence[Job]) -> str:
        """The script for sbatch."""
        tasks = f"0-{len(jobs) - 1}" + (f"%{self.at_once}" if self.at_once else "")
        options = [
            f"job-name={self.name}",
            f"array={tasks}",
            "requeue",
            "open-mode=append",
            f"signal=B:USR1@{BEFORE_THE_LIMIT}",
            f"output={self.logs}/slurm-%A_%a.out",
            *(option.lstrip("-") for option in self.sbatch),
        ]
        head = [
            "#!/bin/bash",
            "# Trains the runs below, each a task of an array. Written by runs/sweep.py, which",
            "# writes it anew: edit a copy, and submit that with sbatch.",
            *(f"#SBATCH --{option}" for option in options),
            "",
            *self.before,
            f"export ISIC_ROOT={shlex.quote(str(self.root))}",
            f"logs={shlex.quote(str(self.logs))}",
            f"retries={self.retries}",
            "runs=(",
            *(f"    {job.run}" for job in jobs),
            ")",
            "commands=(",
            *(f"    {shlex.quote(shlex.join(job.command))}" for job in jobs),
            ")",
        ]
        return "\n".join(head) + "\n" + BODY.read_text(encoding="utf-8")

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            log.info(text)

    def _arrays(self) -> dict[str, list[str]]:
        """{array: its runs} of all that were submitted."""
        try:
            return json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(
                f"{self.record}: damaged ({error}). End the jobs of this sweep that are in Slurm's "
                f"queue (scancel --name {self.name}), and delete the file."
            ) from None

    def _queue(self) -> list[tuple[str, str, str]]:
        """(array, index, why it waits) of each job of this sweep in Slurm's queue."""
        arrays, found = self._arrays(), []
        for line in _call(
            "squeue", "--me", "--noheader", "--array", "--format=%F %K %r"
        ).splitlines():
            array, index, reason = line.split(maxsplit=2)
            if array in arrays:
                found.append((array, index, reason))
        return found


def check_slurm() -> None:
    """UserError unless Slurm's commands are there."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "--engine slurm: there is no sbatch here. Run the command on a login node of the "
            "cluster; --no-submit only writes the script."
        )


def _call(*words: str) -> str:
    """What a command of Slurm's prints; UserError with what it says when it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{shlex.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
