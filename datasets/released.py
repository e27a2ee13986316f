"""Other released data sets, each as a row that says where its files and tables are.

Enters: the folder `data/` with the archives unzipped, see docs/data.md. Leaves: a FolderDataset.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import tables
from datasets.challenge import CLASSES, UNRELEASED
from datasets.dataset import Dataset
from datasets.own_folder import FolderDataset, Part
from datasets.own_settings import OwnFolder
from misc_utils.errors import UserError
from misc_utils.messages import check_same_ids, counted, listed

ISIC2019_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
NONE_OF_THEM = "UNK"  # column of ISIC 2019: the image is of none of the classes
ISIC2020_CLASSES = ("benign", "malignant")
HAM10000_CLASSES = tuple(name.lower() for name in CLASSES)
PH2_CLASSES = ("common nevus", "atypical nevus", "melanoma")
SEE = "docs/data.md says what belongs where"


class Released(FolderDataset):
    """A data set whose folders, tables and columns are known."""

    def find_images(self, images: str) -> dict[str, Path]:
        """As FolderDataset.find_images; UserError naming a folder that is missing."""
        for folder in self._part(images).images:
            _check_folder(folder)
        return super().find_images(images)

    def list_masks(self, task: int, images: str, channel: str) -> tuple[dict[str, Path], Path]:
        """As FolderDataset.list_masks; UserError naming a folder that is missing."""
        masks = self._part(images).masks
        if task == 1 and masks is not None:
            _check_folder(masks)
        return super().list_masks(task, images, channel)

    def has_labels(self, images: str) -> bool:
        """Whether the table of classes is there: that of a test set is not needed to predict."""
        table = self._part(images).table
        return table is not None and table.is_file()

    def read_table(self, file: Path) -> pd.DataFrame:
        """As tables.read_table; UserError for a file that is missing, or lacks a column."""
        _check_file(file)
        table, wanted = super().read_table(file), self.columns_of(file)
        if missing := [name for name in wanted if name not in table]:
            raise UserError(
                f"{file}: expected the columns {listed(list(wanted))}; found "
                f"{listed(list(table.columns))}, so {listed(missing)} is missing. Replace it by "
                f"the file of the release; {SEE}."
            )
        return table

    def columns_of(self, file: Path) -> Sequence[str]:
        """Names of columns that a table of the release must have."""
        return ()


class ISIC2019(Released):
    """25,331 dermoscopic images of eight classes; the test set holds others too, UNK."""

    def columns_of(self, file: Path) -> Sequence[str]:
        """The classes; of the details of the training images, the lesion."""
        if any(file == part.table for part in self.parts.values()):
            return "image", *self.classes
        training = file == self.parts["training"].details
        return ("image", "lesion_id") if training else ("image",)

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Class of each image that is of one of them."""
        labels, others, file = self._read_rows(images)
        return {i: k for i, k in labels.items() if i not in others}, file

    def load_labels(self, images: str, image_ids: Sequence[str]) -> dict[str, int]:
        """As Dataset.load_labels, without images of none of the classes; how many is logged."""
        labels, others, file = self._read_rows(images)
        check_same_ids(f"{file}", image_ids, labels, self.images_folder(3, images), "row")
        if others and images == "training":
            raise UserError(
                f"{file}: the release has no training image of none of the classes "
                f"({NONE_OF_THEM}); found {counted(others)}. Take these rows and images out."
            )
        said = f"{file}: {len(others)} images of none of the classes ({NONE_OF_THEM})"
        self._tell(f"{said} are not scored", others)
        return {i: labels[i] for i in image_ids if i not in others}

    def _read_rows(self, images: str) -> tuple[dict[str, int], set[str], Path]:
        """Index of the column of each image, which images are of none of the classes, the table."""
        file = self._table_of(images)
        table, lines = self._lines(images, file)
        names = (*self.classes, *({NONE_OF_THEM} & {*table.columns}))
        labels, _, _ = tables.read_labels(file, table, lines, classes=names)
        return labels, {i for i, k in labels.items() if k == len(self.classes)}, file

    def submission(self, image_ids: Sequence[str], probability: np.ndarray) -> pd.DataFrame:
        """With the column UNK that the organisers ask for, of which nothing is said: 0."""
        return super().submission(image_ids, probability).assign(**{NONE_OF_THEM: 0.0})


class ISIC2020(Released):
    """33,126 dermoscopic images of 2056 patients, melanoma or not."""

    group = "patient"

    def columns_of(self, file: Path) -> Sequence[str]:
        """Of the training images: name, class and patient."""
        training = file == self.parts["training"].table
        return ("image_name", "patient_id", "benign_malignant") if training else ()

    def read_pairs(self, task: int) -> list[tuple[str, str]]:
        """The 425 pairs that the organisers list as duplicates, where their table is there."""
        file = self.data_dir / "ISIC_2020_Training_Duplicates.csv"
        if not file.is_file():
            self._tell(f"{file} is not there: a split may part the copies that it lists", True)
            return []
        table, wanted = tables.read_table(file), ["image_name_1", "image_name_2"]
        if list(table.columns[:2]) != wanted:
            raise UserError(
                f"{file}: expected the columns {listed(wanted)}; found "
                f"{listed(list(table.columns))}. Replace it by the file of the release; {SEE}."
            )
        self._tell(f"{file}: copies, thus of one patient: {len(table)} pairs", True)
        return list(table[wanted].itertuples(index=False, name=None))

    def submission(self, image_ids: Sequence[str], probability: np.ndarray) -> pd.DataFrame:
        """Columns image_name and target, the probability of melanoma."""
        return pd.DataFrame({"image_name": list(image_ids), "target": probability[:, 1]})


class HAM10000(Released):
    """10,015 dermoscopic images of seven classes with masks, and the test set of ISIC 2018."""

    def columns_of(self, file: Path) -> Sequence[str]:
        """Of both tables: name, class and lesion."""
        return "image_id", "dx", "lesion_id"

    def read_table(self, file: Path) -> pd.DataFrame:
        """Without the row of the one test image that was not released."""
        table = super().read_table(file)
        unreleased = table["image_id"] == UNRELEASED
        self._tell(f"{file}: the row of {UNRELEASED}, not released, is left aside", any(unreleased))
        return table[~unreleased]


class PH2(Released):
    """200 dermoscopic images of nevi and melanomas with masks; a folder of each case."""

    def choose_images(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those in folders named `..._Dermoscopic_Image`."""
        return {f: p for f, p in relative.items() if p.parent.name.endswith("_Dermoscopic_Image")}

    def choose_masks(self, relative: Mapping[Path, Path]) -> Mapping[Path, Path]:
        """Those in folders named `..._lesion`; beside them lie masks of colours."""
        return {f: path for f, path in relative.items() if path.parent.name.endswith("_lesion")}

    def read_table(self, file: Path) -> pd.DataFrame:
        """Columns image and label, of the text file of the release; the index is the line.

        Its cells stand between double bars, the third of them 0, 1 or 2; it ends with a legend.
        """
        _check_file(file)
        rows, wrong = {}, []
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            cells = [cell.strip() for cell in line.split("||")]
            if len(cells) < 2 or not re.fullmatch(r"IMD\d+", cells[1]):
                continue
            if len(cells) > 3 and cells[3] in ("0", "1", "2"):
                rows[number] = cells[1], PH2_CLASSES[int(cells[3])]
            else:
                wrong.append(number)
        if wrong or not rows:
            found = f"another in line {listed(wrong)}" if wrong else "no line of an image"
            raise UserError(
                f"{file}: expected lines such as || IMD003 ||  || 0 ||, with the diagnosis 0, 1 "
                f"or 2 in the third place; found {found}. Replace it by the file of the release."
            )
        return pd.DataFrame.from_dict(rows, orient="index", columns=["image", "label"])

    def read_groups(self, task: int) -> None:
        """None: no column says which images are of one patient."""

    def read_metadata(self, images: str) -> tuple[pd.DataFrame, Path]:
        """UserError: there are none."""
        return Dataset.read_metadata(self, images)


def open_isic2019(data_dir: Path) -> FolderDataset:
    """ISIC_2019_Training_Input and the like."""
    parts = {}
    for images in ("training", "test"):
        begin = f"ISIC_2019_{images.title()}"
        parts[images] = Part(
            images=(data_dir / f"{begin}_Input",),
            table=data_dir / f"{begin}_GroundTruth.csv",
            details=data_dir / f"{begin}_Metadata.csv",
        )
    return ISIC2019(data_dir, "isic2019", parts, OwnFolder(classes=ISIC2019_CLASSES))


def open_isic2020(data_dir: Path) -> FolderDataset:
    """ISIC_2020_Training_JPEG, or `train` as it unzips; or as on Kaggle, jpeg/train."""
    told = OwnFolder(
        classes=ISIC2020_CLASSES, label_column="benign_malignant", group_column="patient_id"
    )
    parts = {}
    for images, short, tables_of_set in (
        ("training", "train", ("GroundTruth_v2", "GroundTruth")),
        ("test", "test", ("Metadata",)),
    ):
        begin = f"ISIC_2020_{images.title()}"
        # beside Kaggle's jpeg/train there is a folder train of DICOM files
        folders = (f"{begin}_JPEG", f"{begin}_Input", f"jpeg/{short}", short)
        files = [f"{begin}_{name}.csv" for name in tables_of_set]
        table = _first(data_dir, *files, f"{short}.csv")
        known = table if images == "training" else None  # the truth of the test set is not public
        parts[images] = Part((_first(data_dir, *folders),), table=known, details=table)
    return ISIC2020(data_dir, "isic2020", parts, told)


def open_ham10000(data_dir: Path) -> FolderDataset:
    """HAM10000_images_part_1, _part_2, HAM10000_metadata and the masks by Tschandl.

    They may lie in a folder `HAM10000` of their own.
    """
    root = data_dir / "HAM10000" if (data_dir / "HAM10000").is_dir() else data_dir
    training = Part(
        images=tuple(_any_case(root, f"HAM10000_images_part_{k}") for k in (1, 2)),
        masks=_any_case(root, "HAM10000_segmentations_lesion_tschandl"),
        table=_first(root, *(f"HAM10000_metadata{ending}" for ending in ("", ".csv", ".tab"))),
    )
    test = Part(
        images=(root / "ISIC2018_Task3_Test_Images",),
        table=_first(root, *(f"ISIC2018_Task3_Test_GroundTruth{end}" for end in (".csv", ".tab"))),
    )
    told = OwnFolder(
        classes=HAM10000_CLASSES,
        label_column="dx",
        group_column="lesion_id",
        image_column="image_id",
    )
    return HAM10000(data_dir, "ham10000", {"training": training, "test": test}, told)


def open_ph2(data_dir: Path) -> FolderDataset:
    """PH2Dataset as it unzips."""
    root = data_dir / "PH2Dataset"
    folder = root / "PH2 Dataset images"
    part = Part((folder,), folder, root / "PH2_dataset.txt")
    return PH2(data_dir, "ph2", {"training": part}, OwnFolder(classes=PH2_CLASSES))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Unzip the release there; {SEE}.")


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise UserError(f"{file}: there is no such file. Put that of the release there; {SEE}.")


def _first(folder: Path, *names: str) -> Path:
    """The first of these that is there; else the first of all, for a message."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def _any_case(folder: Path, name: str) -> Path:
    """A folder of this name, whatever its case: copies on Kaggle differ."""
    there = folder.iterdir() if folder.is_dir() else ()
    same = [path for path in there if path.name.lower() == name.lower()]
    return sorted(same)[0] if same else folder / name
