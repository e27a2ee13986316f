"""The tasks: what a net says of an image, and what follows from that.

Enters: nothing. Leaves: TASKS, a row per task of the ISIC 2018 challenge; other data sets hold some
of the same tasks.
"""

from dataclasses import dataclass
from typing import Literal

from datasets.challenge import ATTRIBUTES, SETS

DEFAULT = "isic2018"  # data set; its runs, caches and results do not carry its name


@dataclass(frozen=True)
class Task:
    """One task; its number is its key in TASKS."""

    what: str  # it is about, in words
    kind: Literal["masks", "classes"]  # what a net says of an image
    channels: tuple[str, ...]  # of the masks, in the order of the net's channels
    loss: str  # what `--loss auto` means, a row of models/losses.py
    monitors: tuple[str, ...]
    """what `--monitor` may be: the epoch best by it is kept; the first is meant by `auto`"""
    measures: tuple[str, ...]  # that an evaluation names first
    products: tuple[str, ...]  # that a prediction can write

    @property
    def scripts(self) -> str:
        """What the names of its scripts begin with."""
        return "seg" if self.kind == "masks" else "cls"


TASKS = {
    1: Task(
        what="lesion boundary",
        kind="masks",
        channels=("lesion",),
        loss="binary_crossentropy",
        monitors=("val_threshold_jaccard", "val_jaccard", "val_loss"),
        measures=("jaccard", "threshold_jaccard"),
        products=("crops", "mask"),
    ),
    2: Task(
        what="attributes",
        kind="masks",
        channels=ATTRIBUTES,
        loss="binary_crossentropy_jaccard",
        monitors=("val_jaccard", "val_loss"),
        measures=("micro_jaccard", "jaccard"),
        products=("mask",),
    ),
    3: Task(
        what="diagnosis",
        kind="classes",
        channels=(),
        loss="categorical_focal",
        monitors=("val_loss", "val_balanced_accuracy", "val_accuracy"),
        measures=("accuracy", "balanced_accuracy"),
        products=("table",),
    ),
}


def images_task(task: int) -> int:
    """The task whose images these are: those of Task 2 are those of Task 1."""
    return 1 if task == 2 else task


def script(task: int, verb: str) -> str:
    """File name of a script of a task: `seg_train.py`, `cls_eval.py` ..."""
    return f"{TASKS[task].scripts}_{verb}.py"


def flags(task: int, dataset: str) -> list[str]:
    """The flags that say task and data set to one of its scripts; none where both are the usual."""
    of_task = ["--task", str(task)] if task == 2 else []
    return of_task + (["--dataset", dataset] if dataset != DEFAULT else [])


def set_name(task: int, images: str, dataset: str = DEFAULT) -> str:
    """Name of what is made of the set `images` of a task; ValueError for what is none."""
    if task not in TASKS or images not in SETS:
        raise ValueError(f"task 1, 2 or 3 and a set of {SETS}, not task {task!r}, set {images!r}")
    return f"{prefix(dataset)}task{task}_{images}"


def prefix(dataset: str) -> str:
    """What names of runs, caches and results begin with: `isic2019_`, or nothing."""
    return "" if dataset == DEFAULT else f"{dataset}_"
