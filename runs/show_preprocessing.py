"""Draw what each step of --preprocess makes of some images, side by side.

python3 runs/show_preprocessing.py
python3 runs/show_preprocessing.py --image-ids ISIC_0024306 ISIC_0024307
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.own_settings import NOT_TOLD, OwnFolder
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md; folder: your own images
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    task: Literal[1, 3] = 3  # that the training images belong to
    image_ids: tuple[str, ...] = ()  # which to draw; none: some, spread over the set
    count: int = 4  # how many, where they are not named


def main(settings: Settings) -> None:
    import numpy as np

    from datasets.catalogue import open_dataset
    from datasets.pictures import read_original
    from datasets.preprocessing import PREPROCESSING, preprocess
    from misc_utils.errors import UserError
    from misc_utils.messages import listed
    from reports import figures

    # 1 which images
    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    files = dataset.list_images(settings.task, "training")
    unknown = [image_id for image_id in settings.image_ids if image_id not in files]
    if unknown:
        raise UserError(f"--image-ids: no training image {listed(unknown)} in {dataset.name}.")
    spread = np.linspace(0, len(files) - 1, min(settings.count, len(files))).astype(int)
    image_ids = settings.image_ids or [list(files)[k] for k in spread]

    # 2 each as it is, after each step, and after all
    pictures, titles = [], []
    for image_id in image_ids:
        image = read_original(files[image_id])
        pictures.append(image)
        titles.append(image_id)
        for name in PREPROCESSING:
            pictures.append(preprocess(image, (name,)))
            titles.append(name.replace("_", " "))
    name = f"preprocessing_{dataset.name}_task{settings.task}.png"
    file = dataset.data_dir / "cache" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    figures.draw_sheet(file, pictures, titles)
    print(f"{len(image_ids)} images, each as it is and after each step: {file}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
