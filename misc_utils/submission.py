"""The only owner of submissions/: masks, crops and class tables, checked before they are written.

Enters: masks uint8 (H, W) in {0, 255}, crops uint8 (h, w, 3) RGB, class probabilities (N, 7) in
0..1, each with its image ids. Leaves: `task1_test/<id>_segmentation.png`, or `crops.csv` and
`task3_test_crops/<id>.png` (or another of FORMATS), or `task3_test_submission.csv`; beside each a
JSON file that says what made it (see provenance).
"""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from errors import UserError
from files import partial_file, remove_partials
from misc_utils import provenance
from misc_utils.class_table import check_classes_file, listed
from misc_utils.journal import Journal

log = logging.getLogger(__name__)

SETS = ("training", "validation", "test")
EDGES = {"hard": "", "feather": "_feather"}  # edge of a crop -> ending of its folder's name


class Format(NamedTuple):
    """How crops are stored."""

    ending: str  # of the file's name
    lossless: bool  # what is read is what was written
    options: Mapping[str, object]  # of Pillow's `save`


HORIZONTAL = {317: 2}  # TIFF tag Predictor: differences of neighbours are packed, 24 % smaller
FORMATS = {
    "png": Format(".png", True, {"compress_level": 1}),  # 4 times as fast as 6, 14 % larger
    "jpeg": Format(".jpg", False, {"quality": 95, "subsampling": "4:4:4"}),
    # lossless, these two say how hard to try: 27 times as fast as Pillow's own, 7 % larger
    "webp": Format(".webp", True, {"lossless": True, "quality": 0, "method": 0}),
    "tiff": Format(".tiff", True, {"compression": "tiff_adobe_deflate", "tiffinfo": HORIZONTAL}),
}


class CropRow(NamedTuple):
    """Where a crop was cut from its source image, in pixels; one row of crops.csv."""

    image: str
    top: int
    left: int
    height: int
    width: int
    source_height: int
    source_width: int
    lesion_pixels: int  # 0: no lesion was found, the crop is the whole image


@dataclass(frozen=True)
class Crops:
    """A finished folder of crops."""

    folder: Path
    table: pd.DataFrame  # columns of CropRow, indexed by image
    files: dict[str, Path]  # the crop of each image of the table
    fingerprint: str  # of crops.csv and of what made it
    maker: str  # of nets and settings alone: crops of two sets, made in the same way, share it


def mask_folder(task: int, images: str) -> str:
    """Name of the folder of masks of the images of `task` (1 or 3) in the set `images`."""
    return _name(task, images) + ("" if task == 1 else "_masks")


def crop_folder(task: int, images: str, edge: str = "hard") -> str:
    """Name of the folder of crops of the images of `task` (1 or 3) in the set `images`."""
    return _name(task, images) + "_crops" + EDGES[edge]


def class_file(images: str) -> str:
    """Name of the table of classes of the Task 3 set `images`."""
    return _name(3, images) + "_submission.csv"


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


def _name(task: int, images: str) -> str:
    if task not in (1, 3) or images not in SETS:
        raise ValueError(f"task 1 or 3 and a set of {SETS}, not task {task!r}, set {images!r}")
    return f"task{task}_{images}"


def open_folder(submissions: Path, name: str, made_by: dict, overwrite: bool) -> Path:
    """The folder `name`, ready to be written to; its JSON says `complete: false` until closed.

    What the same maker has completed stays complete; whoever changes it must say otherwise first.

    Args:
        submissions: the folder of all results.
        name: from mask_folder or crop_folder.
        made_by: see provenance.check_maker, which is asked first.
        overwrite: delete what is there, whatever made it.
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


def done_images(folder: Path, journal: Journal) -> set[str]:
    """Images of the journal whose file in the folder is whole, as its SHA-256 says."""
    done = set()
    for image_id, row in journal.rows.items():
        with contextlib.suppress(OSError, KeyError, TypeError):
            if file_hash(folder / row["file"]) == row["sha256"]:
                done.add(image_id)
    return done


def note_image(journal: Journal, file: Path, digest: str, row: CropRow) -> None:
    """Enter a written mask or crop into the journal."""
    journal.add(row.image, {"file": file.name, "sha256": digest, "row": row})


def rows_of(journal: Journal) -> list[CropRow]:
    """What note_image entered."""
    return [CropRow(*row["row"]) for row in journal.rows.values()]


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
    _check_id(image_id)
    if mask.dtype != np.uint8 or mask.shape != (height, width):
        raise ValueError(
            f"{image_id}: a mask is uint8 ({height}, {width}) like its image, not {mask.dtype} "
            f"{mask.shape}"
        )
    if not ((mask == 0) | (mask == 255)).all():
        raise ValueError(f"{image_id}: a mask is 0 or 255, not {np.unique(mask)[:5].tolist()} ...")
    file = folder / f"{image_id}_segmentation.png"
    with partial_file(file, durable=False) as partial:  # the journal has its hash
        Image.fromarray(mask).save(partial)
    return file


def read_mask(folder: Path, image_id: str) -> np.ndarray:
    """A mask as written: uint8 (H, W) in {0, 255}."""
    with Image.open(folder / f"{image_id}_segmentation.png") as picture:
        return np.asarray(picture)


def crop_file(folder: Path, image_id: str, format: str = "png") -> Path:
    """Where the crop of an image lies; `format` is a row of FORMATS."""
    return folder / f"{image_id}{FORMATS[format].ending}"


def write_crop(folder: Path, image_id: str, crop: np.ndarray, format: str = "png") -> Path:
    """Write the crop of an image from uint8 (h, w, 3) RGB; ValueError for anything else."""
    _check_id(image_id)
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or not crop.size:
        raise ValueError(f"{image_id}: a crop is uint8 (h, w, 3), not {crop.dtype} {crop.shape}")
    file = crop_file(folder, image_id, format)
    with partial_file(file, durable=False) as partial:  # the journal has its hash
        Image.fromarray(crop).save(partial, **FORMATS[format].options)
    return file


def write_crops_table(folder: Path, rows: Sequence[CropRow]) -> Path:
    """Write crops.csv, sorted by image; ValueError for an image twice or a box out of its image."""
    if len({row.image for row in rows}) != len(rows):
        raise ValueError("an image has two crops")
    for row in rows:
        _check_row(row)
    file = folder / "crops.csv"
    with partial_file(file) as partial:
        table = pd.DataFrame(sorted(rows), columns=CropRow._fields)
        table.to_csv(partial, index=False, lineterminator="\n")
    return file


def load_crops(submissions: Path, name: str) -> Crops:
    """The crops in the folder `name` (from crop_folder).

    Raises UserError, naming the command that makes them, unless all are there and finished.
    """
    match = re.fullmatch(rf"task([13])_({'|'.join(SETS)})_crops(_feather)?", name)
    if not match:
        raise ValueError(f"{name!r} is not the name of a folder of crops")
    command = f"python3 runs/seg_predict.py --task {match[1]} --pred-set {match[2]}"
    command += " --edge feather" if match[3] else ""
    folder, record = submissions / name, provenance.record_of(submissions, name)
    file = folder / "crops.csv"
    for needed in (folder, record, file):
        if not needed.exists():
            raise UserError(f"{needed} is not there. Make the crops: {command}")
    content = provenance.read_record(record)
    if not content["complete"]:
        raise UserError(f"{record}: not all crops were made. Run it to its end: {command}")
    table = _read_crops_table(file, f"Make the crops anew: {command} --overwrite")
    format = content["made_by"].get("settings", {}).get("format", "png")
    if format not in FORMATS:
        raise UserError(
            f"{record}: the format of the crops is {format!r}, expected {', '.join(FORMATS)}. "
            f"Make the crops anew: {command} --overwrite"
        )
    files = {image_id: crop_file(folder, image_id, format) for image_id in table["image"]}
    there = set(folder.iterdir())
    missing = {image_id for image_id, file in files.items() if file not in there}
    if missing:
        raise UserError(f"{folder}: no crop of {listed(missing)}. Make them again: {command}")
    made_by = _without_lossless_format(content["made_by"])
    text = json.dumps(made_by, sort_keys=True).encode()
    fingerprint = hashlib.sha256(file.read_bytes() + b"\n" + text).hexdigest()
    maker = provenance.fingerprint_of_maker(made_by)
    return Crops(folder, table.set_index("image"), files, fingerprint, maker)


def _read_crops_table(file: Path, mend: str) -> pd.DataFrame:
    """crops.csv with the columns of CropRow; UserError for what write_crops_table cannot write."""
    try:
        table = pd.read_csv(file, dtype={"image": str})
        if tuple(table.columns) != CropRow._fields:
            expected, found = ", ".join(CropRow._fields), ", ".join(table.columns)
            raise ValueError(f"expected the columns {expected}, found {found}")
        if any(dtype.kind != "i" for dtype in table.dtypes[1:]):  # a NaN makes a column of floats
            raise ValueError("all but the first column hold whole numbers")
        if table["image"].duplicated().any():
            raise ValueError(
                f"{table['image'][table['image'].duplicated()].iloc[0]} is in it twice"
            )
        for row in table.itertuples(index=False):
            _check_row(row)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}. {mend}") from None
    return table


def _check_row(row: CropRow) -> None:
    """ValueError for an id that is none, and for a box that leaves its image."""
    _check_id(row.image)
    inside = 0 <= row.top < row.top + row.height <= row.source_height
    if not inside or not 0 <= row.left < row.left + row.width <= row.source_width:
        raise ValueError(f"the box of {row.image} leaves its source: {tuple(row[1:])}")


def _without_lossless_format(made_by: dict) -> dict:
    """Pixels of lossless formats are the same: which of them it is makes no other crops."""
    settings = made_by.get("settings", {})
    if "format" not in settings or not FORMATS[settings["format"]].lossless:
        return made_by
    return made_by | {"settings": {k: v for k, v in settings.items() if k != "format"}}


def load_view_crops(submissions: Path, images: str, lesion_view: str) -> Crops | None:
    """The crops of a Task 3 set that a view is made of: none for `whole`, soft ones for `feather`.

    `box` takes its boxes, and `crop` its pictures, from those with a hard edge.
    """
    if lesion_view == "whole":
        return None
    edge = "feather" if lesion_view == "feather" else "hard"
    return load_crops(submissions, crop_folder(3, images, edge))


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
        _check_id(image_id)
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
        log.warning("%s: no class is ahead, which counts as wrong, in %s", file, listed(ties))
    summary = {"images": len(image_ids), "ties": len(ties)}
    provenance.write_record(submissions, name, made_by, complete=True, summary=summary)
    return file


def _check_id(image_id: str) -> None:
    if not isinstance(image_id, str) or not re.fullmatch(r"[A-Za-z]+_[A-Za-z0-9_-]+", image_id):
        raise ValueError(f"{image_id!r} is not an image id such as ISIC_0000000")
