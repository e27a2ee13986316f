"""ISIC 2018: boundaries (Task 1), attributes (Task 2) and diagnoses (Task 3) of skin lesions.

Enters: the folder `data/` laid out as released. Leaves: a Dataset.
"""

from pathlib import Path

import pandas as pd

from datasets import tables
from datasets.challenge import CLASSES, SETS, UNRELEASED
from datasets.dataset import Dataset
from datasets.ISIC2018 import raw


class ISIC2018(Dataset):
    """The data set of the challenge; images and truth in a folder per task and set."""

    name = "isic2018"
    sets = SETS
    classes = CLASSES
    unreleased = frozenset({UNRELEASED})

    def list_images(self, task: int, images: str) -> dict[str, Path]:
        """Image files of a set as released, {image id: file}."""
        return raw.list_images(self.images_folder(task, images))

    def images_folder(self, task: int, images: str) -> Path:
        """Where they are; Tasks 1 and 2 share them."""
        return raw.image_folder(self.data_dir, task, images)

    def has_masks(self, task: int, images: str) -> bool:
        """Whether the folder of the truth is there."""
        return task != 3 and raw.truth_folder(self.data_dir, task, images).is_dir()

    def list_masks(self, task: int, images: str, channel: str) -> tuple[dict[str, Path], Path]:
        """Files `<id>_segmentation.png`, or `<id>_attribute_<name>.png`."""
        folder = raw.truth_folder(self.data_dir, task, images)
        ending = "segmentation" if task == 1 else f"attribute_{channel}"
        return raw.list_masks(folder, ending), folder

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Every row of the table of a set."""
        file = raw.labels_file(self.data_dir, images)
        return raw.read_labels(file), file

    def has_labels(self, images: str) -> bool:
        """Whether there is a table of classes for the set."""
        return raw.labels_file(self.data_dir, images).exists()

    def read_groups(self, task: int) -> tuple[dict[str, str | None], Path] | None:
        """Lesions of Task 3; which Task 1 images show the same lesion is not known."""
        file = raw.groups_file(self.data_dir)
        return (raw.read_groups(file), file) if task == 3 else None

    def read_metadata(self, images: str) -> tuple[pd.DataFrame, Path]:
        """From HAM10000_metadata.csv in `data/`: the release of the challenge has none."""
        file = raw.metadata_file(self.data_dir)
        table, ids = tables.read_table(file), self.list_images(3, images)
        spelled = {tables.spelling(image_id): image_id for image_id in ids}
        lines, _ = tables.image_ids(file, table, tables.image_column(file, table), spelled)
        return tables.read_metadata(file, table, lines), file
