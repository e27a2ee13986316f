"""Every data set there is, by the name that `--dataset` takes."""

import re
from collections.abc import Callable
from pathlib import Path

from datasets.dataset import Dataset
from datasets.ISIC2018 import ISIC2018
from datasets.own_folder import DESCRIPTION, open_described, open_folder
from datasets.own_settings import NOT_TOLD, OwnFolder
from datasets.released import open_ham10000, open_isic2019, open_isic2020, open_ph2
from datasets.tasks import DEFAULT
from misc_utils.errors import UserError

# the folder `data/`, and for an own folder what the flags say of it -> the data set
DATASETS: dict[str, Callable[[Path, OwnFolder], Dataset]] = {
    "isic2018": lambda data_dir, own: ISIC2018(data_dir),
    "isic2019": lambda data_dir, own: open_isic2019(data_dir),
    "isic2020": lambda data_dir, own: open_isic2020(data_dir),
    "ham10000": lambda data_dir, own: open_ham10000(data_dir),
    "ph2": lambda data_dir, own: open_ph2(data_dir),
    "folder": open_folder,
}


def open_dataset(data_dir: Path, name: str = DEFAULT, own: OwnFolder = NOT_TOLD) -> Dataset:
    """The data set `name`: a row of DATASETS, or a folder in `data/` with a dataset.json.

    `own` says where the images of `folder` are. Nothing is read before it is asked for. UserError:
    there is none of that name.
    """
    if name in DATASETS:
        if name != "folder" and own != NOT_TOLD:
            raise UserError(
                f"--images, --masks, --table and the like are for --dataset folder, not for {name}."
            )
        return DATASETS[name](data_dir, own)
    check_name(name)
    if (data_dir / name / DESCRIPTION).is_file():
        if own != NOT_TOLD:
            raise UserError(
                f"--dataset {name}: what you say of images and table belongs into "
                f"{data_dir / name / DESCRIPTION}."
            )
        return open_described(data_dir, name)
    described = sorted(file.parent.name for file in data_dir.glob(f"*/{DESCRIPTION}"))
    raise UserError(
        f"--dataset {name}: choose one of {', '.join([*DATASETS, *described])}, or describe your "
        f"own in {data_dir / name / DESCRIPTION}."
    )


def check_name(name: str) -> None:
    """UserError for a name of a data set that no folder can begin with."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,40}", name):
        raise UserError(f"--dataset {name!r}: a name has letters, digits and - only, 40 at most.")
