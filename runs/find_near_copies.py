"""List training images that are nearly the same photograph, to keep them in one fold.

python3 runs/find_near_copies.py --task 1
python3 runs/find_near_copies.py --task 3 --least-similarity 0.7

Found are pictures that were rescaled, recompressed, turned, mirrored or cropped a little. Look
through the table it writes and delete the pairs that are none; then train with --near-copies.
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.own_settings import NOT_TOLD, OwnFolder
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    task: Literal[1, 3] = 3  # that the training images belong to
    least_similarity: float = 0.75  # from which a pair is listed: correlation of details, 0..1
    image_size: int = 224  # of the cached pictures that are compared, in pixels
    overwrite: bool = False  # replace a table of before, from which pairs may have been deleted


def main(settings: Settings) -> int:
    import pandas as pd

    from datasets import near_copies
    from datasets.catalogue import open_dataset
    from misc_utils.errors import UserError
    from reports import figures

    # 1 compare
    dataset, task = open_dataset(paths.data_dir(), settings.dataset, settings.own), settings.task
    file = dataset.near_copies_file(task)
    if file.exists() and not settings.overwrite:
        raise UserError(
            f"{file} is there, and pairs may have been deleted from it. Add --overwrite to find "
            f"them all again."
        )
    images = dataset.load_images(task, "training", settings.image_size)
    table = near_copies.find_near_copies(images, settings.least_similarity)

    # 2 write
    near_copies.write_near_copies(file, table)
    print(f"{len(table)} pairs of {len(images.image_ids)} images: {file}")
    if task == 3 and len(table):
        lesions = dataset.load_lesions(list(images.image_ids))
        same = sum(lesions[row.image] == lesions[row.other] for row in table.itertuples())
        print(f"{same} of them show the same lesion by the table of lesions")

    # 3 show the most similar pairs, and those next to the limit
    if len(table):
        shown = table if len(table) <= 12 else pd.concat([table[:6], table[-6:]])
        rows = list(shown.itertuples())
        ids = [image_id for row in rows for image_id in (row.image, row.other)]
        pictures = [images.array[row] for row in images.rows(ids)]
        titles = [t for row in rows for t in (row.image, f"{row.other} ({row.similarity:.3f})")]
        sheet = file.with_suffix(".png")
        figures.draw_sheet(sheet, pictures, titles)
        print(f"the most similar pairs, and those next to the limit: {sheet}")
    return len(table)


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
