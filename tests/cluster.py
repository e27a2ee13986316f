"""Train five folds on a real Slurm and a real Ray, kill what can be killed, compare results.

sudo .venv-cluster/bin/python tests/cluster.py
.venv-cluster/bin/python tests/cluster.py --parts ray

Both run on this machine alone, as processes of their own that listen on 127.0.0.1: Slurm with three
nodes, Ray with two. In each a training is killed, a node is killed, one dies under a training that
lives on, and one is preempted; the command that started all is interrupted and given again. Then
every fold must have finished, each epoch must have been trained once, and weights, states and
histories must be those of a training that nothing interrupted, bit for bit.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from datasets.synthetic import draw_dataset  # noqa: E402
from misc_utils import command_line  # noqa: E402
from misc_utils.errors import UserError  # noqa: E402
from tests.same_results import contents  # noqa: E402

FOLDS = 5
TRAIN = {"backbone": "tiny", "weights": "none", "image-size": 64, "num-folds": FOLDS}
TRAIN |= {"batch-size": 4}
SWEEP = ["runs/sweep.py", "--train", *(f"{key}={value}" for key, value in TRAIN.items())]
COMPARED = (".h5", ".npz", ".csv", ".npy")
TOO_LONG = 600  # seconds that anything is waited for
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
HOST = "127.0.0.1"
RAY_PORT = 6399  # outside 10002 to 19999, where workers of Ray listen
RAY_HOST = "127.0.1.{}"  # of each node; Ray replaces 127.0.0.1 by the address of the machine


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    parts: tuple[Literal["slurm", "ray"], ...] = ("slurm", "ray")  # what to run
    epochs: int = 20  # of each fold; the faults come early
    whole: Path | None = None  # `whole` of a folder that was kept, instead of training it again
    keep: bool = False  # leave the folder with all logs, and name it


def main(settings: Settings) -> None:
    begun, wrong = time.monotonic(), []
    folder = Path(tempfile.mkdtemp(prefix="cluster_"))
    try:
        whole = folder / "whole"
        draw_dataset(whole / "data", lesions=60, test_lesions=7, shorter_side=(72, 96), seed=3)
        for part in settings.parts:
            shutil.copytree(whole, folder / part)
        print(f"{FOLDS} folds of {settings.epochs} epochs, without a fault", flush=True)
        if settings.whole:
            shutil.rmtree(whole)
            shutil.copytree(settings.whole, whole)
        else:
            print(f"  {train_whole(whole, settings.epochs):.0f} s", flush=True)
        for part in settings.parts:
            print(f"\n{part}", flush=True)
            start = time.monotonic()
            found = PARTS[part](folder / part, settings.epochs)
            print(f"  {time.monotonic() - start:.0f} s in all")
            found += check_results(whole, folder / part, settings.epochs)
            print("\n".join(f"  WRONG: {text}" for text in found) or "  ok", flush=True)
            wrong += found
    finally:
        if settings.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes; wrong: {len(wrong)}")
    if wrong:
        sys.exit(1)


# --- trainings, and how far they are


def train_whole(root: Path, epochs: int) -> float:
    """Train all folds in one process; returns its seconds."""
    begun = time.monotonic()
    flags = [word for key, value in TRAIN.items() for word in (f"--{key}", str(value))]
    words = [sys.executable, REPOSITORY / "runs" / "seg_train.py", *flags, "--epochs", str(epochs)]
    with (root / "log").open("w") as log:
        subprocess.run(words, env=environment(root), stdout=log, stderr=log, check=True)
    return time.monotonic() - begun


def environment(root: Path) -> dict[str, str]:
    return os.environ | {"ISIC_ROOT": str(root)}


class Sweep:
    """The command under test, and what the run folders say of its trainings."""

    def __init__(self, root: Path, epochs: int, flags: list[str], variables: dict) -> None:
        self.root, self.log = root, root / "sweep.log"
        self.variables = environment(root) | variables
        self.words = [sys.executable, *SWEEP, f"epochs={epochs}", "--no-tune"]
        self.flags = flags

    def start(self) -> subprocess.Popen:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.words, *self.flags],
                cwd=REPOSITORY,
                env=self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def status(self) -> str:
        words = [*self.words, "--status"]
        return subprocess.run(
            words, cwd=REPOSITORY, env=self.variables, capture_output=True, text=True, check=True
        ).stdout

    def epochs(self, fold: int) -> int:
        """Whole epochs of a fold."""
        text = text_of(next(self.folder(fold).glob("*_v0.csv"), Path("none")))
        return max(text.count("\n") - 1, 0)

    def process(self, fold: int) -> dict:
        """What settings.json says of the process that trains a fold."""
        record = json.loads(text_of(self.folder(fold) / "settings.json") or "{}")
        resumed = [part["process"] for part in record.get("resumed", ()) if "process" in part]
        return resumed[-1] if resumed else record.get("process", {})

    def folder(self, fold: int) -> Path:
        return self.root / "model_data" / f"task1_tiny_k{fold}_v0"

    def fold_log(self, fold: int) -> str:
        return text_of(
            self.root / "model_data" / "sweeps" / "task1_v0" / "logs" / f"task1_tiny_k{fold}_v0.log"
        )

    def in_training(self, but: int | None = None) -> list[int]:
        """Folds whose process lives, with some epochs done."""
        return [
            fold
            for fold in range(FOLDS)
            if fold != but and self.epochs(fold) >= 2 and is_alive(self.process(fold).get("pid", 0))
        ]

    def wait_in_training(
        self, command: subprocess.Popen | None, number: int, but: int | None = None
    ) -> list[int]:
        """So many folds that are in training; RuntimeError where the command ends before."""

        def found() -> list[int]:
            if command is not None and command.poll() is not None:
                raise RuntimeError(f"sweep.py ended:\n{text_of(self.log)[-2000:]}")
            folds = self.in_training(but)
            return folds[:number] if len(folds) >= number else []

        return wait_for(f"{number} folds in training", found)

    def is_waited_for(self, fold: int) -> bool:
        """Whether a second process waits for the one that trains a fold."""
        return "waiting for its end" in self.fold_log(fold)

    def hold_until_waited_for(self, fold: int) -> list[str]:
        """Let an orphan sleep until a second process waits for it; what went wrong."""
        pid = self.process(fold)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for("a second process", lambda: self.is_waited_for(fold))
        except RuntimeError as error:
            return [f"fold {fold}, whose training lives on without its node: {error}"]
        finally:
            os.kill(pid, signal.SIGCONT)
        print(f"  fold {fold}: a second process waits for the one that lives on", flush=True)
        return []


def text_of(file: Path) -> str:
    """What a file holds; nothing where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether there is a process that trains under this number."""
    try:
        return "seg_train" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def wait_for(what: str, found: Callable, seconds: float = TOO_LONG) -> object:
    """What `found` gives once it is something; RuntimeError after that many seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if value := found():
            return value
        time.sleep(0.2)
    raise RuntimeError(f"waited {seconds:.0f} s for this: {what}")


def kill(pid: int, what: str) -> None:
    os.kill(pid, signal.SIGKILL)
    print(f"  SIGKILL to {what}", flush=True)


def interrupt(command: subprocess.Popen) -> None:
    """Ctrl-C to the command under test, whose trainings stay."""
    command.send_signal(signal.SIGINT)
    code = command.wait(TOO_LONG)
    print(f"  Ctrl-C to sweep.py: exit code {code}", flush=True)
    if code != 130:
        raise RuntimeError(f"sweep.py ended with {code}")


def finish(sweep: Sweep, command: subprocess.Popen) -> list[str]:
    """Wait for the end of the command; what went wrong."""
    code = command.wait(TOO_LONG)
    status = sweep.status()
    print("  " + status.replace("\n", "\n  ").rstrip(), flush=True)
    wrong = [] if code == 0 else [f"sweep.py ended with {code}:\n{text_of(sweep.log)[-2000:]}"]
    return wrong + ([] if status.count("finished  ") == FOLDS else ["not all are finished"])


# --- what has to be true at the end


def check_results(whole: Path, root: Path, epochs: int) -> list[str]:
    """What differs from the uninterrupted training, and epochs that were trained twice."""
    expected, found = (
        {
            name: content
            for name, content in contents(one / "model_data").items()
            if re.match(r"task1_tiny_k\d_v0/", name) and name.endswith(COMPARED)
        }
        for one in (whole, root)
    )
    wrong = [f"{name} differs" for name in expected if found.get(name) != expected[name]]
    print(f"  {len(expected)} files compared, {len(wrong)} differ")
    for fold in range(FOLDS):
        log = root / "model_data/sweeps/task1_v0/logs" / f"task1_tiny_k{fold}_v0.log"
        wrong += [f"fold {fold}: {text}" for text in check_epochs(text_of(log), epochs)]
    return wrong


def check_epochs(log: str, epochs: int) -> list[str]:
    """Whether a log tells of each epoch's end once, in order, and of no two epochs at once.

    All processes that train a fold write into one log: `Epoch 3/60` when an epoch begins, a line of
    its measures when it has ended. A process killed between keeping an epoch and that line leaves
    none: the next one goes on with the epoch after it.
    """
    wrong, ended, open_epoch, starts = [], [], None, 0
    for line in log.splitlines():
        if found := re.match(r"Epoch (\d+)/", line):
            if open_epoch is not None:  # only a process that was killed leaves one open
                starts += 1
                if int(found[1]) == open_epoch + 1:
                    ended.append(open_epoch)
            open_epoch = int(found[1])
        elif re.match(r"\d+/\d+ - .*val_loss", line):
            if open_epoch is None:
                wrong.append("an epoch ended that had not begun")
            ended.append(open_epoch)
            open_epoch = None
    if ended != list(range(1, epochs + 1)):
        wrong.append(f"epochs ended in this order: {ended}")
    processes = log.count("=== started")
    if starts >= processes:
        wrong.append(f"{starts} epochs were begun again, by {processes} processes")
    print(f"  {len(ended)} epochs ended, {starts} were cut short; {processes} processes")
    return wrong


# --- Slurm

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}({ip})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,requeue_delay=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=20
KillWait=15
SlurmctldPort=17000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
NodeName=n[1-3] NodeHostname={host} NodeAddr={ip} Port=[17001-17003] CPUs=1 RealMemory=6000
PartitionName=low Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """A controller and three nodes on this machine, as processes of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, {}
        (folder / "munge").mkdir(parents=True, mode=0o755)
        for name in ("state", "spool_n1", "spool_n2", "spool_n3"):
            (folder / name).mkdir()
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        conf = folder / "slurm.conf"
        conf.write_text(SLURM_CONF.format(host=socket.gethostname(), ip=HOST, folder=folder))
        self.variables = {"SLURM_CONF": str(conf)}

    def open(self) -> None:
        folder, conf = self.folder, self.variables["SLURM_CONF"]
        files = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "log", "pid", "seed")]
        listen = f"--socket={folder}/munge/socket"
        self.start("munged", "munged", "--foreground", "--force", listen, *files)
        wait_for("munge", (folder / "munge" / "socket").exists, 20)
        self.start("slurmctld", "slurmctld", "-D", "-f", conf)
        for node in ("n1", "n2", "n3"):
            self.start(node, "slurmd", "-D", "-N", node, "-f", conf)
        nodes = ("sinfo", "-hNo", "%T")  # each in two partitions
        wait_for("three idle nodes", lambda: self.call(*nodes).count("idle") == 6, 60)

    def start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                words,
                stdout=out,
                stderr=out,
                env=os.environ | self.variables,
                start_new_session=True,
            )

    def call(self, *words: str) -> str:
        done = subprocess.run(
            words, env=os.environ | self.variables, capture_output=True, text=True
        )
        return done.stdout

    def close(self) -> None:
        self.call("scancel", "--me")
        time.sleep(2)
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end_all_of(self.folder.parent)


def run_slurm(root: Path, epochs: int) -> list[str]:
    """Folds as an array of jobs; what went wrong."""
    install_slurm()
    with closing(Slurm(root / "slurm")) as slurm:
        flags = ["--engine", "slurm", "--sbatch", "partition=low", "mem=1500", "time=30"]
        sweep = Sweep(root, epochs, flags, slurm.variables)
        command = sweep.start()
        first = sweep.wait_in_training(command, 3)
        killed, orphaned, preempted = first
        interrupt(command)
        node = sweep.process(orphaned)["host"]
        kill(slurm.processes[node].pid, f"slurmd of {node}, under fold {orphaned}")
        kill(sweep.process(killed)["pid"], f"the training of fold {killed}")
        node, pid = (sweep.process(preempted)[key] for key in ("host", "pid"))
        print(f"  a job of higher priority on {node}, where fold {preempted} trains", flush=True)
        os.kill(pid, signal.SIGSTOP)  # or it may end before that job begins; Slurm wakes it
        slurm.call("sbatch", "-p", "high", "-w", node, "-o", "/dev/null", "--wrap", "sleep 3")
        wait_for("the preemption", lambda: not is_alive(pid))
        command = sweep.start()
        wrong = sweep.hold_until_waited_for(orphaned)
        wrong += finish(sweep, command)
        if "exit code 137" not in sweep.fold_log(killed):
            wrong.append("no exit code 137 in the log of the training that was killed")
        if sweep.fold_log(preempted).count("=== started") < 2:
            wrong.append("the training that was to be preempted was not")
        if "Repeat the command to follow" not in text_of(sweep.log):
            wrong.append("sweep.py does not say that the jobs go on")
        return wrong


def install_slurm() -> None:
    if os.geteuid() != 0:
        raise UserError("the part slurm needs root. --parts ray does not.")
    if any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        print(f"  apt-get install {' '.join(PACKAGES)}", flush=True)
        words = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


# --- Ray


class Ray:
    """A head without processors and two nodes with one each, as processes of this one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.started, self.nodes = folder, [], []
        # sockets lie below; their paths may have 107 characters
        self.short = Path(tempfile.mkdtemp(prefix="ray_", dir="/tmp"))
        self.address = f"{RAY_HOST.format(1)}:{RAY_PORT}"
        # without the token, which newer Ray asks for, nobody else can use it
        self.variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        self.variables |= {"RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def open(self) -> None:
        head = ["--head", f"--port={RAY_PORT}", "--num-cpus=0", "--include-dashboard=false"]
        self.start_node(*head, f"--temp-dir={self.short}")
        for _ in range(2):
            self.add_node()

    def add_node(self) -> subprocess.Popen:
        node = self.start_node(f"--address={self.address}", "--num-cpus=1")
        self.nodes.append(node)
        return node

    def start_node(self, *words: str) -> subprocess.Popen:
        ray = Path(sys.executable).with_name("ray")
        number = len(self.started) + 1
        options = [f"--node-ip-address={RAY_HOST.format(number)}", "--block"]
        options += ["--object-store-memory=100000000"]
        log = self.folder / f"node{number}"
        with log.open("wb") as out:
            node = subprocess.Popen(
                [str(ray), "start", *words, *options],
                stdout=out,
                stderr=out,
                env=os.environ | self.variables,
                start_new_session=True,
            )
        self.started.append(node)

        def runs() -> bool:
            if node.poll() is not None:
                raise RuntimeError(f"ray start ended:\n{text_of(log)[-1000:]}")
            return "Ray runtime started" in text_of(log)

        wait_for("a node of Ray", runs)
        return node

    def node_of(self, pid: int) -> subprocess.Popen:
        """The node below which a process is."""
        return next(node for node in self.nodes if pid in below(node.pid))

    def close(self) -> None:
        for node in reversed(self.started):
            for pid in [node.pid, *below(node.pid)]:
                with suppress_gone():
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        end_all_of(self.folder.parent)
        end_all_of(self.short)
        shutil.rmtree(self.short)


def run_ray(root: Path, epochs: int) -> list[str]:
    """Folds as tasks; what went wrong."""
    with closing(Ray(root / "ray")) as ray:
        flags = ["--engine", "ray", "--address", ray.address]
        sweep = Sweep(root, epochs, flags, ray.variables)
        command = sweep.start()
        killed, lost = sweep.wait_in_training(command, 2)
        interrupt(command)
        kill(sweep.process(killed)["pid"], f"the training of fold {killed}")
        lost_node = ray.node_of(sweep.process(lost)["pid"])
        for pid in [*below(lost_node.pid), lost_node.pid]:
            with suppress_gone():
                os.kill(pid, signal.SIGKILL)
        print(f"  SIGKILL to the node of fold {lost} and all on it", flush=True)
        ray.nodes.remove(lost_node)
        ray.add_node()
        preempted, orphaned = sweep.wait_in_training(None, 2, but=lost)
        node = ray.node_of(sweep.process(preempted)["pid"])
        node.terminate()
        print(f"  SIGTERM to the node of fold {preempted}", flush=True)
        ray.nodes.remove(node)
        training = sweep.process(orphaned)["pid"]
        node = ray.node_of(training)
        for pid in [node.pid, *below(node.pid)]:
            if pid != training:
                with suppress_gone():
                    os.kill(pid, signal.SIGKILL)
        print(f"  SIGKILL to all above the training of fold {orphaned}, which lives on", flush=True)
        ray.nodes.remove(node)
        ray.add_node()
        ray.add_node()
        command = sweep.start()
        return sweep.hold_until_waited_for(orphaned) + finish(sweep, command)


# --- processes


def below(pid: int) -> list[int]:
    """All processes that a process started, and those that they did."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        text = text_of(file)
        if text:
            parent = int(text.rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found, to_do = [], [pid]
    while to_do:
        more = children.get(to_do.pop(), [])
        found += more
        to_do += more
    return found


def end_all_of(folder: Path) -> None:
    """Kill processes that were left behind: those with the folder in their words or environment."""
    for file in Path("/proc").glob("[0-9]*"):
        pid = int(file.name)
        words = text_of(file / "cmdline") + text_of(file / "environ")
        if f"{folder}/" in words or f"ISIC_ROOT={folder}\0" in words:
            if pid != os.getpid():
                with suppress_gone():
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def suppress_gone() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        pass


@contextmanager
def closing(cluster):
    try:
        cluster.open()
        yield cluster
    finally:
        cluster.close()


PARTS = {"slurm": run_slurm, "ray": run_ray}

if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
