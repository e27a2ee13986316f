import csv
import math

import keras
import numpy as np
import pytest

from errors import UserError
from misc_utils import training


def best_of(values, monitor):
    saved, mode = [], "min" if "loss" in monitor else "max"
    callback = training.SaveBest(lambda: saved.append(epoch), monitor, mode)
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {monitor: value})
    return saved, callback.best_epoch


def test_the_best_weights_by_the_monitored_value_are_kept():
    assert best_of([0.5, 0.7, 0.6, 0.7, 0.8], "val_threshold_jaccard") == ([0, 1, 4], 4)
    assert best_of([0.5, 0.7, 0.4], "val_loss") == ([0, 2], 2)
    assert best_of([0.0, 0.0], "val_threshold_jaccard") == ([0], 0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_training(wrong):
    training.StopOnNaN().on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    with pytest.raises(UserError, match=r"epoch 3: val_loss.*learning-rate"):
        training.StopOnNaN().on_epoch_end(2, {"loss": 1.0, "val_loss": wrong})


def test_cosine_rises_then_falls_to_zero():
    rate = training.build_optimizer(1e-3, "cosine", 1000)._learning_rate
    values = [float(rate(step)) for step in (0, 50, 525, 1000)]
    assert values == pytest.approx([0, 1e-3, 5e-4, 0], abs=1e-6)


class Still:
    def set_epoch(self, epoch):
        pass


def test_plateau_lowers_the_rate_in_force_and_history_tells(tmp_path):
    x, y = np.zeros((4, 2), np.float32), np.ones((4, 1), np.float32)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, trainable=False)])
    model.compile(training.build_optimizer(1e-3, "plateau", 8), "mse")
    callbacks = training.build_callbacks(
        Still(),
        tmp_path / "history.csv",
        lambda: None,
        {
            "monitor": "val_loss",
            "schedule": "plateau",
            "plateau_factor": 0.5,
            "plateau_patience": 2,
            "min_learning_rate": 3e-4,
        },
    )
    model.fit(x, y, epochs=7, validation_data=(x, y), callbacks=callbacks, verbose=0)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == list("0123456")
    rates = [float(row["learning_rate"]) for row in rows]
    # flat from the start: after two epochs without progress 5e-4, then the floor
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 3e-4])
