"""Any folder of images, with or without masks, with or without a table: a Dataset.

Enters: folders and tables as the user names them, in flags or in a dataset.json. Leaves: images,
masks, labels, groups and metadata keyed by image id. An image is known by the name of its file
without its ending; where two files have the same name, by its path with `__` for the slashes.
"""

import json
import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import pictures, tables
from datasets.challenge import check_id
from datasets.dataset import Dataset
from datasets.own_settings import NOT_TOLD, OwnFolder
from datasets.tables import spelling
from misc_utils.errors import UserError
from misc_utils.messages import counted, listed

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".dcm")
MASK_ENDINGS = ("_segmentation", "_mask", "_lesion", "_seg", "_gt")  # after the name of the image
FOLDERS = "folders"  # instead of a table: the folder that an image lies in is its class
DESCRIPTION = "dataset.json"  # in data/NAME/: what OwnFolder holds, paths relative to it


@dataclass(frozen=True)
class Part:
    """Where the images of one set are, and what is known of them."""

    images: tuple[Path, ...]  # folders
    masks: Path | None = None  # folder
    table: Path | None = None  # of classes
    details: Path | None = None  # table of lesions, patients, age, sex, site; None: the same


class FolderDataset(Dataset):
    """A data set of files in folders and rows in tables, of any names."""

    def __init__(
        self, data_dir: Path, name: str, parts: Mapping[str, Part], told: OwnFolder = NOT_TOLD
    ) -> None:
        super().__init__(data_dir)
        self.name, self.parts, self.told, self.sets = name, parts, told, tuple(parts)
        self._found: dict[tuple, object] = {}
        self._said: set[str] = set()

    # the folders

    def images_folder(self, task: int, images: str) -> Path:
        """The first of them."""
        return self._part(images).images[0]

    def list_images(self, task: int, images: str) -> dict[str, Path]:
        """All images in the folders of a set; with `subset` those that the task has a truth of."""
        files = self.find_images(images)
        if not self.told.subset or images != "training":
            return files
        part = self._part(images)
        if task == 1 and part.masks is not None:
            known, what = self._match_masks(images)[0], "mask"
        elif task == 3 and part.table is not None:
            known, what = self.read_labels(images)[0], "label"
        else:
            return files
        kept = {image_id: file for image_id, file in files.items() if image_id in known}
        self._tell(
            f"{part.images[0]}: {len(kept)} of {len(files)} images have a {what}; the others "
            f"are left out (--subset)",
            len(kept) < len(files),
        )
        if not kept:
            raise UserError(f"{part.images[0]}: no image has a {what}.")
        return kept

    def find_images(self, images: str) -> dict[str, Path]:
        """{image id: file} of every image in the folders of a set, in order of the ids."""
        key = "images", images
        if key not in self._found:
            self._found[key] = self._find_images(self._part(images))
        return dict(self._found[key])

    def _find_images(self, part: Part) -> dict[str, Path]:
        relative: dict[Path, Path] = {}  # file -> path in its folder
        for folder in part.images:
            relative |= {file: file.relative_to(folder) for file in _list_files(folder)}
        if part.masks is not None:
            relative = {file: path for file, path in relative.items() if not _is_mask(file, part)}
        chosen = self.choose_images(relative)
        if not chosen:
            raise UserError(
                f"{part.images[0]}: no image in it. Expected files ending in "
                f"{', '.join(SUFFIXES)}, in this folder or in folders inside."
            )
        return name_images(chosen)

    def choose_images(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those of the files {file: path in its folder} that are images of the data set."""
        return relative

    # the masks

    def has_masks(self, task: int, images: str) -> bool:
        """Whether there is a folder of masks; they are of the lesion."""
        masks = self.parts[images].masks if images in self.parts else None
        return task == 1 and masks is not None and masks.is_dir()

    def list_masks(self, task: int, images: str, channel: str) -> tuple[dict[str, Path], Path]:
        """The mask of each image: a file of the same name, also with one of MASK_ENDINGS."""
        part = self._part(images)
        if task != 1 or part.masks is None:
            told = " Tell its folder with --masks." if task == 1 and self.name == "folder" else ""
            raise UserError(f"{self.name} holds no masks of task {task}.{told}")
        found, strays = self._match_masks(images)
        if strays and not self.told.subset:
            raise UserError(
                f"{part.masks}: no image for {listed(strays)}. Take these masks out, put their "
                f"images into {part.images[0]}, or leave them aside with --subset."
            )
        self._tell(f"{part.masks}: masks without an image, left aside: {counted(strays)}", strays)
        return found, part.masks

    def _match_masks(self, images: str) -> tuple[dict[str, Path], list[str]]:
        """{image id: mask}, and the names of masks that belong to no image."""
        key = "masks", images
        if key not in self._found:
            part = self._part(images)
            ids, found, strays, twice = self._spellings(images), {}, [], []
            for file, path in self.choose_masks(
                {file: file.relative_to(part.masks) for file in _list_files(part.masks)}
            ).items():
                names = [spelling(str(path)), spelling(path.name)]
                names += [name.removesuffix(e) for name in names for e in MASK_ENDINGS]
                image_id = next((ids[name] for name in names if name in ids), None)
                if image_id is None or (part.masks in part.images and not _is_mask(file, part)):
                    if image_id is None:
                        strays.append(str(path))
                elif image_id in found:
                    twice.append(f"{image_id} ({found[image_id].name}, {path})")
                else:
                    found[image_id] = file
            if twice:
                raise UserError(
                    f"{part.masks}: two masks of one image: {listed(twice)}. Keep one of them."
                )
            self._found[key] = found, strays
        return self._found[key]

    def choose_masks(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those of the files {file: path in its folder} that are masks of the data set."""
        return relative

    def decode_mask(self, content: bytes) -> np.ndarray:
        """Of two values, whatever they are, the brighter one is the lesion."""
        return pictures.read_any_mask(content)

    # the tables

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """As told, else as the table of the training images has them."""
        return self.told.classes or self._read_classes("training")[1]

    def has_labels(self, images: str) -> bool:
        """Whether there is a table, or folders that are classes."""
        return self._part(images).table is not None

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Class of each image in the table, or by its folder."""
        labels, _ = self._read_classes(images)
        return labels, self._table_of(images)

    def _read_classes(self, images: str) -> tuple[dict[str, int], tuple[str, ...]]:
        key = "classes", images
        if key not in self._found:
            told = list(self.told.classes) or None
            if images != "training" and told is None:
                told = list(self.classes)
            if self._table_of(images).name == FOLDERS and not self._table_of(images).is_file():
                found = self._classes_of_folders(images, told)
            else:
                table, lines = self._lines(images, self._table_of(images))
                columns = self._columns
                found = tables.read_labels(
                    self._table_of(images), table, lines, columns, told, self.told.subset
                )
            *found, sentence = found
            self._tell(sentence, True)
            self._found[key] = tuple(found)
        return self._found[key]

    def _classes_of_folders(self, images: str, told: list[str] | None) -> tuple:
        """Class of each image by the folder, directly in that of all images, that holds it."""
        part, labels = self._part(images), {}
        for image_id, file in self.find_images(images).items():
            path = next(file.relative_to(f) for f in part.images if file.is_relative_to(f))
            if len(path.parts) < 2:
                raise UserError(f"{file}: lies in no folder that is a class (--table folders).")
            labels[image_id] = path.parts[0]
        classes = tuple(told or sorted(set(labels.values())))
        if unknown := sorted(set(labels.values()) - set(classes)):
            raise UserError(
                f"{part.images[0]}: folders that are none of the classes {listed(list(classes))}: "
                f"{listed(unknown)}. Name them with --classes too, or take them out."
            )
        index = {name: k for k, name in enumerate(classes)}
        sentence = f"Labels are the folders in {part.images[0]}: {len(classes)} classes."
        return {i: index[name] for i, name in labels.items()}, classes, sentence

    def read_groups(self, task: int) -> tuple[dict[str, str], Path] | None:
        """Lesion or patient of each training image that has a row; None without a table."""
        part = self._part("training")
        file = part.details or part.table
        if file is None or (file.name == FOLDERS and not file.is_file()):
            return None
        table, lines = self._lines("training", file)
        groups = tables.read_groups(file, table, lines, self._columns)
        return groups, file

    def read_metadata(self, images: str) -> tuple[pd.DataFrame, Path]:
        """Age, sex and site of each image that has a row."""
        part = self._part(images)
        file = part.details or part.table
        if file is None:
            return super().read_metadata(images)
        table, lines = self._lines(images, file)
        return tables.read_metadata(file, table, lines), file

    @property
    def _columns(self) -> tables.Columns:
        told = self.told
        return tables.Columns(told.image_column, told.label_column, told.group_column)

    def _table_of(self, images: str) -> Path:
        table = self._part(images).table
        if table is None:
            told = " Tell the table that has them with --table." if self.name == "folder" else ""
            raise UserError(f"{self.name} holds no classes of its {images} images.{told}")
        return table

    def _lines(self, images: str, file: Path) -> tuple[pd.DataFrame, dict[str, int]]:
        """A table, and the line of each image in it; UserError where one lacks its other half."""
        key = "lines", images, file
        if key not in self._found:
            table = self.read_table(file)
            column = tables.image_column(file, table, self.told.image_column)
            lines, strays = tables.image_ids(file, table, column, self._spellings(images))
            if strays and not self.told.subset:
                raise UserError(
                    f"{file}: no image for {listed(strays)}. Take these rows out, put the images "
                    f"into {self.images_folder(3, images)}, or leave the rows aside with --subset."
                )
            self._tell(f"{file}: rows without an image, left aside: {counted(strays)}", strays)
            self._found[key] = table, lines
        return self._found[key]

    def read_table(self, file: Path) -> pd.DataFrame:
        """A table as tables.read_table gives it; UserError for what is none."""
        return tables.read_table(file)

    def _spellings(self, images: str) -> dict[str, str]:
        """{how an image may be named: its id}: by its id, and by its path if that is another."""
        ids = {}
        part, files = self._part(images), self.find_images(images)
        for image_id, file in files.items():
            path = next(file.relative_to(f) for f in part.images if file.is_relative_to(f))
            ids |= {spelling(str(path)): image_id, spelling(image_id): image_id}
        return ids

    def _part(self, images: str) -> Part:
        if images not in self.parts:
            raise UserError(
                f"the data set {self.name} has no {images} set, only {', '.join(self.parts)}."
            )
        return self.parts[images]

    def _tell(self, sentence: str, happened: object) -> None:
        """Log a sentence once, if what it says happened."""
        if happened and sentence not in self._said:
            self._said.add(sentence)
            log.info("%s", sentence)


class Own(FolderDataset):
    """What `--dataset folder` and the flags beside it name."""

    @property
    def cache_name(self) -> str:
        """With a hash of the folder: another one has arrays of its own."""
        where = " ".join(map(str, self.parts["training"].images))
        return f"{self.name}-{sha256(where.encode()).hexdigest()[:8]}"


def open_folder(data_dir: Path, own: OwnFolder) -> Dataset:
    """The data set of the flags --images, --masks and --table; UserError for what is not there."""
    if own.images is None:
        raise UserError(
            "--dataset folder needs --images, the folder of your images; for what else it takes "
            "see --help."
        )
    return Own(data_dir, "folder", {"training": _own_part(own, Path())}, own)


def open_described(data_dir: Path, name: str) -> Dataset:
    """The data set of `data/NAME/dataset.json`; UserError naming what is wrong in it."""
    file = data_dir / name / DESCRIPTION
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        told = read_description(content)
        tests = {
            images: read_description(content[images])
            for images in ("validation", "test")
            if images in content
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        names = ", ".join(field.name for field in fields(OwnFolder))
        raise UserError(
            f"{file}: {error}. Expected is a JSON object with some of {names}; and, under "
            f"validation or test, images, masks and table of such a set."
        ) from None
    parts = {images: _own_part(part, file.parent) for images, part in tests.items()}
    return FolderDataset(data_dir, name, {"training": _own_part(told, file.parent)} | parts, told)


def read_description(content: dict) -> OwnFolder:
    """An object of a dataset.json; ValueError naming what is no part of it."""
    known = {field.name: field.type for field in fields(OwnFolder)}
    told = {key: value for key, value in content.items() if key not in ("validation", "test")}
    if unknown := sorted(told.keys() - known.keys()):
        raise ValueError(f"unknown: {', '.join(unknown)}")
    if "images" not in told:
        raise ValueError("images is missing")
    for key, value in told.items():
        kind, what = {"classes": (list, "a list of names"), "subset": (bool, "true or false")}.get(
            key, (str, "text")
        )
        names = value if kind is list and isinstance(value, list) else []
        if not isinstance(value, kind) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key} must be {what}, not {value!r}")
    return replace(OwnFolder(**told), classes=tuple(told.get("classes", ())))


def _own_part(own: OwnFolder, base: Path) -> Part:
    """Folders and table as told, relative to `base`; UserError for what does not exist."""
    images, masks, table = (
        None if text is None else (base / Path(text).expanduser()).resolve()
        for text in (own.images, own.masks, own.table)
    )
    for folder, flag in ((images, "--images"), (masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder ({flag}). Correct the path.")
    if table is not None and own.table != FOLDERS and not table.is_file():
        raise UserError(f"{table}: there is no such file (--table). Correct the path.")
    return Part((images,), masks, table)


def resolved(own: OwnFolder) -> OwnFolder:
    """The same with absolute paths, to be found from any directory."""
    paths = {
        name: str(Path(text).expanduser().resolve())
        for name in ("images", "masks", "table")
        if (text := getattr(own, name)) is not None and text != FOLDERS
    }
    return replace(own, **paths)


def name_images(relative: Mapping[Path, Path]) -> dict[str, Path]:
    """{image id: file} in sorted order of the ids, of {file: its path in the folder}.

    Raises UserError when two files would have one id, or one has a name that none can have.
    """
    stems = Counter(spelling(path.name) for path in relative.values())
    found: dict[str, Path] = {}
    spelled: dict[str, Path] = {}
    for file, path in sorted(relative.items(), key=lambda item: str(item[1])):
        same = stems[spelling(path.name)] > 1
        name = "__".join(path.with_suffix("").parts) if same else path.stem
        image_id = unicodedata.normalize("NFC", name)
        if image_id.casefold() in spelled:
            other = spelled[image_id.casefold()]
            raise UserError(
                f"{file}: {other} has the same image id, {image_id}. Keep one of the two, or "
                f"rename one."
            )
        try:
            check_id(image_id)
        except ValueError as error:
            raise UserError(f"{file}: {error}. Rename the file.") from None
        found[image_id] = spelled[image_id.casefold()] = file
    return dict(sorted(found.items()))


def _list_files(folder: Path) -> list[Path]:
    """Pictures in a folder and the folders inside, as their names say; others are logged."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    found, others = [], []
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if hidden or not file.is_file():
            continue
        (found if file.suffix.lower() in SUFFIXES else others).append(file)
    return found


def _is_mask(file: Path, part: Part) -> bool:
    """Whether a file in the folders of images is a mask: by its place, or by its ending."""
    if part.masks in part.images:
        return spelling(file.name).endswith(MASK_ENDINGS)
    return file.is_relative_to(part.masks)
