"""Cost of an image and memory, for growing numbers of images.

Enters: how often to measure. Leaves: rows, one after another.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from scripts import name_of, quiet, resident, temporary_root, train_small_net, write_images

from measure import Row, Target, seconds
from pictures import draw_jpeg

NUMBERS = (1_000, 10_000, 50_000)
# What a script does once, whatever N, is measured with so many and taken off. Also the size of a
# batch: all NUMBERS are multiples of it, so the net is traced for one size only.
FEW = 100


def scale(repetitions: int) -> Iterator[Row]:
    """Cost of an image in pre-processing and in seg_predict, for growing numbers of images.

    The largest number takes a minute a time: it is measured in every third round.
    """
    with temporary_root() as root:
        train_small_net(root, "tiny", 32, epochs=2)
        with one_net_for_all():
            costs, grown = measure_rounds(root, repetitions)
    for name, cost in costs.items():
        for number in NUMBERS[1:]:
            rounds = sorted(cost[number])
            yield Row(
                f"{name}, an image of {number}",
                f"of {NUMBERS[0]}",
                "ms",
                [cost[number][i] for i in rounds],
                [cost[NUMBERS[0]][i] for i in rounds],
                Target("<=", 1.1),
                "ours / reference",
            )
    yield Row(
        f"RssAnon after both with {NUMBERS[-1]} images",
        f"with {NUMBERS[0]}",
        "GB",
        grown[NUMBERS[-1]],
        grown[NUMBERS[0]][: len(grown[NUMBERS[-1]])],
        Target("<=", 1.1),
        "ours / reference",
    )


@contextlib.contextmanager
def one_net_for_all() -> Iterator[None]:
    """A net is loaded and traced once, whatever number of calls of the script."""
    from inference import kept_logits

    load, kept = kept_logits.load_net, {}

    def load_once(run, images):
        if run.name not in kept:
            kept[run.name] = load(run, images)
        return replace(kept[run.name], images=images)

    with patch.object(kept_logits, "load_net", load_once):
        yield


def measure_rounds(root: Path, repetitions: int) -> tuple[dict, dict]:
    """Milliseconds an image by script, number and round; RssAnon in GB by number."""
    import seg_predict

    from datasets.ISIC2018 import ISIC2018

    contents = [draw_jpeg(48, 64, seed) for seed in range(20)]
    settings = seg_predict.Settings(
        "mask", "tiny", task=1, pred_set="test", overwrite=True, batch_size=FEW
    )

    def predict_all() -> None:
        with quiet():
            seg_predict.main(settings)

    scripts = {
        "pre-processing": lambda: ISIC2018(root / "data").load_images(1, "test", 32),
        "seg_predict": predict_all,
    }
    costs = {name: {number: {} for number in NUMBERS} for name in scripts}
    grown = {number: [] for number in NUMBERS}
    for i in range(-1, repetitions):  # round -1 does not count
        once = {}
        for number in (FEW, *NUMBERS):
            if number == NUMBERS[-1] and i % 3:
                continue
            resize_folder(root / "data" / "ISIC2018_Task1-2_Test_Input", number, contents)
            for file in (root / "data" / "cache").glob("task1_test*"):
                file.unlink()
            for name, work in scripts.items():
                took = seconds(work)
                once.setdefault(name, took)
                if number != FEW and i >= 0:
                    costs[name][number][i] = 1000 * (took - once[name]) / (number - FEW)
            if number != FEW and i >= 0:
                grown[number].append(resident(os.getpid())[0])
    return costs, grown


def resize_folder(folder: Path, number: int, contents: list[bytes]) -> None:
    """Bring a folder of image files to `number` of them."""
    have = len(list(folder.iterdir())) if folder.exists() else 0
    if have < number:
        write_images(folder, number, contents)
    for i in range(number, have):
        (folder / f"{name_of(i)}.jpg").unlink()
