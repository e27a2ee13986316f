"""Facts of the challenge that several packages need: its sets, names, ids and threshold."""

import re

SETS = ("training", "validation", "test")
CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")  # of Task 3, in this order
UNRELEASED = "ISIC_0035068"  # in the truth of the Task 3 test set, with weight 0, but not an image
JACCARD_THRESHOLD = 0.65  # of Task 1: a Jaccard index below it counts as 0


def set_name(task: int, images: str) -> str:
    """Name of the set `images` of `task` (1 or 3); ValueError for others."""
    if task not in (1, 3) or images not in SETS:
        raise ValueError(f"task 1 or 3 and a set of {SETS}, not task {task!r}, set {images!r}")
    return f"task{task}_{images}"


def check_id(image_id: str) -> None:
    """ValueError for anything that is no image id, such as a path to another folder."""
    if not isinstance(image_id, str) or not re.fullmatch(r"[A-Za-z]+_[A-Za-z0-9_-]+", image_id):
        raise ValueError(f"{image_id!r} is not an image id such as ISIC_0000000")
