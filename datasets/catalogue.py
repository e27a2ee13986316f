"""Every data set there is, by the name that `--dataset` takes."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from datasets.dataset import Dataset
from datasets.ISIC2018 import ISIC2018
from datasets.own_folder import BY_FOLDER, FolderDataset, part_of
from datasets.own_settings import DESCRIPTION, NOT_TOLD, OwnFolder, flags_of, read_description
from datasets.released import open_ham10000, open_isic2019, open_isic2020, open_ph2
from datasets.tables import as_flag, same_class
from datasets.tasks import DEFAULT
from misc_utils.errors import UserError
from misc_utils.messages import listed


class Own(FolderDataset):
    """What `--dataset folder` and the flags beside it name; or a dataset.json, the `file`."""

    file: Path | None = None
    ids_shared = False  # names of files, which may be the same in the folders of two sets

    def told_as(self, key: str) -> str:
        """A flag, or a key of the file."""
        return f'"{key}" in {self.file}' if self.file else as_flag(key)

    @property
    def named(self) -> list[str]:
        """As Dataset.named, with the flags that say where a folder is."""
        return super().named + ([] if self.file else flags_of(self.told))

    @property
    def cache_name(self) -> str:
        """Of a folder with a hash of its path: another one has arrays of its own."""
        where = os.fsencode(self.parts["training"].images[0])
        return self.name if self.file else f"{self.name}-{sha256(where).hexdigest()[:8]}"

    def check_there(self, or_else: str = "") -> None:
        """UserError for a folder or table that was told and does not exist."""
        for part in self.parts.values():
            told = ("images", part.images[0]), ("masks", part.masks), ("table", part.table)
            for key, path in told:
                kind, other = ("file", "folder") if key == "table" else ("folder", "file")
                if path in (None, BY_FOLDER) or (path.is_file if key == "table" else path.is_dir)():
                    continue
                found = f"this is a {other}" if path.exists() else f"there is no such {kind}"
                raise UserError(
                    f"{path}: expected a {kind} ({self.told_as(key)}), {found}. Correct the "
                    f"path.{or_else}"
                )


def open_folder(data_dir: Path, own: OwnFolder) -> Dataset:
    """The data set of the flags --images, --masks and --table; UserError for what is not there."""
    if own.images is None:
        raise UserError(
            "--dataset folder needs --images, the folder of your images; for what else it takes "
            "see --help."
        )
    dataset = Own(data_dir, "folder", {"training": part_of(own)}, own)
    dataset.check_there(
        " If a run was trained with it, put it back, or correct it under `own` in the "
        "settings.json of that run."
    )
    return dataset


def open_described(data_dir: Path, name: str, classes: Sequence[str] = ()) -> Dataset:
    """The data set of `data/NAME/dataset.json`; UserError naming what is wrong in it."""
    file = data_dir / name / DESCRIPTION
    own, others = read_description(file)
    parts = {images: part_of(part) for images, part in ({"training": own} | others).items()}
    dataset = Own(data_dir, name, parts, _with_classes(own, classes, f'"classes" in {file}'))
    dataset.file = file
    dataset.check_there()
    return dataset


# the folder `data/`, and for an own folder what the flags say of it -> the data set
DATASETS: dict[str, Callable[[Path, OwnFolder], Dataset]] = {
    "isic2018": lambda data_dir, own: ISIC2018(data_dir),
    "isic2019": lambda data_dir, own: open_isic2019(data_dir),
    "isic2020": lambda data_dir, own: open_isic2020(data_dir),
    "ham10000": lambda data_dir, own: open_ham10000(data_dir),
    "ph2": lambda data_dir, own: open_ph2(data_dir),
    "folder": open_folder,
}


def open_dataset(
    data_dir: Path, name: str = DEFAULT, own: OwnFolder = NOT_TOLD, classes: Sequence[str] = ()
) -> Dataset:
    """The data set `name`: a row of DATASETS, or a folder in `data/` with a dataset.json.

    `own` says where the images of `folder` are. `classes` are those of a trained run: a table that
    names its classes in another order by now must not change what the net says. Nothing is read
    before it is asked for. UserError: there is none of that name.
    """
    file = data_dir / name / DESCRIPTION
    if name in DATASETS:
        if name != "folder" and own != NOT_TOLD:
            raise UserError(
                f"--images, --masks, --table and the like are for --dataset folder, not for {name}."
            )
        if file.is_file():
            raise UserError(f"{file}: {name} is the name of another data set. Rename the folder.")
        if name == "folder":
            own = _with_classes(own, classes, "--classes")
        return DATASETS[name](data_dir, own)
    check_name(name)
    if file.is_file():
        if own != NOT_TOLD:
            raise UserError(
                f"--dataset {name}: what you say of images and table belongs into {file}."
            )
        return open_described(data_dir, name, classes)
    described = sorted(path.parent.name for path in data_dir.glob(f"*/{DESCRIPTION}"))
    raise UserError(
        f"--dataset {name}: choose one of {', '.join([*DATASETS, *described])}, or describe your "
        f"own in {file}."
    )


def _with_classes(own: OwnFolder, trained: Sequence[str], told_as: str) -> OwnFolder:
    """The same with the classes of a trained run, where there is one; UserError for other names."""
    if own.classes and trained and {*map(same_class, own.classes)} != {*map(same_class, trained)}:
        raise UserError(
            f"{told_as}: {listed(list(own.classes))}; the run was trained on "
            f"{listed(list(trained))}. Put these back, in any order, or train a new --version."
        )
    return replace(own, classes=tuple(trained) or own.classes)


def check_name(name: str) -> None:
    """UserError for a name of a data set that no folder can begin with."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,40}", name):
        raise UserError(f"--dataset {name!r}: a name has letters, digits and - only, 40 at most.")
