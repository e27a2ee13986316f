"""The only reader of the released folders: names, pictures, masks and tables as shipped.

Enters: `data/` with the folders of the release. Leaves: image ids with their files, images as uint8
(H, W, 3) RGB, masks as uint8 (H, W) in {0, 1}, labels and lesion groups keyed by image id.
"""

import csv
import io
import logging
import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from errors import UserError

log = logging.getLogger(__name__)

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
SETS = ("training", "validation", "test")
UNRELEASED = "ISIC_0035068"  # in the truth of the Task 3 test set, with weight 0, but not an image

IMAGE_ID = re.compile(r"[A-Za-z]+_\d+")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
COMPANIONS = ("ATTRIBUTION.txt", "LICENSE.txt")  # shipped beside the images; superpixels are too


def image_folder(data_dir: Path, task: int, images: str) -> Path:
    """Folder of the images of `task` (1 or 3) in the set `images`."""
    return data_dir / f"ISIC2018_Task{'1-2' if task == 1 else 3}_{images.title()}_Input"


def truth_folder(data_dir: Path, task: int, images: str) -> Path:
    """Folder of the truth of `task` (1 or 3) for the set `images`."""
    return data_dir / f"ISIC2018_Task{task}_{images.title()}_GroundTruth"


def labels_file(data_dir: Path, images: str) -> Path:
    """Table of the Task 3 classes of the set `images`."""
    folder = truth_folder(data_dir, 3, images)
    return folder / f"{folder.name}.csv"


def groups_file(data_dir: Path) -> Path:
    """Table that says which Task 3 training images show the same lesion."""
    return truth_folder(data_dir, 3, "training") / "ISIC2018_Task3_Training_LesionGroupings.csv"


def list_images(folder: Path) -> dict[str, Path]:
    """Image files of a released folder, {image id: file} in sorted order of the ids.

    Raises UserError when the folder is missing or holds no image, or when an id has two files.
    """
    return _list_files(folder, "", IMAGE_SUFFIXES)


def list_masks(folder: Path) -> dict[str, Path]:
    """Mask files `<id>_segmentation.png` of a released folder, {image id: file}, sorted by id."""
    return _list_files(folder, "_segmentation", (".png",))


def _list_files(folder: Path, ending: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder. Put the unzipped ISIC 2018 folder of that name "
            f"there, or let ISIC_ROOT (or root_dir in runs/paths.py) name the folder over data/."
        )
    found, unknown = {}, []
    for file in sorted(folder.iterdir()):
        stem = file.stem.removesuffix(ending)
        if file.name in COMPANIONS or file.name.startswith(".") or "superpixels" in file.stem:
            continue
        if file.suffix.lower() not in suffixes or stem + ending != file.stem:
            unknown.append(file.name)
        elif not IMAGE_ID.fullmatch(stem):
            unknown.append(file.name)
        elif stem in found:
            raise UserError(f"{file}: {found[stem].name} is the same image. Keep one of the two.")
        else:
            found[stem] = file
    if unknown:
        log.warning("%s: not of the release, left alone: %s", folder, listed(unknown))
    if not found:
        raise UserError(
            f"{folder}: the folder holds no file named ISIC_<number>{ending}{suffixes[0]}. "
            f"Unzip the released archive into it."
        )
    return found


def read_image(content: bytes, shortest: int = 0) -> tuple[np.ndarray, int, int]:
    """Decode an image file.

    Args:
        content: bytes of a JPEG or PNG file; grey, palette and CMYK pictures become RGB.
        shortest: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets
            shorter than this many pixels; 0 decodes it whole.

    Returns:
        uint8 (h, w, 3) RGB, and the height and width of the file in pixels.

    Raises:
        OSError, ValueError or SyntaxError when the bytes are not a whole picture.
    """
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
        if shortest and picture.mode == "RGB":
            picture.draft("RGB", (shortest, shortest))
        return np.asarray(picture.convert("RGB")), height, width


def read_mask(content: bytes) -> np.ndarray:
    """Decode a mask: uint8 (H, W) in {0, 1}.

    Raises ValueError when the picture holds other values than 0 and one of 1 or 255, OSError when
    it is not a whole picture.
    """
    with Image.open(io.BytesIO(content)) as picture:
        mask = np.asarray(picture if picture.mode == "L" else picture.convert("L"))
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if len(values) > 2 or not set(values.tolist()) <= {0, 1, 255} or {1, 255} <= set(values):
        raise ValueError(f"a mask holds 0 and 255 only, this one {listed(values.tolist())}")
    return (mask > 0).astype(np.uint8)


def read_labels(file: Path) -> dict[str, int]:
    """Task 3 classes: {image id: index into CLASSES}, sorted by id.

    Raises UserError naming every row that is double, is not a number, or has not exactly one class.
    """
    rows, wrong = _read_table(file, ("image", *CLASSES)), []
    labels: dict[str, int] = {}
    for row in rows:
        image_id = row["image"]
        try:
            values = [float(row[name]) for name in CLASSES]
        except ValueError:
            values = [math.nan]
        if image_id in labels:
            wrong.append(f"{image_id} (twice)")
        elif sorted(values) != [0.0] * (len(CLASSES) - 1) + [1.0]:
            wrong.append(f"{image_id} ({', '.join(str(row[name]) for name in CLASSES)})")
        else:
            labels[image_id] = values.index(1.0)
    if wrong:
        raise UserError(
            f"{file}: a row per image with a single 1.0 among {', '.join(CLASSES)} is expected; "
            f"mend {listed(wrong)}."
        )
    return dict(sorted(labels.items()))


def read_groups(file: Path) -> dict[str, str]:
    """Lesion groups: {image id: lesion id}, sorted; UserError for a double or empty row."""
    groups: dict[str, str] = {}
    wrong = []
    for row in _read_table(file, ("image", "lesion_id")):
        if row["image"] in groups or not row["lesion_id"]:
            wrong.append(row["image"])
        groups[row["image"]] = row["lesion_id"]
    if wrong:
        raise UserError(f"{file}: one row with a lesion_id per image; mend {listed(wrong)}.")
    return dict(sorted(groups.items()))


def _read_table(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a comma-separated table that must have `columns`; values stripped."""
    if not file.is_file():
        raise UserError(f"{file}: there is no such file. It is part of the ISIC 2018 release.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    reader = csv.DictReader(io.StringIO(text), strict=True)
    missing = [name for name in columns if name not in (reader.fieldnames or [])]
    if missing:
        found = ", ".join(reader.fieldnames or ["nothing"])
        raise UserError(
            f"{file}: the first line must name {', '.join(columns)}, separated by commas; "
            f"it lacks {', '.join(missing)} (found: {found})."
        )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}. Mend that line.") from None
    return [{name: (row[name] or "").strip() for name in columns} for row in rows]


def check_same_ids(what: str, expected: object, found: object, advice: str) -> None:
    """Raise UserError, naming ids, unless two collections hold the same image ids."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has {listed(unknown)}, which no image bears"] if unknown else []
        raise UserError(f"{what} {' and '.join(parts)}. {advice}")


def listed(items: list, most: int = 20) -> str:
    """Items as text for a message: all of them, or the first `most` and a count of the rest."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
