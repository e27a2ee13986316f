"""What there is of a data set: counts, and what is wrong, without reading a single picture.

Enters: a Dataset. Leaves: a Found per task and set, with counts or the reason why it cannot be
used.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from datasets.dataset import Dataset
from datasets.folds import split_images, split_lesions
from datasets.tasks import TASKS
from misc_utils.errors import UserError

MOST_FOLDS = 5  # that a training makes, unless told otherwise


@dataclass(frozen=True)
class Found:
    """What there is of one set of a task."""

    task: int
    images: str  # the set
    files: Mapping[str, Path] = field(default_factory=dict)  # {image id: file}
    truth: str = ""  # in words: `2594 masks`, `7 classes: ...`
    missing: str = ""  # what is not there, and where it belongs
    wrong: str = ""  # what does not fit, and what to do
    num_folds: int = 0  # that it can be split into, MOST_FOLDS at most; 0: it cannot be trained on


def take_stock(dataset: Dataset) -> list[Found]:
    """A row per task and set; nothing is raised for what is missing or wrong, it is in the rows.

    Left out are images that have a truth of another task only, and sets without masks of Task 2.
    """
    which = [(task, images) for task in TASKS for images in dataset.sets]
    rows = [_look(dataset, *one) for one in which if one[0] != 2 or dataset.has_masks(*one)]
    said = [(row.files, TASKS[row.task].kind) for row in rows if row.truth]
    last = {row.missing: row for row in rows if not row.files}

    def of_another_task(row: Found) -> bool:
        if row.truth or row.wrong:
            return False
        if not row.files:  # tasks may share the folder that is missing
            return last[row.missing] is not row
        return any(row.files == files and TASKS[row.task].kind != kind for files, kind in said)

    return [row for row in rows if not of_another_task(row)]


def _look(dataset: Dataset, task: int, images: str) -> Found:
    found = Found(task, images)
    if not dataset.has_images(task, images):
        where = dataset.images_folder(task, images)
        return replace(found, missing=f"{where}; docs/data.md says where to get it")
    masks = TASKS[task].kind == "masks"
    there = dataset.has_masks(task, images) if masks else dataset.has_labels(images)
    try:
        found = replace(found, files=dataset.list_images(task, images))
        look = _look_at_masks if masks else _look_at_classes
        return replace(found, **look(dataset, task, images, list(found.files)))
    except UserError as error:
        return replace(found, **{"wrong" if there or not found.files else "missing": str(error)})


def _look_at_masks(dataset: Dataset, task: int, images: str, image_ids: list[str]) -> dict:
    files = dataset.find_masks(task, images, image_ids)
    found = {"truth": f"{sum(map(len, files.values()))} masks"}
    if images == "training":
        lesions = dataset.load_lesions(image_ids, task)
        most = len(set(lesions.values()))
        found["num_folds"] = _most_folds(most, lambda k: split_images(image_ids, k, 0, lesions))
    return found


def _look_at_classes(dataset: Dataset, task: int, images: str, image_ids: list[str]) -> dict:
    labels, classes = dataset.load_labels(images, image_ids), dataset.classes
    counts = Counter(labels.values())
    words = ", ".join(f"{name} {counts[k]}" for k, name in enumerate(classes))
    found = {"truth": f"{len(classes)} classes: {words}"}
    if images == "training":
        lesions = dataset.load_lesions(list(labels), task)
        number = len(set(lesions.values()))
        found["truth"] += f"; {number} {dataset.group}s" if number < len(labels) else ""
        most = min(number, max(counts.values()))
        found["num_folds"] = _most_folds(
            most, lambda k: split_lesions(labels, lesions, k, 0, classes, dataset.group)
        )
    return found


def _most_folds(most: int, split: Callable[[int], pd.DataFrame]) -> int:
    """Into how many folds, `most` at most, images can be split; UserError: not even into two."""
    for number in range(min(MOST_FOLDS, most), 1, -1):
        if split(number)["fold"].nunique() == number:  # few large lesions leave folds empty
            return number
    raise UserError(
        "too few images, of too few lesions or patients, to train on some of each and hold others "
        "out. Add images."
    )
