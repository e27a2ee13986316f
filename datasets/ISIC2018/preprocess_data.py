"""Build the cached arrays of all data that is there, so that later scripts start at once.

python3 datasets/ISIC2018/preprocess_data.py
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

from datasets import ISIC2018
from misc_utils import command_line
from misc_utils.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What to build; see data/README.md for the folders."""

    image_size: int = 224  # side of the cached pictures in pixels


def main(settings: Settings) -> None:
    data_dir, size, built = paths.data_dir(), settings.image_size, []
    for task in (1, 3):
        for images in ISIC2018.SETS:
            if not ISIC2018.raw.image_folder(data_dir, task, images).is_dir():
                continue
            with_masks = task == 1 and ISIC2018.raw.truth_folder(data_dir, 1, images).is_dir()
            if with_masks:
                cached, _ = ISIC2018.load_pairs(data_dir, images, size)
            else:
                cached = ISIC2018.load_images(data_dir, task, images, size)
            what = "images with masks" if with_masks else "images"
            built.append(f"task {task} {images}: {len(cached.image_ids)} {what}")
    if not built:
        raise UserError(f"{data_dir}: none of the released folders is there; see the README.")
    print("\n".join(built))
    print(f"cached in {data_dir / 'cache'}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
