"""Any folder of images, with or without masks, with or without a table: a Dataset.

Enters: folders and tables as the user names them, in flags or in a dataset.json. Leaves: images,
masks, labels, groups and metadata keyed by image id. An image is known by the name of its file
without its ending; where two files have the same name, by its path with `__` for the slashes.
"""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import pictures, tables
from datasets.challenge import LONGEST_ID, check_id
from datasets.dataset import Dataset
from datasets.own_settings import DESCRIPTION, FOLDERS, NOT_TOLD, OwnFolder, resolved
from datasets.tables import spelling
from misc_utils.errors import UserError
from misc_utils.messages import counted, listed

log = logging.getLogger(__name__)

HIDDEN = re.compile(r"\.|__MACOSX$")  # names of files and folders that are left out
MASK_ENDINGS = ("_segmentation", "_mask", "_lesion", "_seg", "_gt")  # after the name of the image
ENDING = re.compile(f"({'|'.join(MASK_ENDINGS)})$")
BY_FOLDER = Path(FOLDERS)  # as the table of a Part: the folder of an image is its class
COLUMNS_OF_SCORES = {"image", "lesion", "fold", "truth"}  # beside those of the classes
NAMES_OF_SETS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Part:
    """Where the images of one set are, and what is known of them."""

    images: tuple[Path, ...]  # folders
    masks: Path | None = None  # folder
    table: Path | None = None  # of classes; or BY_FOLDER
    details: Path | None = None  # table of lesions, patients, age, sex, site; None: the same


class FolderDataset(Dataset):
    """A data set of files in folders and rows in tables, of any names."""

    def __init__(
        self, data_dir: Path, name: str, parts: Mapping[str, Part], told: OwnFolder = NOT_TOLD
    ) -> None:
        super().__init__(data_dir)
        self.name, self.parts, self.told, self.sets = name, parts, told, tuple(parts)
        self._found: dict[tuple, object] = {}
        self._group_column: str | None = None  # set when the groups are read
        self._said: set[str] = set()

    def told_as(self, key: str) -> str:
        """How the user says what OwnFolder calls `key`; "" where that cannot be said."""
        return ""

    # the folders

    def images_folder(self, task: int, images: str) -> Path:
        """The first of them."""
        return self._part(images).images[0]

    def list_images(self, task: int, images: str) -> dict[str, Path]:
        """All images in the folders of a set; with `subset` those that the task has a truth of."""
        files, part, known = self.find_images(images), self._part(images), {}
        if not self.told.subset or images != "training":
            return files
        if task == 1 and part.masks is not None:
            known["mask"] = self._match_masks(images)[0]
        if task == 3 and part.table is not None:
            known["label"] = self.read_labels(images)[0]
        elif part.table not in (None, BY_FOLDER):
            known["row"] = self._lines(images, part.table)[1]
        kept = {i: file for i, file in files.items() if all(i in ids for ids in known.values())}
        what = " and a ".join(known)
        self._tell(
            f"{part.images[0]}: {len(kept)} of {len(files)} images have a {what}; the others are "
            f"left out ({self.told_as('subset')})",
            len(kept) < len(files),
        )
        if not kept:
            raise UserError(f"{part.images[0]}: no image has a {what}. Add what is missing.")
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
            relative |= {file: file.relative_to(folder) for file in self._list_files(folder)}
        relative = {file: path for file, path in relative.items() if not _is_mask(file, part)}
        chosen = self.choose_images(relative)
        if not chosen:
            raise UserError(
                f"{part.images[0]}: no image in it. Expected files ending in "
                f"{', '.join(pictures.SUFFIXES)}, in this folder or in folders inside."
            )
        pictures.check_readers(chosen)
        found = name_images(chosen)
        ids = {spelling(image_id): image_id for image_id in found}
        masks = [ids[name] for name in ids if ids.get(ENDING.sub("", name), ids[name]) != ids[name]]
        if masks and self.told_as("masks"):
            raise UserError(
                f"{part.images[0]}: named as masks of other images: {listed(masks)}. Tell the "
                f"folder of the masks with {self.told_as('masks')}, take them out, or rename them."
            )
        return found

    def _list_files(self, folder: Path) -> list[Path]:
        """Pictures in a folder and the folders inside, as their names say; others are logged.

        What is hidden, and what macOS adds to archives, is left out; links to folders are followed.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder.")
        found, others, broken, seen = [], [], [], {os.path.realpath(folder)}
        for place, folders, names in os.walk(folder, onerror=_failed, followlinks=True):
            kept = [name for name in sorted(folders) if not HIDDEN.match(name)]
            inside = {os.path.realpath(os.path.join(place, name)): name for name in kept}
            folders[:] = [name for real, name in inside.items() if real not in seen]
            seen |= inside.keys()  # a link may lead back up
            for file in (Path(place, name) for name in names if not HIDDEN.match(name)):
                picture = file.suffix.lower() in pictures.SUFFIXES
                (others if not picture else found if file.is_file() else broken).append(file)
        if broken:
            raise UserError(
                f"links to files that are not there: {listed(broken)}. Put the files there, or "
                f"delete the links."
            )
        names = counted(str(file.relative_to(folder)) for file in others)
        self._tell(f"{folder}: left aside, no pictures by their names: {names}", others)
        return sorted(found)

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
            raise UserError(
                f"{self.name} holds no masks of task {task}.{self._to_tell('masks', task == 1)}"
            )
        found, strays = self._match_masks(images)
        if strays and not self.told.subset:
            raise UserError(
                f"{part.masks}: no image for {listed(strays)}. Take these masks out, or put their "
                f"images into {part.images[0]}{self._leave('them')}."
            )
        self._tell(f"{part.masks}: masks without an image, left aside: {counted(strays)}", strays)
        files = self.list_images(task, images)
        self._check_all(part.masks, "mask", images, files, found)
        return {image_id: found[image_id] for image_id in files}, part.masks

    def _match_masks(self, images: str) -> tuple[dict[str, Path], list[str]]:
        """{image id: mask}, and the names of masks that belong to no image."""
        key = "masks", images
        if key not in self._found:
            part, ids = self._part(images), self._spellings(images)
            files = [file for file in self._list_files(part.masks) if _is_mask(file, part)]
            chosen = self.choose_masks({file: file.relative_to(part.masks) for file in files})
            pictures.check_readers(chosen)
            found, strays, twice = {}, [], []
            for file, path in chosen.items():
                names = [spelling(str(path)), spelling(path.name)]
                names += [ENDING.sub("", name) for name in names]
                image_id = next((ids[name] for name in names if name in ids), None)
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
            if not found:
                raise UserError(
                    f"{part.masks}: no mask in it is named as an image in {part.images[0]}. Found "
                    f"are the masks {listed(strays, 3) or '(none)'} and such images as "
                    f"{listed(list(self.find_images(images)), 3)}. Name each mask as its image, "
                    f"also with {', '.join(MASK_ENDINGS)} behind."
                )
            self._found[key] = found, sorted(strays)
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

    def load_labels(self, images: str, image_ids: Sequence[str]) -> dict[str, int]:
        """As Dataset.load_labels."""
        labels, file = self.read_labels(images)
        self._check_all(file, "row", images, image_ids, labels)
        return {image_id: labels[image_id] for image_id in image_ids}

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Class of each image in the table, or by its folder."""
        table, folder = self._table_of(images), self._part(images).images[0]
        return self._read_classes(images)[0], folder if table == BY_FOLDER else table

    def _read_classes(self, images: str) -> tuple[dict[str, int], tuple[str, ...]]:
        key = "classes", images
        if key not in self._found:
            file, told = self._table_of(images), list(self.told.classes) or None
            if images != "training" and told is None:
                told = list(self.classes)
            if file == BY_FOLDER:
                file = self._part(images).images[0]
                labels, classes, sentence = self._classes_of_folders(images, told)
            else:
                table, lines = self._lines(images, file)
                labels, classes, sentence = tables.read_labels(
                    file, table, lines, self._columns, told, self.told.subset
                )
            if len(classes) < 2:
                raise UserError(
                    f"{file}: expected two classes or more, found {listed(classes) or 'none'}. Add "
                    f"images of another class, or tell where the classes are."
                )
            if taken := [name for name in classes if name in COLUMNS_OF_SCORES]:
                raise UserError(
                    f"{file}: a class cannot be named {listed(taken)}, as tables of scores have a "
                    f"column of this name. Rename it, such as {taken[0].title()}; a run that was "
                    f"trained with it must be trained again."
                )
            self._tell(sentence, True)
            self._found[key] = labels, classes
        return self._found[key]

    def _classes_of_folders(self, images: str, told: list[str] | None) -> tuple:
        """Class of each image by the folder, directly in that of all images, that holds it."""
        folder, names = self._part(images).images[0], {}
        for image_id, file in self.find_images(images).items():
            first, *others = self._relative(images, file).parts
            if others:
                names[image_id] = unicodedata.normalize("NFC", first)
        found = sorted(set(names.values()))
        if not self.told.subset:
            self._check_all(folder, "folder of a class", images, self.find_images(images), names)
        if found and {name.casefold() for name in found} <= NAMES_OF_SETS:
            raise UserError(
                f"{folder}: the folders in it are no classes but sets: {listed(found)}. Tell one "
                f"of them with {self.told_as('images')}; a {DESCRIPTION} can name the others."
            )
        classes = tuple(told or found)
        index = {name.casefold(): k for k, name in enumerate(classes)}
        if len(index) < len(classes):
            raise UserError(f"{folder}: a class has two spellings: {listed(classes)}. Keep one.")
        if unknown := [name for name in found if name.casefold() not in index]:
            raise UserError(
                f"{folder}: folders that are none of the classes {listed(classes)}: "
                f"{listed(unknown)}. Name them too, or take them out."
            )
        sentence = f"Labels are the folders in {folder}; classes: {listed(classes)}."
        return {i: index[name.casefold()] for i, name in names.items()}, classes, sentence

    def read_groups(self, task: int) -> tuple[dict[str, str | None], Path] | None:
        """Lesion or patient of each training image that has a row; None without a table."""
        part, key = self._part("training"), ("groups", "training")
        file = part.details or part.table
        if file in (None, BY_FOLDER):
            return None
        if key not in self._found:
            table, lines = self._lines("training", file)
            groups, column = tables.read_groups(file, table, lines, self._columns)
            self.group, self._group_column = tables.kind_of_group(column), column
            self._found[key] = groups, file
        return self._found[key]

    def groups_of(self, task: int, images: str) -> dict[str, str]:
        """By a column as that of the training images; a warning where another kind is there."""
        part, groups = self._part(images), {}
        file = part.details or part.table
        if file in (None, BY_FOLDER) or not file.is_file():
            return {}
        try:
            if self.read_groups(task) is None or self._group_column is None:
                return {}
            table, named = self.read_table(file), self._columns
            column = tables.image_column(file, table, named)
            lines, _ = tables.image_ids(file, table, column, self._spellings(images), named)
            like = tables.like_column(table, self._group_column)
            if like is not None:
                groups = tables.groups_in(table, lines, like)
            elif any(tables.like_column(table, name) for name in tables.GROUP_COLUMNS):
                raise UserError(
                    f"{file}: no column like {self._group_column}, which groups training images."
                )
        except UserError as error:
            log.warning(
                "%s So it is not known which images show a %s of the training set.",
                error,
                self.group,
            )
        return {image_id: group for image_id, group in groups.items() if group is not None}

    def read_metadata(self, images: str) -> tuple[pd.DataFrame, Path]:
        """Age, sex and site of each image that has a row."""
        part = self._part(images)
        file = part.details or part.table
        if file in (None, BY_FOLDER):
            return super().read_metadata(images)
        table, lines = self._lines(images, file)
        return tables.read_metadata(file, table, lines), file

    @property
    def _columns(self) -> tables.Columns:
        told = self.told
        names = told.image_column, told.label_column, told.group_column
        return tables.Columns(*names, lambda key: self.told_as(key) or tables.as_flag(key))

    def _table_of(self, images: str) -> Path:
        table = self._part(images).table
        if table is None:
            raise UserError(
                f"{self.name} holds no classes of its {images} images.{self._to_tell('table')}"
            )
        return table

    def _lines(self, images: str, file: Path) -> tuple[pd.DataFrame, dict[str, int]]:
        """A table, and the line of each image in it; UserError for a row without an image."""
        key = "lines", images, file
        if key not in self._found:
            table = self.read_table(file)
            column = tables.image_column(file, table, self._columns)
            lines, strays = tables.image_ids(
                file, table, column, self._spellings(images), self._columns
            )
            if strays and not self.told.subset:
                raise UserError(
                    f"{file}: no image for {listed(strays)}. Take these rows out, or put the "
                    f"images into {self.images_folder(3, images)}{self._leave('the rows')}."
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
        for image_id, file in self.find_images(images).items():
            path = str(self._relative(images, file))
            ids |= {spelling(path): image_id, spelling(image_id): image_id}
        return ids

    def _relative(self, images: str, file: Path) -> Path:
        """The path of an image in the folder of images that holds it."""
        folders = self._part(images).images
        return next(file.relative_to(f) for f in folders if file.is_relative_to(f))

    def _part(self, images: str) -> Part:
        if images not in self.parts:
            raise UserError(
                f"the data set {self.name} has no {images} set, only {', '.join(self.parts)}."
            )
        return self.parts[images]

    # messages

    def _check_all(
        self, place: Path, entry: str, images: str, image_ids: Iterable[str], there: Collection[str]
    ) -> None:
        """UserError naming the images that have no mask or row."""
        if missing := sorted(set(image_ids) - set(there)):
            leave = self._leave("them") if images == "training" else ""
            raise UserError(
                f"{place} lacks {listed(missing)}. Add each missing {entry}, or take the images "
                f"out of {self.images_folder(1, images)}{leave}."
            )

    def _leave(self, what: str) -> str:
        flag = self.told_as("subset")
        return f", or leave {what} out with {flag}" if flag else ""

    def _to_tell(self, key: str, possible: bool = True) -> str:
        flag = self.told_as(key)
        return f" Tell where they are with {flag}." if flag and possible else ""

    def _tell(self, sentence: str, happened: object) -> None:
        """Log a sentence once, if what it says happened."""
        if happened and sentence not in self._said:
            self._said.add(sentence)
            log.info("%s", sentence)


def part_of(own: OwnFolder) -> Part:
    """Folders and table as told, with absolute paths."""
    own = resolved(own)
    masks, table = (None if text is None else Path(text) for text in (own.masks, own.table))
    return Part((Path(own.images),), masks, table)


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
        if other := spelled.get(image_id.casefold()):
            raise UserError(
                f"{file}: {other} has the same image id, {image_id}. Keep one of the two, or "
                f"rename one."
            )
        try:
            check_id(image_id)
        except ValueError as error:
            raise UserError(
                f"{file}: {error}. Rename it: an image id begins with no dot or space, has at most "
                f"{LONGEST_ID} bytes and no ending of a picture."
            ) from None
        found[image_id] = spelled[image_id.casefold()] = file
    return dict(sorted(found.items()))


def _failed(error: OSError) -> None:
    raise error


def _is_mask(file: Path, part: Part) -> bool:
    """Whether a file is a mask, by its place; where masks lie among images, by its ending."""
    if part.masks is None or not file.is_relative_to(part.masks):
        return False
    around = [folder for folder in part.images if file.is_relative_to(folder)]
    if part.masks in around:
        return ENDING.search(spelling(file.name)) is not None
    return all(part.masks.is_relative_to(folder) for folder in around)  # the inner folder says it
