"""Trains two folds with runs/seg_train.py and tells how long each took to its first step.

python3 two_folds.py vgg16

The clock of the first fold starts when the data is loaded and split, that of the second when the
first has kept its predictions; both stop behind the first step.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runs"))
import keras

import paths  # isort: skip  (the repository on sys.path)
import seg_train

from datasets.ISIC2018 import ISIC2018
from datasets.synthetic import draw_dataset
from inference import kept_logits
from training import fit

started, stepped = [], []


class FirstStep(keras.callbacks.Callback):
    """Notes when the first step of a fold is over."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Its results are read, so that a step still under way is waited for."""
        if batch == 0:
            float(logs["loss"])
            stepped.append(time.perf_counter())


def then_start(function):
    """The function, starting the clock of a fold when it is over."""

    def timed(*args, **options):
        result = function(*args, **options)
        started.append(time.perf_counter())
        return result

    return timed


def with_first_step(build):
    """The callbacks of a training and FirstStep before them."""
    return lambda *args, **options: [FirstStep(), *build(*args, **options)]


with tempfile.TemporaryDirectory() as root:
    os.environ["ISIC_ROOT"] = root
    assert paths.root() == Path(root).resolve()
    draw_dataset(Path(root) / "data", lesions=8, test_lesions=1, shorter_side=(64, 64))
    settings = seg_train.Settings(
        backbone=sys.argv[1], weights="none", image_size=64, num_folds=2, epochs=1, batch_size=2
    )
    with (
        patch.object(ISIC2018, "load_pairs", then_start(ISIC2018.load_pairs)),
        patch.object(kept_logits, "keep_logits", then_start(kept_logits.keep_logits)),
        patch.object(fit, "build_callbacks", with_first_step(fit.build_callbacks)),
    ):
        seg_train.main(settings)
print(stepped[0] - started[0], stepped[1] - started[1])
