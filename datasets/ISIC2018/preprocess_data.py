"""Build the cached arrays of all data that is there, so that later scripts start at once.

python3 datasets/ISIC2018/preprocess_data.py
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

from datasets.own_settings import NOT_TOLD, OwnFolder
from misc_utils import command_line
from misc_utils.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What to build; see data/README.md for the folders."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    image_size: int = 224  # side of the cached pictures in pixels


def main(settings: Settings) -> None:
    from datasets.catalogue import open_dataset
    from datasets.tasks import TASKS

    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    size, built = settings.image_size, []
    for task, images in ((task, images) for task in TASKS for images in dataset.sets):
        with_masks = dataset.has_masks(task, images)
        if not dataset.has_images(task, images) or (task == 2 and not with_masks):
            continue
        if with_masks:
            cached, _ = dataset.load_pairs(task, images, size)
        else:
            cached = dataset.load_images(task, images, size)
        what = "images with masks" if with_masks else "images"
        built.append(f"task {task} {images}: {len(cached.image_ids)} {what}")
    if not built:
        raise UserError(
            f"{dataset.data_dir}: no images of {dataset.name} are there; see docs/data.md."
        )
    print("\n".join(built))
    print(f"cached in {dataset.data_dir / 'cache'}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
