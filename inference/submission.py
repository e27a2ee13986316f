"""The only owner, with crops, of submissions/: masks and class tables, checked before written.

Enters: masks uint8 (H, W) in {0, 255}, class probabilities (N, C) in 0..1, each with its image
ids. Leaves: `task1_test/<id>_segmentation.png`, or `task3_test_submission.csv`; beside each a JSON
file that says what made it (see provenance).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from datasets.boxes import Box, cut_lesion, radius_of_edge
from datasets.challenge import check_id
from datasets.lesion_crops import crop_folder, write_crop
from datasets.pictures import read_original
from datasets.tasks import DEFAULT, TASKS, set_name
from inference.class_table import check_classes_file
from misc_utils import provenance
from misc_utils.errors import UserError
from misc_utils.files import partial_file, remove_partials, sha256
from misc_utils.journal import Journal
from misc_utils.messages import counted

if TYPE_CHECKING:  # most of this is done without it
    import pandas as pd

log = logging.getLogger(__name__)


def mask_folder(task: int, images: str, dataset: str = DEFAULT) -> str:
    """Name of the folder of masks of the images of `task` in the set `images`."""
    return set_name(task, images, dataset) + ("_masks" if task == 3 else "")


def class_file(images: str, dataset: str = DEFAULT) -> str:
    """Name of the table of classes of the Task 3 set `images`."""
    return set_name(3, images, dataset) + "_submission.csv"


def deciding_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a segmentation without those that change nothing in what is written.

    Those are the radius of a hard edge; for masks all that is about crops.

    Raises:
        UserError: masks were asked for in another format than PNG, or with a soft edge; or crops of
            attributes.
    """
    if settings["task"] == 2 and settings["output"] not in TASKS[2].products:
        raise UserError("crops are of lesions, not of attributes: write `mask` for --task 2.")
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
                # earlier code noted the one file of an image
                files = row["files"] if "files" in row else {row["file"]: row["sha256"]}
                if all(sha256(submissions / name / f) == digest for f, digest in files.items()):
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


def write_mask(
    folder: Path, image_id: str, mask: np.ndarray, height: int, width: int, channel: str = "lesion"
) -> Path:
    """Write `<id>_segmentation.png`, or `<id>_attribute_<channel>.png`; 8-bit mode L.

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
    file = mask_file(folder, image_id, channel)
    with partial_file(file, durable=False) as partial:  # the journal has its hash
        partial.write_bytes(cv2.imencode(".png", mask)[1])  # a third of Pillow's time
    return file


def mask_file(folder: Path, image_id: str, channel: str = "lesion") -> Path:
    """Where a mask of an image lies; named as the organisers ask for."""
    ending = "segmentation" if channel == "lesion" else f"attribute_{channel}"
    return folder / f"{image_id}_{ending}.png"


def product_folder(settings: Any) -> str:
    """Name of the folder that the masks or crops of seg_predict.py's settings go to."""
    which, dataset = (settings.task, settings.pred_set), settings.dataset
    if settings.output == "mask":
        return mask_folder(*which, dataset)
    return crop_folder(*which, settings.edge, dataset)


def write_product(
    settings: Any,
    folder: Path,
    image_id: str,
    masks: Mapping[str, np.ndarray],
    box: Box,
    original: Path,
) -> list[Path]:
    """Write the masks of an image, {channel: uint8 (H, W)}, or cut its original along the box.

    Returns the files.
    """
    if settings.output == "mask":
        return [
            write_mask(folder, image_id, mask, *mask.shape, channel)
            for channel, mask in masks.items()
        ]
    edge_radius = radius_of_edge(settings.edge, settings.edge_radius)
    crop = cut_lesion(read_original(original), masks["lesion"], box, edge_radius)
    return [write_crop(folder, image_id, crop, settings.format)]


def read_mask(folder: Path, image_id: str, channel: str = "lesion") -> np.ndarray:
    """A mask as written: uint8 (H, W) in {0, 255}."""
    with Image.open(mask_file(folder, image_id, channel)) as picture:
        return np.asarray(picture)


def write_classes(
    submissions: Path,
    name: str,
    table: pd.DataFrame,
    expected_ids: Sequence[str],
    made_by: dict,
    overwrite: bool,
) -> Path:
    """Write the class table of a Task 3 set and its JSON, if the organisers' scorer takes it.

    Args:
        submissions: the folder of all results.
        name: from class_file.
        table: from Dataset.submission: a column of N ids, then columns of float32 or float64 in
            0..1; rows need not sum to 1.
        expected_ids: the ids the scorer expects, in any order.
        made_by: see provenance.check_maker, which is asked first.
        overwrite: replace what is there, whatever made it.

    Raises:
        UserError when the scorer would refuse the table; what is there then stays as it is.
        ValueError when the columns do not hold floats.
    """
    id_column, *columns = table.columns
    image_ids, probability = table[id_column].tolist(), table[columns].to_numpy()
    if probability.dtype.kind != "f":
        raise ValueError(f"columns of floats expected, not {probability.dtype}")
    if not overwrite:
        provenance.check_maker(submissions, name, made_by)
    for image_id in image_ids:
        check_id(image_id)
    # str: the shortest text that reads as the same number, and never as an integer
    cells = table.assign(**{name: list(map(str, table[name].to_numpy())) for name in columns})
    file = submissions / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(file) as partial:
        cells.to_csv(partial, index=False, lineterminator="\n")
        check_classes_file(partial, table.columns, expected_ids, shown=file)
        provenance.write_record(submissions, name, made_by, complete=False)
    largest = probability == probability.max(axis=1, keepdims=True)
    several = (largest.sum(axis=1) > 1) & (len(columns) > 1)
    ties = [image_ids[i] for i in np.flatnonzero(several)]
    if ties:
        log.warning("%s: no class is ahead, which counts as wrong, in %s", file, counted(ties))
    summary = {"images": len(image_ids), "ties": len(ties)}
    provenance.write_record(submissions, name, made_by, complete=True, summary=summary)
    return file
