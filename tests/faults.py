"""Kill the scripts at moments drawn by chance, start them again, compare with whole runs.

python3 tests/faults.py
python3 tests/faults.py --parts seg_train --seed 7

Each command runs on drawn pictures with a small net, twice without a fault first, which must agree.
A kill is SIGKILL to the whole process group; then the same command runs to its end. Compared are
all files: caches, crops, masks and tables byte for byte, weights and states bit for bit.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from datasets.synthetic import draw_dataset  # noqa: E402
from misc_utils import command_line  # noqa: E402
from misc_utils.files import PARTIAL  # noqa: E402
from tests.same_results import contents, differences  # noqa: E402

NAMES = ("preprocess", "seg_train", "cls_train", "seg_predict", "cls_predict", "full_disk")
SMALL = ["--backbone", "tiny"]
TRAIN = [*SMALL, "--weights", "none", "--image-size", "32", "--num-folds", "2", "--batch-size", "4"]
TRAIN += ["--plateau-patience", "1"]
AT_ONCE = 2  # processes
PREDICTED = 500  # pictures
SMALL_CACHES = 7  # of the sets of a few pictures; those of two sets take nearly all the time
MORE = 7  # times that a kill may be added to hit a phase that chance missed


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    parts: tuple[Literal[*NAMES], ...] = NAMES  # what to run
    kills: int = 20  # in pre-processing and in each prediction
    training_kills: int = 10  # in each training
    seed: int | None = None  # of the moments; None: drawn, and printed
    keep: bool = False  # leave the folders of kills that went wrong, and name them


@dataclass(frozen=True)
class Part:
    """A command, the root it begins with, and how to tell where it is."""

    name: str
    command: list[str]
    start: Path  # copied for each run
    phase: Callable[[Path], str]


@dataclass
class Whole:
    """An uninterrupted run."""

    expected: dict[str, object]
    timeline: list[tuple[float, str]]  # a phase, and when it was first seen
    seconds: float

    def spans(self) -> dict[str, tuple[float, float]]:
        """{phase: from when to when}."""
        ends = [begun for begun, _ in self.timeline[1:]] + [self.seconds]
        return {name: (begun, end) for (begun, name), end in zip(self.timeline, ends, strict=True)}


@dataclass
class Tally:
    """What came of all kills."""

    kills: int = 0
    lost: int = 0
    different: int = 0
    wrong: list[str] = field(default_factory=list)


def main(settings: Settings) -> None:
    seed = settings.seed if settings.seed is not None else int(time.time())
    print(f"seed: {seed}", flush=True)
    random, tally, begun = np.random.default_rng(seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        roots = Roots(Path(folder))
        for name in settings.parts:
            if name == "full_disk":
                full_disk(roots, tally)
                continue
            part = PARTS[name](roots)
            number = settings.training_kills if "train" in name else settings.kills
            kill_often(part, number, random, tally, Path(folder), settings.keep)
    minutes = (time.monotonic() - begun) / 60
    print(f"{minutes:.1f} minutes, seed {seed}", *tally.wrong, sep="\n")
    print(f"kills: {tally.kills}, lost: {tally.lost}, different: {tally.different}")
    if tally.wrong or tally.lost or tally.different:
        sys.exit(1)


# --- roots to begin with


class Roots:
    """Folders with data, made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small = folder / "small"
        draw_dataset(self.small / "data", lesions=28, test_lesions=7, shorter_side=(72, 96), seed=3)
        self.trained: Path | None = None

    def many(self) -> Path:
        """Thousands of pictures to pre-process."""
        root = self.folder / "many"
        shutil.copytree(self.small, root)
        repeat_images(root, "ISIC2018_Task3_Test_Input", 3000)
        repeat_images(root, "ISIC2018_Task3_Validation_Input", 3000)
        return root

    def nets(self) -> Path:
        """Trained nets, and hundreds of pictures to predict; their caches are not there yet."""
        if self.trained is None:
            root = self.folder / "nets"
            shutil.copytree(self.small, root)
            for name in ("seg_train", "cls_train"):
                finish([*PARTS[name](self).command, "--epochs", "1"], root)
            repeat_images(root, "ISIC2018_Task3_Test_Input", PREDICTED)
            shutil.rmtree(root / "data" / "ISIC2018_Task3_Test_GroundTruth", ignore_errors=True)
            self.trained = root
        return self.trained


def repeat_images(root: Path, name: str, number: int) -> None:
    """Bring a folder to `number` pictures by copies under new names."""
    folder = root / "data" / name
    files = sorted(folder.glob("*.jpg"))
    for i in range(number - len(files)):
        shutil.copy(files[i % len(files)], folder / f"ISIC_{5_000_000 + i}.jpg")


def copy_root(start: Path, root: Path) -> None:
    """A copy to be spoilt; released pictures, which no script writes to, are linked."""

    def copy(source: str, target: str) -> None:
        if Path(source).parent.name.endswith(("_Input", "_GroundTruth")):
            try:
                os.link(source, target)
                return
            except OSError:  # another disk
                pass
        shutil.copy2(source, target)

    shutil.copytree(start, root, symlinks=True, copy_function=copy)


# --- commands, and where they are


def training_part(name: str, task: int, extra: list[str]) -> Callable[[Roots], Part]:
    epochs = 4
    command = [f"runs/{name}.py", *TRAIN, "--epochs", str(epochs), *extra]

    def phase(root: Path) -> str:
        runs = sorted((root / "model_data").glob(f"task{task}_*"))
        if not runs:
            return "caches" if (root / "data" / "cache").exists() else "start"
        run, fold = runs[-1], len(runs)
        if '"finished": true' in text_of(run / "settings.json"):
            return f"fold {fold} finished"
        rows = text_of(run / f"{run.name}.csv").count("\n") - 1
        if rows < 1:
            return f"fold {fold}, first epoch"
        return f"fold {fold}, " + ("later epochs" if rows < epochs else "after the epochs")

    return lambda roots: Part(name, command, roots.small, phase)


def preprocess_part(roots: Roots) -> Part:
    def phase(root: Path) -> str:
        cache = root / "data" / "cache"
        if not cache.exists():
            return "start"
        done = len(list(cache.glob("task*.json")))
        return "small caches" if done < SMALL_CACHES else f"{done} caches done"

    command = ["datasets/ISIC2018/preprocess_data.py", "--image-size", "32"]
    return Part("preprocess", command, roots.many(), phase)


def predicting_phase(name: str, last: str) -> Callable[[Path], str]:
    """Where a prediction is: `name` of its result, `last` the file that is written last."""

    def phase(root: Path) -> str:
        submissions = root / "submissions"
        if not submissions.exists():
            return "caches" if list((root / "data" / "cache").glob("*3_test*")) else "start"
        if (submissions / last).exists():
            return "last file written"
        stem = name.removesuffix(".csv")
        if '"complete": true' in text_of(submissions / f"{stem}.json"):
            return "complete, pictures to look at"
        lines = text_of(submissions / f"{stem}_progress.jsonl").count("\n")
        half = "first" if lines < PREDICTED / 2 else "second"
        return "loading the net" if lines < 2 else f"{half} half"

    return phase


def seg_predict_part(roots: Roots) -> Part:
    command = ["runs/seg_predict.py", *SMALL, "--pred-set", "test", "--batch-size", "8"]
    name = "task3_test_crops"
    return Part(
        "seg_predict", command, roots.nets(), predicting_phase(name, f"{name}_examples.png")
    )


def cls_predict_part(roots: Roots) -> Part:
    command = ["runs/cls_predict.py", *SMALL, "--batch-size", "2", "--tta"]
    phase = predicting_phase("task3_test_submission.csv", "task3_test_browse/index.html")
    return Part("cls_predict", command, roots.nets(), phase)


PARTS = {
    "preprocess": preprocess_part,
    "seg_train": training_part("seg_train", 1, []),
    "cls_train": training_part("cls_train", 3, ["--lesion-view", "whole", "--dropout", "0.3"]),
    "seg_predict": seg_predict_part,
    "cls_predict": cls_predict_part,
}


def text_of(file: Path) -> str:
    """What a file holds; nothing where it is not there."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


# --- kills


def start(command: list[str], root: Path) -> subprocess.Popen:
    """The command in a process group of its own; what it says goes to a file beside the root."""
    environment = os.environ | {"ISIC_ROOT": str(root)}
    script, *flags = command
    with root.with_name(f"{root.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / script), *flags],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def finish(command: list[str], root: Path) -> bool:
    """Run the command to its end; whether that was a good one."""
    return start(command, root).wait() == 0


def said(root: Path) -> str:
    """The last lines of what the commands on this root said."""
    return "\n".join(text_of(root.with_name(f"{root.name}.log")).splitlines()[-4:])


def run_whole(part: Part, root: Path) -> Whole:
    """Run a part without a fault, and note its phases."""
    copy_root(part.start, root)
    begun, timeline = time.monotonic(), [(0.0, "start")]
    process = start(part.command, root)
    while process.poll() is None:
        phase = part.phase(root)
        if phase not in {name for _, name in timeline}:
            timeline.append((time.monotonic() - begun, phase))
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    if process.returncode:
        raise RuntimeError(f"{part.name} fails without any fault:\n{said(root)}")
    return Whole(contents(root), timeline, seconds)


def draw_moments(whole: Whole, number: int, random: np.random.Generator) -> list[float]:
    """Two while the packages load, the others one in each equal slice of the work."""
    work = whole.timeline[1][0]
    edges = np.linspace(work, whole.seconds, number - 1)
    slices = [(0, work), (0, work), *itertools.pairwise(edges)]
    return [float(random.uniform(low, high)) for low, high in slices]


def kill_once(part: Part, moment: float, root: Path, aim: str = "") -> tuple[str, float]:
    """Start, kill, start again; the phase that was hit, and when it was.

    The kill comes `moment` seconds after the start, or after the phase `aim` began. A process that
    ended before is started anew and killed earlier.
    """
    while True:
        shutil.rmtree(root, ignore_errors=True)
        copy_root(part.start, root)
        begun, process = time.monotonic(), start(part.command, root)
        while aim and process.poll() is None and part.phase(root) != aim:
            time.sleep(0.005)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            phase, when = part.phase(root), time.monotonic() - begun
            return phase if finish(part.command, root) else "failed", when
        moment *= 0.9


def kill_often(
    part: Part, number: int, random: np.random.Generator, tally: Tally, folder: Path, keep: bool
) -> None:
    """All kills of a part, two at once; prints each and how often each phase was hit."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        wholes = list(
            threads.map(lambda i: run_whole(part, folder / f"{part.name}_whole{i}"), range(AT_ONCE))
        )
        whole = wholes[0]
        lost, different = differences(whole.expected, wholes[1].expected)
        if lost or different:
            tally.wrong.append(f"{part.name}: two whole runs differ in {[*lost, *different]}")
        print(f"\n{part.name}: {len(whole.expected)} files in {whole.seconds:.1f} s", flush=True)
        hit: Counter = Counter()

        def kill(item: tuple[int, tuple[float, str]]) -> tuple[int, str, float, list, list]:
            i, (moment, aim) = item
            root = folder / f"{part.name}_{i}"
            phase, moment = kill_once(part, moment, root, aim)
            lost, different = differences(whole.expected, contents(root))
            if phase == "failed":
                lost = [*lost, said(root)]
            if lost or different:
                print(f"  kept: {root}") if keep else None
            if not (keep and (lost or different)):
                shutil.rmtree(root)
            return i, phase, moment, lost, different

        def kill_all(moments: list[tuple[float, str]]) -> None:
            first = hit.total()
            for i, phase, moment, lost, different in threads.map(kill, enumerate(moments, first)):
                hit[phase] += 1
                tally.kills += 1
                tally.lost += bool(lost)
                tally.different += bool(different)
                end = "ok" if not lost and not different else f"lost {lost} different {different}"
                print(f"  {i + 1:2} at {moment:5.2f} s, {phase}: {end}", flush=True)

        kill_all([(moment, "") for moment in draw_moments(whole, number, random)])
        for attempt in range(MORE):
            missed = [phase for phase in whole.spans() if not hit[phase]]
            # soon after a phase began, and sooner each time: alone it may pass faster
            lengths = [np.ptp(whole.spans()[phase]) / 2**attempt for phase in missed]
            kill_all(
                [
                    (random.uniform(0, length), phase)
                    for length, phase in zip(lengths, missed, strict=True)
                ]
            )
    for phase, (begun, end) in whole.spans().items():
        print(f"  {phase} ({begun:.1f} to {end:.1f} s): {hit[phase]} kills")
    if missed := [phase for phase in whole.spans() if not hit[phase]]:
        tally.wrong.append(f"{part.name}: no kill in {missed}")


# --- a full disk


def full_disk(roots: Roots, tally: Tally) -> None:
    """Each command on a disk too small for it: a message, nothing half written, then it goes on."""
    root = roots.folder / "disk"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", root]).returncode:
        print("\nfull_disk: left out, as no tmpfs may be mounted here (it takes root)")
        return
    try:
        for name in ("preprocess", "seg_train", "cls_train", "seg_predict", "cls_predict"):
            part = PARTS[name](roots) if name != "preprocess" else None
            part = part or Part(name, preprocess_command(), roots.small, str)
            fill_disk(part, root, roots.folder / f"{name}_room", tally)
    finally:
        subprocess.run(["umount", root], check=True)


def preprocess_command() -> list[str]:
    return ["datasets/ISIC2018/preprocess_data.py", "--image-size", "128"]


def fill_disk(part: Part, disk: Path, room: Path, tally: Tally) -> None:
    """A part with a fifth, a half and nine tenths of the space that it needs."""
    copy_root(part.start, room)
    if not finish(part.command, room):
        raise RuntimeError(f"{part.name} fails without any fault:\n{said(room)}")
    expected = contents(room)
    begins = size_of(part.start)
    needs = size_of(room) - begins
    shutil.rmtree(room)
    for share in (0.2, 0.5, 0.9):
        root = disk / "root"
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        copy_root(part.start, root)
        before = contents(root)
        size = int(used(disk) + share * needs)
        subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
        log = disk.with_name("disk_log")
        with log.open("w") as output:
            environment = os.environ | {"ISIC_ROOT": str(root)}
            command = [sys.executable, str(REPOSITORY / part.command[0]), *part.command[1:]]
            code = subprocess.run(command, stdout=output, stderr=output, env=environment).returncode
        text = text_of(log)
        wrong = [] if code == 1 else [f"exit code {code}"]
        wrong += [] if "the disk is full" in text else ["no message"]
        wrong += ["a traceback"] if "Traceback" in text else []
        wrong += ["something half written"] if list(root.rglob(f"{PARTIAL}*")) else []
        after = contents(root)
        wrong += [f"{file} harmed" for file in before if after.get(file) != before[file]]
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        with log.open("w") as output:
            code = subprocess.run(command, stdout=output, stderr=output, env=environment).returncode
        lost, different = differences(expected, contents(root))
        wrong += [f"then exit code {code}"] if code else []
        wrong += [f"then lost {lost}, different {different}"] if lost or different else []
        print(
            f"  full disk, {part.name}, {share:.0%} of what it needs: {wrong or 'ok'}", flush=True
        )
        if wrong:
            tally.wrong.append(f"full disk, {part.name}: {wrong}\n{text[-600:]}")
        shutil.rmtree(root)


def used(disk: Path) -> int:
    """Bytes in use on a disk."""
    return shutil.disk_usage(disk).used


def size_of(folder: Path) -> int:
    """Bytes that the files of a folder take, in whole pages."""
    return sum(-(-file.lstat().st_size // 4096) * 4096 for file in folder.rglob("*"))


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
