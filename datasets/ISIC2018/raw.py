"""The only reader of the released folders and tables; pictures.py decodes the images in them.

Enters: `data/` with the folders of the release. Leaves: image ids with their files, labels and
lesion groups keyed by image id.
"""

import csv
import io
import logging
import math
import re
from pathlib import Path

from datasets.challenge import ATTRIBUTES, CLASSES
from misc_utils.errors import UserError
from misc_utils.messages import counted, listed

log = logging.getLogger(__name__)

IMAGE_ID = re.compile(r"[A-Za-z]+_[0-9]+")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
UNKNOWN = ("unknown", "unk", "?", "-", "not known")  # of a lesion, in lower case
NO_LESION = ("", "na", "n/a", "#n/a", "<na>", "nan", "none", "null")  # empty cells, in lower case
COMPANIONS = ("ATTRIBUTION.txt", "LICENSE.txt")  # released with the images, like superpixels


def image_folder(data_dir: Path, task: int, images: str) -> Path:
    """Folder of the images of `task` in the set `images`; Tasks 1 and 2 share them."""
    return data_dir / f"ISIC2018_Task{3 if task == 3 else '1-2'}_{images.title()}_Input"


def truth_folder(data_dir: Path, task: int, images: str) -> Path:
    """Folder of the truth of `task` for the set `images`; that of Task 2 has a third edition."""
    folder = data_dir / f"ISIC2018_Task{task}_{images.title()}_GroundTruth"
    return folder.with_name(f"{folder.name}_v3") if (task, images) == (2, "training") else folder


def labels_file(data_dir: Path, images: str) -> Path:
    """Table of the Task 3 classes of the set `images`."""
    folder = truth_folder(data_dir, 3, images)
    return folder / f"{folder.name}.csv"


def groups_file(data_dir: Path) -> Path:
    """Table of the Task 3 training images and the lesion that each shows."""
    return truth_folder(data_dir, 3, "training") / "ISIC2018_Task3_Training_LesionGroupings.csv"


def list_images(folder: Path) -> dict[str, Path]:
    """Image files of a released folder, {image id: file} in sorted order of the ids.

    Raises UserError when the folder is missing or holds no image, or when an id has two files.
    """
    return _list_files(folder, "", IMAGE_SUFFIXES)


def metadata_file(data_dir: Path) -> Path:
    """Table of age, sex and site, which comes with HAM10000 and not with the challenge."""
    return data_dir / "HAM10000_metadata.csv"


def list_masks(folder: Path, ending: str = "segmentation") -> dict[str, Path]:
    """Mask files `<id>_<ending>.png` of a released folder, {image id: file}, sorted by id.

    Of attributes, files of the others lie beside them and are passed over.
    """
    return _list_files(folder, f"_{ending}", (".png",))


def _list_files(folder: Path, ending: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder. Put the unzipped ISIC 2018 folder of that name "
            f"there, or set ISIC_ROOT (or root_dir in runs/paths.py) to the folder above data/."
        )
    found, unknown, first = {}, [], {}
    for file in sorted(folder.iterdir()):
        stem = file.stem.removesuffix(ending)
        if file.name in COMPANIONS or file.name.startswith(".") or "superpixels" in file.stem:
            continue
        if ending.startswith("_attribute_") and not file.stem.endswith(ending):
            other = file.stem.partition("_attribute_")[2]
            if other in ATTRIBUTES and file.suffix == ".png":
                continue
        if ending and file.stem.lower().endswith(ending) and not file.stem.endswith(ending):
            right = file.stem[: -len(ending)] + ending + file.suffix
            raise UserError(f"{file}: expected the name {right}. Rename the file.")
        if file.suffix.lower() not in suffixes or stem + ending != file.stem:
            unknown.append(file.name)
        elif not IMAGE_ID.fullmatch(stem):
            unknown.append(file.name)
        elif stem.upper() in first:
            same = first[stem.upper()].name
            raise UserError(f"{file}: {same} has the same image id. Keep one of the two.")
        else:
            found[stem] = first[stem.upper()] = file
    if unknown:
        log.warning("%s: ignored, not part of the release: %s", folder, listed(unknown))
    if not found and (deeper := next(folder.glob(f"*/*{ending}{suffixes[0]}"), None)):
        raise UserError(
            f"{folder}: the files lie one folder deeper, in {deeper.parent}. Move them up into "
            f"{folder}."
        )
    if not found:
        raise UserError(
            f"{folder}: the folder holds no file named ISIC_<number>{ending}{suffixes[0]}. "
            f"Unzip the released archive into it."
        )
    wrong = [file for file in found.values() if not file.is_file()]
    if wrong:
        names = [f"{file.name} ({_kind(file)})" for file in wrong]
        raise UserError(
            f"{folder}: not files: {listed(names)}. Replace them by the files of the release."
        )
    return found


def _kind(path: Path) -> str:
    """What a path is that is not a file, for a message."""
    if path.is_dir():
        return "a folder"
    return "a link to nothing" if path.is_symlink() else "neither a file nor a folder"


def read_labels(file: Path) -> dict[str, int]:
    """Task 3 classes: {image id: index into CLASSES}, sorted by id.

    Raises UserError naming every row that is repeated, has no image id or no numbers, or does not
    have exactly one class.
    """
    rows, wrong = _read_table(file, ("image", *CLASSES)), []
    labels: dict[str, int] = {}
    for row in rows:
        image_id = row["image"]
        try:
            values = [float(row[name]) for name in CLASSES]
        except ValueError:
            values = [math.nan]
        if not IMAGE_ID.fullmatch(image_id):
            wrong.append(f"{image_id!r} (not an image id)")
        elif image_id in labels:
            wrong.append(f"{image_id} (twice)")
        elif sorted(values) != [0.0] * (len(CLASSES) - 1) + [1.0]:
            wrong.append(f"{image_id} ({', '.join(row[name] or 'nothing' for name in CLASSES)})")
        else:
            labels[image_id] = values.index(1.0)
    if wrong:
        raise UserError(
            f"{file}: expected one row per image, with a single 1.0 among {', '.join(CLASSES)}; "
            f"fix {listed(wrong)}."
        )
    return dict(sorted(labels.items()))


def read_groups(file: Path) -> dict[str, str]:
    """Lesion groups: {image id: lesion id}, sorted; UserError for a repeated or empty row.

    An image whose lesion is "unknown" is a lesion of its own, named after it; a warning names some.
    """
    groups: dict[str, str] = {}
    wrong, unknown = [], []
    for row in _read_table(file, ("image", "lesion_id")):
        image_id, lesion = row["image"], row["lesion_id"]
        if not IMAGE_ID.fullmatch(image_id):
            wrong.append(f"{image_id!r} (not an image id)")
        elif image_id in groups:
            wrong.append(f"{image_id} (twice)")
        elif lesion.lower() in NO_LESION:
            wrong.append(f"{image_id} ({lesion or 'nothing'})")
        elif lesion.lower() in UNKNOWN:
            unknown.append(image_id)
            lesion = image_id
        groups[image_id] = lesion
    if unknown:
        log.warning("%s: lesion unknown, each counts as one of its own: %s", file, counted(unknown))
    if wrong:
        raise UserError(
            f"{file}: expected one row with a lesion_id per image; fix {listed(wrong)}."
        )
    return dict(sorted(groups.items()))


def _read_table(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a comma-separated table that must have `columns`; names and values are stripped.

    A byte-order mark, any kind of line ends and further columns are allowed.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such file. It is part of the ISIC 2018 release.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}. Fix that line.") from None
    header = [name.strip() for name in (lines[0][1] if lines else ["nothing"])]
    if any(header.count(name) != 1 for name in columns):
        missing = [name for name in columns if name not in header]
        problem = f"it lacks {', '.join(missing)}" if missing else "it names one of them twice"
        raise UserError(
            f"{file}: the first line must name {', '.join(columns)}, separated by commas; "
            f"{problem} (found: {listed(header)})."
        )
    wrong = [
        f"line {number} ({len(line)})" for number, line in lines[1:] if len(line) != len(header)
    ]
    if wrong:
        raise UserError(
            f"{file}: each line must have {len(header)} values, as the first one has; fix "
            f"{listed(wrong)}."
        )
    where = [(name, header.index(name)) for name in columns]
    return [{name: line[k].strip() for name, k in where} for _, line in lines[1:]]
