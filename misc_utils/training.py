"""What every `fit` needs beside net and batches: an optimiser, and callbacks that keep results.

Enters: numbers from a script's Settings. Leaves: an optimiser; callbacks in the order they run in.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from errors import UserError
from misc_utils import figures, run_folder


def build_optimizer(learning_rate: float, schedule: str, steps: int) -> keras.optimizers.Optimizer:
    """Adam. `plateau`: constant until a callback lowers it; `cosine`: down to zero over `steps`."""
    if schedule == "cosine":
        warm_up = steps // 20
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(steps - warm_up, 1), warmup_target=learning_rate, warmup_steps=max(warm_up, 1)
        )
    return keras.optimizers.Adam(learning_rate)


class Start:
    """What a compiled net starts from, to start from it again.

    A net that was built anew for each fold would be traced and compiled anew: minutes for a
    DenseNet, while setting its variables takes a second.
    """

    def __init__(self, model: keras.Model) -> None:
        model.optimizer.build(model.trainable_variables)
        self.variables = [*model.variables, *model.optimizer.variables]
        self.values = [_compact(variable.numpy()) for variable in self.variables]

    def restore(self) -> None:
        """Set weights, states of random layers and the optimiser back to what they were."""
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)


def _compact(value: np.ndarray) -> np.ndarray:
    """The array; where it is all zeros, as an optimiser's moments are, one that needs no memory."""
    return value.copy() if value.any() else np.broadcast_to(value.dtype.type(0), value.shape)


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


def fit_fold(
    model: keras.Model,
    train: keras.utils.PyDataset,
    held_out: keras.utils.PyDataset,
    run: run_folder.Run,
    save: Callable[[Path], None],
    class_weight: Mapping[int, float] | None = None,
    verbose: int = 2,
) -> dict[str, float]:
    """Train a compiled net as the settings of its run say, and finish the run.

    Leaves weights of the best epoch, a history with a row per epoch, and its figure in the run's
    folder. Read from the run's settings: epochs, monitor, schedule, plateau_factor,
    plateau_patience, min_learning_rate.

    Args:
        model: compiled.
        train: batches with a `set_epoch`, told the epoch before it begins.
        held_out: batches the net is scored on after each epoch.
        run: an empty run, from run_folder.create_run.
        save: stores the net's weights in a file.
        class_weight: {class index: weight in the loss}.
        verbose: of Keras's fit.

    Returns:
        The measures of the best epoch, those on held-out batches with `val_` before their names,
        and `best_epoch` (0 is the first).

    Raises:
        UserError when a loss is no longer a number.
    """
    settings, started = run.settings, time.monotonic()
    callbacks = build_callbacks(train, run.history, lambda: save(run.weights), settings)
    history = model.fit(
        train,
        validation_data=held_out,
        epochs=settings["epochs"],
        class_weight=class_weight,
        shuffle=False,  # the batches do it, as a function of the seed
        callbacks=callbacks,
        verbose=verbose,
    ).history
    best = callbacks[-1].best_epoch
    scores = {name: float(values[best]) for name, values in history.items()}
    seconds = round(time.monotonic() - started)
    run_folder.finish_run(run, {"best_epoch": best, "best": scores, "seconds": seconds})
    figures.draw_history(run.file("history.png"), history, run.name)
    return scores | {"best_epoch": best}


def build_callbacks(
    batches, history: Path, save: Callable[[], None], settings: Mapping
) -> list[keras.callbacks.Callback]:
    """Callbacks of one training; the last is SaveBest.

    Args:
        batches: the training batches, told the epoch.
        history: CSV file that gets a row per epoch.
        save: stores the net's weights.
        settings: `monitor`: val_loss (smaller is better) or a score (larger is better);
            `schedule`: plateau lowers the learning rate by `plateau_factor` when val_loss has not
            fallen for `plateau_patience` epochs, down to `min_learning_rate`.
    """
    callbacks = [TellEpoch(batches), StopOnNaN()]
    if settings["schedule"] == "plateau":
        plateau = keras.callbacks.ReduceLROnPlateau(
            "val_loss",
            settings["plateau_factor"],
            settings["plateau_patience"],
            min_lr=settings["min_learning_rate"],
            verbose=1,
        )
        callbacks.append(plateau)
    callbacks.append(keras.callbacks.CSVLogger(str(history)))
    monitor = settings["monitor"]
    callbacks.append(SaveBest(save, monitor, "min" if monitor.endswith("loss") else "max"))
    return callbacks
