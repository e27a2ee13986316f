"""Ask trained nets about an archive of up to a million images, in shards that resume after a kill.

python3 runs/predict_archive.py photos/
python3 runs/predict_archive.py photos.tar --bundle submissions/bundle --shard 1/8
python3 runs/predict_archive.py table.parquet --image-column file --no-masks

A folder, a tar, a zip archive or a table of paths. Answers are written in parts, a row per image;
merge_archive.py makes one table and a report of them. Research only: not for diagnosis.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    archive: command_line.Archive  # a folder, .tar (also .gz, .bz2, .xz), .zip, .csv or .parquet
    image_column: str = "path"  # of a table: holds the path of each image, from its folder on
    shard: command_line.Shard = None  # i/n: make share i of n, from 1/n to n/n; None: all of them
    segmenter: str | None = None
    """finds the lesion: backbone:version, several joined by +; None: the one that was trained"""
    classifier: str | None = None  # tells the class, named alike
    bundle: str | None = None  # a folder that export.py wrote: answers without Keras
    mask: bool = True  # find the lesion
    classes: bool = True  # tell the class
    masks: bool = True  # write the masks, a tar of PNG files for each part
    part_size: int = 1000  # images of a part, which is written whole or not at all
    name: str = "archive"  # of the folder in submissions/ that all is written to
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    batch_size: int = 8  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the nets were trained on
    overwrite: bool = False  # start again, whatever is there; not with --shard


def main(settings: Settings) -> dict[str, int]:
    from tqdm import tqdm

    from deploy import answers
    from deploy.which_nets import find_nets
    from misc_utils.errors import UserError
    from misc_utils.messages import command, lacking

    if said := lacking(("pyarrow",), "requirements-archive.txt"):
        raise UserError(f"for archives, {said}")
    from archives import parts, shards
    from deploy import archive
    from deploy.ask import ask

    # 1 which nets, which images
    answers.check_name(settings.name)
    shard = shards.parse_shard(settings.shard)
    if settings.shard and settings.overwrite:
        raise UserError("--overwrite deletes what other shards made: give it without --shard.")
    _, depends_on, load_nets = find_nets(paths.root(), settings)
    # of os.path, as those of Path fail for a user that is not there and for a link to itself
    place = Path(os.path.realpath(os.path.expanduser(settings.archive)))
    opened = archive.open_archive(place, settings.image_column)

    # 2 begin, or go on with what the same settings, nets and images made
    free = ("shard", "batch_size", "overwrite", "name", "bundle")
    used = {key: value for key, value in asdict(settings).items() if key not in free}
    used |= {"archive": str(place), "masks": settings.masks and settings.mask}
    made_by = {"settings": used, "format": 1} | depends_on()
    submissions = paths.submissions_dir()
    begun = shards.begin(
        submissions, settings.name, opened, made_by, shard.count, settings.overwrite
    )
    if opened.left_out:
        print(f"{opened.left_out} files with other endings are left out")
    with shards.claimed(begun, shard) as numbers:
        waiting = [number for number in numbers if not begun.is_whole(number)]
        total, left = (sum(map(begun.listing.size, some)) for some in (numbers, waiting))
        summary = {"images": total, "asked_now": left, "not_answered": 0}
        said = f"shard {shard}: {total} of {begun.listing.images} images in {len(numbers)} parts"
        print(f"{said}, {total - left} of them answered before")

        # 3 ask, part by part
        if waiting:
            shards.reopen(begun)
            predictor = load_nets()
            print("answering: " + ", ".join(predictor.names))
            schema = parts.schema_of(bool(predictor.mask_nets), predictor.classes)
            finish = partial(parts.row_of, begun.masks)
            start = time.monotonic()
            with tqdm(total=total, desc=str(shard), unit="image", initial=total - left) as bar:
                for number in waiting:
                    images = archive.pictures(opened, begun.listing.part(number))
                    answered = ask(predictor, images, settings.batch_size, finish)
                    begun.write(number, schema, counted(answered, summary, bar))
            seconds = time.monotonic() - start
            print(f"{left} images in {seconds:.0f} s: {left / seconds:.1f} images/s")

    # 4 report
    print(", ".join(f"{key.replace('_', ' ')}: {count}" for key, count in summary.items()))
    if all(begun.file(number).exists() for number in range(begun.listing.parts)):
        print(f"next: {command('merge_archive.py', '--name', settings.name)}")
    return summary


def counted(
    answered: Iterator[tuple[dict, bytes | None]], summary: dict[str, int], bar: Any
) -> Iterator[tuple[dict, bytes | None]]:
    """The same, while the bar moves on and those that could not be read are counted."""
    for row, mask in answered:
        summary["not_answered"] += "reason" in row
        bar.update()
        yield row, mask


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
