"""What there is of a data set: counts, and what is wrong, without reading a single picture.

Enters: a Dataset. Leaves: a Part per task and set with counts or the reason why it cannot be used.
"""

from collections.abc import Callable
from dataclasses import dataclass

from datasets.dataset import Dataset
from datasets.tasks import TASKS
from misc_utils.errors import UserError


@dataclass(frozen=True)
class Found:
    """What there is of one set of a task."""

    task: int
    images: str  # the set
    count: int  # of images; 0 where there are none
    truth: str  # in words: `2594 masks`, `7 classes`, or nothing
    trainable: bool  # images and truth are there, and fit
    wrong: str = ""  # what is wrong, and what to do


def take_stock(dataset: Dataset) -> list[Found]:
    """A row per task and set; nothing is raised for what is missing or wrong, it is in the rows."""
    rows = []
    for task in TASKS:
        for images in dataset.sets:
            if task == 2 and not dataset.has_masks(2, images):
                continue
            if not dataset.has_images(task, images):
                where = dataset.images_folder(task, images)
                rows.append(Found(task, images, 0, "", False, f"missing: {where}"))
                continue
            rows.append(_look(dataset, task, images))
    return rows


def _look(dataset: Dataset, task: int, images: str) -> Found:
    try:
        image_ids = list(dataset.list_images(task, images))
    except UserError as error:
        return Found(task, images, 0, "", False, str(error))
    look: Callable = _look_at_masks if TASKS[task].kind == "masks" else _look_at_classes
    try:
        truth = look(dataset, task, images, image_ids)
    except UserError as error:
        return Found(task, images, len(image_ids), "", False, str(error))
    return Found(task, images, len(image_ids), truth, bool(truth))


def _look_at_masks(dataset: Dataset, task: int, images: str, image_ids: list[str]) -> str:
    if not dataset.has_masks(task, images):
        return ""
    files = dataset.find_masks(task, images, image_ids)
    return f"{sum(map(len, files.values()))} masks"


def _look_at_classes(dataset: Dataset, task: int, images: str, image_ids: list[str]) -> str:
    if not dataset.has_labels(images):
        return ""
    labels = dataset.load_labels(images, image_ids)
    counts = [sum(label == k for label in labels.values()) for k in range(len(dataset.classes))]
    named = zip(dataset.classes, counts, strict=True)
    words = ", ".join(f"{name} {count}" for name, count in named)
    said = f"{len(dataset.classes)} classes: {words}"
    if images == "training":
        groups = len(set(dataset.load_lesions(image_ids, task).values()))
        said += f"; {groups} {dataset.group}s" if groups < len(image_ids) else ""
    return said
