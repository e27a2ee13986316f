"""Other released data sets, each as a row that says where its files and tables are.

Enters: the folder `data/` with the archives unzipped, see docs/data.md. Leaves: a FolderDataset.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import tables
from datasets.challenge import CLASSES
from datasets.own_folder import FolderDataset, Part
from datasets.own_settings import OwnFolder
from misc_utils.errors import UserError
from misc_utils.messages import check_same_ids, listed

ISIC2019_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
ISIC2020_CLASSES = ("benign", "malignant")
PH2_CLASSES = ("common nevus", "atypical nevus", "melanoma")


class ISIC2019(FolderDataset):
    """25,331 dermoscopic images of eight classes; the test set holds others too, UNK."""

    def read_table(self, file: Path) -> pd.DataFrame:
        """Without the column UNK: what is of none of the classes has an empty row."""
        table = super().read_table(file)
        if "UNK" not in table:
            return table
        others = table["UNK"].isin(tables.ONE)
        table.loc[others, [name for name in ISIC2019_CLASSES if name in table]] = ""
        return table.drop(columns="UNK")

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Class of each image that is of one of them."""
        file = self._table_of(images)
        table, lines = self._lines(images, file)
        labels, _, _ = tables.read_labels(file, table, lines, classes=self.classes, subset=True)
        return labels, file

    def load_labels(self, images: str, image_ids: Sequence[str]) -> dict[str, int]:
        """As Dataset.load_labels, without images of none of the classes; how many is logged."""
        labels, file = self.read_labels(images)
        others = set(self._lines(images, file)[1]) - set(labels)
        self._tell(f"{file}: {len(others)} images of none of the classes are not scored", others)
        expected = [image_id for image_id in image_ids if image_id not in others]
        check_same_ids(f"{file}", expected, labels, self.images_folder(3, images), "row")
        return labels

    def submission(self, image_ids: Sequence[str], probability: np.ndarray) -> pd.DataFrame:
        """With the column UNK that the organisers ask for, of which nothing is said: 0."""
        return super().submission(image_ids, probability).assign(UNK=0.0)


class ISIC2020(FolderDataset):
    """33,126 dermoscopic images of 2056 patients, melanoma or not."""

    group = "patient"

    def read_pairs(self, task: int) -> list[tuple[str, str]]:
        """The 425 pairs that the organisers list as duplicates, where their table is there."""
        file = self.data_dir / "ISIC_2020_Training_Duplicates.csv"
        if not file.is_file():
            return []
        table = tables.read_table(file)
        if list(table.columns[:2]) != ["image_name_1", "image_name_2"]:
            raise UserError(
                f"{file}: expected the columns image_name_1 and image_name_2, found "
                f"{listed(list(table.columns))}. Replace it by the file of the release."
            )
        return list(table.iloc[:, :2].itertuples(index=False, name=None))

    def submission(self, image_ids: Sequence[str], probability: np.ndarray) -> pd.DataFrame:
        """Columns image_name and target, the probability of melanoma."""
        return pd.DataFrame({"image_name": list(image_ids), "target": probability[:, 1]})


class PH2(FolderDataset):
    """200 dermoscopic images of nevi and melanomas with masks; a folder of each case."""

    def choose_images(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those in folders named `..._Dermoscopic_Image`."""
        return {f: p for f, p in relative.items() if p.parent.name.endswith("_Dermoscopic_Image")}

    def choose_masks(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those in folders named `..._lesion`; beside them lie masks of colours."""
        return {f: path for f, path in relative.items() if path.parent.name.endswith("_lesion")}

    def read_table(self, file: Path) -> pd.DataFrame:
        """Columns image and label, of the text file of the release.

        Its cells stand between double bars, the third of them 0, 1 or 2; it ends with a legend.
        """
        if not file.is_file():
            raise UserError(f"{file}: there is no such file. It is part of the release of PH2.")
        rows = []
        for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            cells = [cell.strip() for cell in line.split("||")]
            if len(cells) > 3 and re.fullmatch(r"IMD\d+", cells[1]):
                number = int(cells[3]) if cells[3] in ("0", "1", "2") else None
                rows.append((cells[1], "" if number is None else PH2_CLASSES[number]))
        if not rows:
            raise UserError(f"{file}: not the table of PH2. Replace it by that of the release.")
        return pd.DataFrame(rows, columns=["image", "label"])


def open_isic2019(data_dir: Path) -> FolderDataset:
    """ISIC_2019_Training_Input and the like."""
    parts = {}
    for images in ("training", "test"):
        stem = data_dir / f"ISIC_2019_{images.title()}"
        parts[images] = Part(
            images=(stem.with_name(f"{stem.name}_Input"),),
            table=_found(stem, "_GroundTruth.csv"),
            details=_found(stem, "_Metadata.csv"),
        )
    return ISIC2019(data_dir, "isic2019", parts, OwnFolder(classes=ISIC2019_CLASSES))


def open_isic2020(data_dir: Path) -> FolderDataset:
    """ISIC_2020_Training_JPEG, or `train` as it unzips; or as on Kaggle, jpeg/train."""
    told = OwnFolder(
        classes=ISIC2020_CLASSES, label_column="benign_malignant", group_column="patient_id"
    )
    parts = {}
    for images, short in (("training", "train"), ("test", "test")):
        stem = data_dir / f"ISIC_2020_{images.title()}"
        folders = [stem.with_name(f"{stem.name}{ending}") for ending in ("_JPEG", "_Input")]
        folders += [data_dir / short, data_dir / "jpeg" / short]
        table = _found(stem, "_GroundTruth_v2.csv", "_GroundTruth.csv", "_Metadata.csv")
        if not table.is_file() and (data_dir / f"{short}.csv").is_file():
            table = data_dir / f"{short}.csv"
        folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        known = table if images == "training" else None  # the truth of the test set is not public
        parts[images] = Part(images=(folder,), table=known, details=table)
    return ISIC2020(data_dir, "isic2020", parts, told)


def open_ham10000(data_dir: Path) -> FolderDataset:
    """HAM10000_images_part_1, _part_2, HAM10000_metadata and the masks by Tschandl."""
    root = data_dir / "HAM10000" if (data_dir / "HAM10000").is_dir() else data_dir
    folders = tuple(_any_case(root, f"HAM10000_images_part_{k}") for k in (1, 2))
    table = _found(root / "HAM10000_metadata", ".csv", "", ".tab")
    masks = _any_case(root, "HAM10000_segmentations_lesion_tschandl")
    part = Part(folders, masks if masks.is_dir() else None, table)
    told = OwnFolder(
        classes=tuple(name.lower() for name in CLASSES),
        label_column="dx",
        group_column="lesion_id",
        image_column="image_id",
    )
    return FolderDataset(data_dir, "ham10000", {"training": part}, told)


def open_ph2(data_dir: Path) -> FolderDataset:
    """PH2Dataset as it unzips."""
    root = data_dir / "PH2Dataset"
    folder = root / "PH2 Dataset images"
    table = root / "PH2_dataset.txt"
    told = OwnFolder(classes=PH2_CLASSES)
    return PH2(data_dir, "ph2", {"training": Part((folder,), folder, table)}, told)


def _found(stem: Path, *endings: str) -> Path:
    """The first of these files that is there; else the first of all, for a message."""
    files = [stem.with_name(stem.name + ending) for ending in endings]
    return next((file for file in files if file.is_file()), files[0])


def _any_case(folder: Path, name: str) -> Path:
    """A folder of this name, whatever its case: copies on Kaggle differ."""
    there = folder.iterdir() if folder.is_dir() else ()
    same = [path for path in there if path.name.lower() == name.lower()]
    return sorted(same)[0] if same else folder / name
