"""What every `fit` needs beside net and batches: an optimiser, and callbacks that keep results.

Enters: numbers from a script's Settings. Leaves: an optimiser; callbacks in the order they run in.
"""

import math
from collections.abc import Callable
from pathlib import Path

import keras

from errors import UserError

SCHEDULES = ("plateau", "cosine")


def build_optimizer(learning_rate: float, schedule: str, steps: int) -> keras.optimizers.Optimizer:
    """Adam. `plateau`: constant until a callback lowers it; `cosine`: down to zero over `steps`."""
    if schedule == "cosine":
        warm_up = steps // 20
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(steps - warm_up, 1), warmup_target=learning_rate, warmup_steps=max(warm_up, 1)
        )
    return keras.optimizers.Adam(learning_rate)


class TellEpoch(keras.callbacks.Callback):
    """Tells the batches which epoch begins, so that their content depends on it."""

    def __init__(self, batches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """See Batches.set_epoch."""
        self.batches.set_epoch(epoch)


class StopOnNaN(keras.callbacks.Callback):
    """Ends training with an error when a loss is no longer a number."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Raise UserError for a NaN or infinite training or validation loss."""
        wrong = {k: v for k, v in (logs or {}).items() if "loss" in k and not math.isfinite(v)}
        if wrong:
            raise UserError(
                f"epoch {epoch + 1}: {', '.join(f'{k} is {v}' for k, v in wrong.items())}. The net "
                f"diverged; the weights kept are those of the best epoch before, if any. Try a "
                f"lower --learning-rate."
            )


class SaveBest(keras.callbacks.Callback):
    """Saves the weights whenever the monitored value is better than ever before.

    Keras's own ModelCheckpoint stores the optimiser too and writes over the file in place.
    """

    def __init__(self, save: Callable[[], None], monitor: str, mode: str) -> None:
        super().__init__()
        self.save, self.monitor, self.sign = save, monitor, {"min": -1.0, "max": 1.0}[mode]
        self.best, self.best_epoch = -math.inf, -1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, then save."""
        value = self.sign * logs[self.monitor]
        if value > self.best:
            self.best, self.best_epoch = value, epoch
            self.save()


def build_callbacks(
    batches,
    history: Path,
    save: Callable[[], None],
    *,
    monitor: str,
    schedule: str,
    plateau_factor: float,
    plateau_patience: int,
    min_learning_rate: float,
) -> list[keras.callbacks.Callback]:
    """Callbacks of one training; the last is SaveBest.

    Args:
        batches: the training batches, told the epoch.
        history: CSV file that gets a row per epoch.
        save: stores the net's weights.
        monitor: `val_loss` (smaller is better) or a score (larger is better).
        schedule: `plateau` lowers the learning rate by `plateau_factor` when val_loss has not
            fallen for `plateau_patience` epochs, down to `min_learning_rate`.
        plateau_factor, plateau_patience, min_learning_rate: see schedule.
    """
    callbacks = [TellEpoch(batches), StopOnNaN()]
    if schedule == "plateau":
        plateau = keras.callbacks.ReduceLROnPlateau(
            "val_loss", plateau_factor, plateau_patience, min_lr=min_learning_rate, verbose=1
        )
        callbacks.append(plateau)
    callbacks.append(keras.callbacks.CSVLogger(str(history)))
    callbacks.append(SaveBest(save, monitor, "min" if monitor.endswith("loss") else "max"))
    return callbacks
