"""The only owner, with crops, of submissions/: masks and class tables, checked before written.

Enters: masks uint8 (H, W) in {0, 255}, class probabilities (N, 7) in 0..1, each with its image
ids. Leaves: `task1_test/<id>_segmentation.png`, or `task3_test_submission.csv`; beside each a JSON
file that says what made it (see provenance).
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from datasets import ISIC2018
from datasets.boxes import Box, cut_lesion, radius_of_edge
from datasets.challenge import check_id, set_name
from datasets.lesion_crops import crop_folder, write_crop
from inference.class_table import check_classes_file
from misc_utils import provenance
from misc_utils.errors import UserError
from misc_utils.files import partial_file, remove_partials, sha256
from misc_utils.journal import Journal
from misc_utils.messages import counted

log = logging.getLogger(__name__)


def mask_folder(task: int, images: str) -> str:
    """Name of the folder of masks of the images of `task` (1 or 3) in the set `images`."""
    return set_name(task, images) + ("" if task == 1 else "_masks")


def class_file(images: str) -> str:
    """Name of the table of classes of the Task 3 set `images`."""
    return set_name(3, images) + "_submission.csv"


def deciding_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a segmentation without those that change nothing in what is written.

    Those are the radius of a hard edge; for masks all that is about crops.

    Raises:
        UserError: masks were asked for in another format than PNG, or with a soft edge.
    """
    unused = {"edge_radius"} if settings["edge"] == "hard" else set()
    if settings["output"] == "mask":
        for name, only in (("format", "png"), ("edge", "hard")):
            if settings[name] != only:
                raise UserError(
                    f"masks are 8-bit PNG of 0 and 255, as the organisers ask for: --{name} "
                    f"{settings[name]} is for crops alone. Leave it out."
                )
        unused = {"margin", "edge", "edge_radius", "format"}
    return {name: value for name, value in settings.items() if name not in unused}


@dataclass(frozen=True, eq=False)
class ResultFolder:
    """A folder of masks or crops that this process writes, and which images are done."""

    submissions: Path
    name: str
    made_by: dict  # see provenance.check_maker
    journal: Journal
    overwrite: bool
    done: set[str]  # images whose file is whole, as the journal's SHA-256 says

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.submissions / self.name

    def begin(self, total: int) -> None:
        """Open the folder for the files of `total` images, those that are done included."""
        open_folder(self.submissions, self.name, self.made_by, self.overwrite)
        if len(self.done) < total:
            provenance.write_record(self.submissions, self.name, self.made_by, complete=False)

    def finish(self, summary: dict) -> None:
        """Mark the folder as complete; `summary` holds counts and the like."""
        self.journal.close()
        close_folder(self.submissions, self.name, self.made_by, summary)


@contextmanager
def claimed_folder(
    submissions: Path, name: str, made_by: dict, data: str, overwrite: bool
) -> Iterator[ResultFolder]:
    """The folder `name`, with what is done of it, while no other process may write it.

    Nothing is written before it begins. Arguments as in provenance.open_journal.

    Raises UserError when something different made what is there, or another process writes it.
    """
    with provenance.claimed(submissions, name):
        journal, done = provenance.open_journal(submissions, name, made_by, data, overwrite), set()
        for image_id, row in journal.rows.items():
            with contextlib.suppress(OSError, KeyError, TypeError):
                if sha256(submissions / name / row["file"]) == row["sha256"]:
                    done.add(image_id)
        yield ResultFolder(submissions, name, made_by, journal, overwrite, done)


def open_folder(submissions: Path, name: str, made_by: dict, overwrite: bool) -> Path:
    """The folder `name`, ready to be written to; its JSON says `complete: false` until closed.

    What the same maker has completed stays complete; whoever changes it must say otherwise first.

    `name` is from mask_folder or lesion_crops.crop_folder; `made_by` goes to provenance.check_maker
    first; `overwrite` deletes what is there, whatever made it.
    """
    if overwrite:
        provenance.remove(submissions, name)
    provenance.check_maker(submissions, name, made_by)
    folder = submissions / name
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    record = provenance.record_of(submissions, name)
    if not (record.exists() and provenance.read_record(record)["complete"]):
        provenance.write_record(submissions, name, made_by, complete=False)
    return folder


def close_folder(submissions: Path, name: str, made_by: dict, summary: dict) -> None:
    """Say `complete: true` in the JSON of an opened folder, with `summary` (counts and the like).

    Raises UserError when something different has opened the folder since.
    """
    provenance.check_maker(submissions, name, made_by)
    provenance.write_record(submissions, name, made_by, complete=True, summary=summary)


def write_mask(folder: Path, image_id: str, mask: np.ndarray, height: int, width: int) -> Path:
    """Write `<id>_segmentation.png`, 8-bit mode L.

    `mask` is uint8 {0, 255} of the size of its image, `height` x `width` pixels: the organisers cut
    at > 128 and refuse other modes and sizes. ValueError for anything else.
    """
    check_id(image_id)
    if mask.dtype != np.uint8 or mask.shape != (height, width):
        raise ValueError(
            f"{image_id}: a mask is uint8 ({height}, {width}) like its image, not {mask.dtype} "
            f"{mask.shape}"
        )
    if not ((mask == 0) | (mask == 255)).all():
        raise ValueError(f"{image_id}: a mask is 0 or 255, not {np.unique(mask)[:5].tolist()} ...")
    file = folder / f"{image_id}_segmentation.png"
    with partial_file(file, durable=False) as partial:  # the journal has its hash
        partial.write_bytes(cv2.imencode(".png", mask)[1])  # a third of Pillow's time
    return file


def product_folder(settings: Any) -> str:
    """Name of the folder that the masks or crops of seg_predict.py's settings go to."""
    which = settings.task, settings.pred_set
    return mask_folder(*which) if settings.output == "mask" else crop_folder(*which, settings.edge)


def write_product(
    settings: Any, folder: Path, image_id: str, mask: np.ndarray, box: Box, original: Path
) -> Path:
    """Write the mask of an image, uint8 (H, W), or cut its original along the box; the file."""
    if settings.output == "mask":
        return write_mask(folder, image_id, mask, *mask.shape)
    edge_radius = radius_of_edge(settings.edge, settings.edge_radius)
    crop = cut_lesion(ISIC2018.read_original(original), mask, box, edge_radius)
    return write_crop(folder, image_id, crop, settings.format)


def read_mask(folder: Path, image_id: str) -> np.ndarray:
    """A mask as written: uint8 (H, W) in {0, 255}."""
    with Image.open(folder / f"{image_id}_segmentation.png") as picture:
        return np.asarray(picture)


def write_classes(
    submissions: Path,
    images: str,
    image_ids: Sequence[str],
    probability: np.ndarray,
    classes: Sequence[str],
    expected_ids: Sequence[str],
    made_by: dict,
    overwrite: bool,
) -> Path:
    """Write the class table of a Task 3 set and its JSON, if the organisers' scorer takes it.

    Args:
        submissions: the folder of all results.
        images: the set.
        image_ids: N image ids, one per row of `probability`.
        probability: float32 or float64 (N, C) in 0..1; rows need not sum to 1.
        classes: names of the C columns.
        expected_ids: the ids the scorer expects, in any order.
        made_by: see provenance.check_maker, which is asked first.
        overwrite: replace what is there, whatever made it.

    Raises:
        UserError when the scorer would refuse the table; what is there then stays as it is.
        ValueError when the shapes do not fit.
    """
    shape = (len(image_ids), len(classes))
    if probability.shape != shape or probability.dtype.kind != "f":
        raise ValueError(f"float {shape} expected, not {probability.dtype} {probability.shape}")
    name = class_file(images)
    if not overwrite:
        provenance.check_maker(submissions, name, made_by)
    lines = [["image", *classes]]
    for image_id, row in zip(image_ids, probability, strict=True):
        check_id(image_id)
        # str: the shortest text that reads as the same number, and never as an integer
        lines.append([image_id, *map(str, row)])
    file = submissions / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(file) as partial:
        partial.write_text("".join(",".join(line) + "\n" for line in lines), newline="\n")
        check_classes_file(partial, classes, expected_ids, shown=file)
        provenance.write_record(submissions, name, made_by, complete=False)
    largest = probability == probability.max(axis=1, keepdims=True)
    ties = [image_ids[i] for i in np.flatnonzero(largest.sum(axis=1) > 1)]
    if ties:
        log.warning("%s: no class is ahead, which counts as wrong, in %s", file, counted(ties))
    summary = {"images": len(image_ids), "ties": len(ties)}
    provenance.write_record(submissions, name, made_by, complete=True, summary=summary)
    return file
