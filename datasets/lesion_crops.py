"""Crops: lesions cut out of their images, and the table of where each was cut.

Enters: crops uint8 (h, w, 3) RGB with the ids of their images, a folder of crops. Leaves, in that
folder: `<id>.png` (or another of FORMATS) for each crop, and crops.csv, with a CropRow for each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from datasets.boxes import Box
from datasets.challenge import check_id
from datasets.tasks import DEFAULT, flags, set_name
from misc_utils import provenance
from misc_utils.errors import UserError
from misc_utils.files import partial_file
from misc_utils.journal import Journal
from misc_utils.messages import command, counted

if TYPE_CHECKING:  # it takes a second to import, and names and formats are known without it
    import pandas as pd

SCRIPT = "seg_predict.py"  # makes crops
EDGES = {"hard": "", "feather": "_feather"}  # edge of a crop -> ending of its folder's name


class Format(NamedTuple):
    """How crops are stored."""

    ending: str  # of the file's name
    lossless: bool  # the pixels read are those written
    options: Mapping[str, object]  # of Pillow's `save`
    most: int = 2**31 - 1  # pixels that a side may have


HORIZONTAL = {317: 2}  # TIFF tag Predictor: compress differences of neighbours, 24 % smaller
FORMATS = {
    "png": Format(".png", True, {"compress_level": 1}),  # 4 times as fast as 6, 14 % larger
    "jpeg": Format(".jpg", False, {"quality": 95, "subsampling": "4:4:4"}, 65_500),
    # with lossless, quality and method set the effort: 27 times as fast as by default, 7 % larger
    "webp": Format(".webp", True, {"lossless": True, "quality": 0, "method": 0}, 16_383),
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
    maker: str  # of nets and settings only: equal for crops of two sets made the same way
    cut: dict[str, float]  # margin and edge_radius that the lesions were cut with, where recorded


def crop_folder(task: int, images: str, edge: str = "hard", dataset: str = DEFAULT) -> str:
    """Name of the folder of crops of the images of `task` in the set `images`."""
    return set_name(task, images, dataset) + "_crops" + EDGES[edge]


def crop_file(folder: Path, image_id: str, format: str = "png") -> Path:
    """Where the crop of an image lies; `format` is a row of FORMATS."""
    return folder / f"{image_id}{FORMATS[format].ending}"


def check_sizes(format: str, sizes: Mapping[str, tuple[int, int]]) -> None:
    """UserError unless a crop of each image {image id: (height, width)} fits into the format."""
    most = FORMATS[format].most
    large = [
        f"{i} ({width}x{height})"
        for i, (height, width) in sizes.items()
        if max(height, width) > most
    ]
    if large:
        raise UserError(
            f"{format} pictures have {most} pixels a side at most, and these images more: "
            f"{counted(large)}. Choose another --format, such as png."
        )


def write_crop(folder: Path, image_id: str, crop: np.ndarray, format: str = "png") -> Path:
    """Write the crop of an image from uint8 (h, w, 3) RGB; ValueError for anything else."""
    check_id(image_id)
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or not crop.size:
        raise ValueError(f"{image_id}: a crop is uint8 (h, w, 3), not {crop.dtype} {crop.shape}")
    file = crop_file(folder, image_id, format)
    with partial_file(file, durable=False) as partial:  # the journal has its hash
        Image.fromarray(crop).save(partial, **FORMATS[format].options)
    return file


def write_crops_table(folder: Path, rows: Sequence[CropRow]) -> Path:
    """Write crops.csv, sorted by image; ValueError for a repeated image or a box outside it."""
    import pandas as pd

    if len({row.image for row in rows}) != len(rows):
        raise ValueError("an image has two crops")
    for row in rows:
        _check_row(row)
    file = folder / "crops.csv"
    with partial_file(file) as partial:
        table = pd.DataFrame(sorted(rows), columns=CropRow._fields)
        table.to_csv(partial, index=False, lineterminator="\n")
    return file


def load_crops(
    submissions: Path,
    task: int,
    images: str,
    edge: str = "hard",
    more: Sequence[str] = (),
    dataset: str = DEFAULT,
) -> Crops:
    """The crops of a set of images, with a `hard` or `feather` edge.

    Raises UserError, with the command that makes them, unless all crops exist and are finished;
    `more` are flags that this command is to have.
    """
    name = crop_folder(task, images, edge, dataset)
    soft = ("--edge", "feather") if edge == "feather" else ()
    which = ("--task", task, "--pred-set", images, *soft, *flags(3, dataset), *more)
    make, make_again = command(SCRIPT, *which), command(SCRIPT, *which, "--overwrite")
    folder, record = submissions / name, provenance.record_of(submissions, name)
    file = folder / "crops.csv"
    for needed in (folder, record, file):
        if not needed.exists():
            raise UserError(
                f"{needed} does not exist. Make the crops: {make}. Classifiers of whole images "
                f"(--lesion-view whole) need none."
            )
    content = provenance.read_record(record)
    if not content["complete"]:
        raise UserError(f"{record}: not all crops were made. Make the others: {make}")
    again = f"Make the crops again: {make_again}"
    table = _read_crops_table(file, again)
    format = content["made_by"].get("settings", {}).get("format", "png")
    if format not in FORMATS:
        raise UserError(
            f"{record}: the format of the crops is {format!r}, expected one of "
            f"{', '.join(FORMATS)}. {again}"
        )
    files = {image_id: crop_file(folder, image_id, format) for image_id in table["image"]}
    there = set(folder.iterdir())
    missing = {image_id for image_id, file in files.items() if file not in there}
    if missing:
        raise UserError(f"{folder}: no crop of {counted(missing)}. Make them again: {make}")
    made_by = without_lossless_format(content["made_by"])
    text = json.dumps(made_by, sort_keys=True).encode()
    fingerprint = hashlib.sha256(file.read_bytes() + b"\n" + text).hexdigest()
    maker = provenance.fingerprint_of_maker(made_by)
    cut = cut_of(content["made_by"])
    return Crops(folder, table.set_index("image"), files, fingerprint, maker, cut)


def _read_crops_table(file: Path, fix: str) -> pd.DataFrame:
    """crops.csv with the columns of CropRow; UserError for what write_crops_table never writes."""
    import pandas as pd

    try:
        table = pd.read_csv(file, dtype={"image": str})
        if tuple(table.columns) != CropRow._fields:
            expected, found = ", ".join(CropRow._fields), ", ".join(table.columns)
            raise ValueError(f"expected the columns {expected}, found {found}")
        if any(dtype.kind != "i" for dtype in table.dtypes[1:]):  # a NaN makes a column of floats
            raise ValueError("all columns but the first must hold whole numbers")
        if table["image"].duplicated().any():
            raise ValueError(
                f"{table['image'][table['image'].duplicated()].iloc[0]} is in it twice"
            )
        for row in table.itertuples(index=False):
            _check_row(row)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: {error}. {fix}") from None
    return table


def _check_row(row: CropRow) -> None:
    """ValueError for what is no image id, and for a box that is not inside its image."""
    check_id(row.image)
    inside = 0 <= row.top < row.top + row.height <= row.source_height
    if not inside or not 0 <= row.left < row.left + row.width <= row.source_width:
        raise ValueError(f"the box of {row.image} leaves its source: {tuple(row[1:])}")


def cut_of(made_by: dict) -> dict[str, float]:
    """The settings of these that say how a lesion is cut: margin, and edge_radius where soft."""
    settings = made_by.get("settings", {})
    return {key: settings[key] for key in ("margin", "edge_radius") if key in settings}


def without_lossless_format(made_by: dict) -> dict:
    """`made_by` without a lossless format: crops in two such formats count as the same crops."""
    settings = made_by.get("settings", {})
    if "format" not in settings or not FORMATS[settings["format"]].lossless:
        return made_by
    return made_by | {"settings": {k: v for k, v in settings.items() if k != "format"}}


def load_view_crops(
    submissions: Path,
    images: str,
    lesion_view: str,
    more: Sequence[str] = (),
    dataset: str = DEFAULT,
) -> Crops | None:
    """The crops of a Task 3 set that a view needs; None for `whole`.

    `feather` needs those with a soft edge; `box` needs the boxes and `crop` the pictures of those
    with a hard edge. Errors and `more` as in load_crops.
    """
    if lesion_view == "whole":
        return None
    edge = "feather" if lesion_view == "feather" else "hard"
    return load_crops(submissions, 3, images, edge, more, dataset)


def row_of(image_id: str, box: Box, mask: np.ndarray) -> CropRow:
    """The row of a crop cut out along `box`, of the lesion in the mask (H, W)."""
    place = (box.top, box.left, box.height, box.width)
    return CropRow(image_id, *place, *mask.shape, int(np.count_nonzero(mask)))


def note_image(journal: Journal, digests: Mapping[str, str], row: CropRow) -> None:
    """Enter the files that were written of an image, {name: SHA-256}, into the journal."""
    journal.add(row.image, {"files": dict(digests), "row": row})


def rows_of(journal: Journal) -> list[CropRow]:
    """The rows that note_image entered."""
    return [CropRow(*row["row"]) for row in journal.rows.values()]
