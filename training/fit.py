"""One fit: an optimiser, and callbacks that keep weights, history and state.

Enters: numbers from a script's Settings. Leaves: an optimiser; callbacks in the order they run in.
"""

import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from misc_utils.errors import UserError
from misc_utils.files import write_text
from misc_utils.signals import deferred
from models.weights import save_weights
from training.loggers import Listeners
from training.run_folder import Run
from training.state import Progress, load_state, save_state

log = logging.getLogger(__name__)


def build_optimizer(
    learning_rate: float,
    schedule: str,
    steps: int,
    weight_decay: float = 0.0,
    average_weights: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Adam, or AdamW (arXiv 1711.05101) with a `weight_decay` above 0, of kernels only.

    Schedule `plateau`: constant until a callback lowers it; `cosine`: up from zero in the first
    twentieth of `steps`, then down to zero. `average_weights` above 0: a moving average of the
    weights is kept, of which each step leaves this share.
    """
    if schedule == "cosine":
        warm_up = steps // 20
        learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(steps - warm_up, 1), warmup_target=learning_rate, warmup_steps=max(warm_up, 1)
        )
    options = {"use_ema": True, "ema_momentum": average_weights} if average_weights else {}
    if not weight_decay:
        return keras.optimizers.Adam(learning_rate, **options)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class Averaged(keras.callbacks.Callback):
    """Validation sees the moving average of the weights, and `saving` writes it.

    Training itself goes on with the weights. Statistics of batch normalisation are moving averages
    already, and stay.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.set_model(model)

    def swap(self) -> None:
        """Exchange the weights and their average."""
        optimizer = self.model.optimizer
        pairs = zip(
            self.model.trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
        for variable, average in pairs:
            value = variable.numpy().copy()
            variable.assign(average)
            average.assign(value)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """To the average."""
        self.swap()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Back to the weights."""
        self.swap()

    def saving(self, save: Callable[[Path], None]) -> Callable[[Path], None]:
        """What writes a file as `save` does, with the average as the weights."""

        def save_average(file: Path) -> None:
            self.swap()
            try:
                save(file)
            finally:
                self.swap()

        return save_average


class Start:
    """What a compiled net starts from, to start from it again.

    A net built again for each fold would be traced and compiled again: minutes for a DenseNet,
    while setting its variables takes a second.
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


def set_epoch(batches) -> keras.callbacks.Callback:
    """Sets the epoch of the batches when it begins, as their content depends on it."""
    return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: batches.set_epoch(epoch))


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


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's own, whose counters survive the end of a process (they are reset when fit begins)."""

    COUNTERS = ("best", "wait", "cooldown_counter")

    def __init__(self, counters: Mapping[str, float], **options) -> None:
        super().__init__(**options)
        self.start = dict(counters)

    @property
    def counters(self) -> dict[str, float]:
        """What it remembers of the epochs before."""
        return {name: getattr(self, name) for name in self.COUNTERS}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Reset, then take over what was remembered."""
        super().on_train_begin(logs)
        for name, value in self.start.items():
            setattr(self, name, value)


class KeepEpoch(keras.callbacks.Callback):
    """After each epoch: the state to resume from, the weights if they are the best, the history.

    In this order. A process killed before the state is written repeats the epoch; one killed before
    the best weights are, finds them in the state (see fit_fold).
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        variables: Sequence[keras.Variable],
        save: Callable[[Path], None],
        plateau: Plateau | None = None,
    ) -> None:
        super().__init__()
        self.run, self.progress, self.variables = run, progress, variables
        self.save, self.plateau = save, plateau
        self.monitor = run.settings["monitor"]
        self.sign = -1.0 if self.monitor.endswith("loss") else 1.0
        self.started = time.monotonic() - progress.seconds

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compare, then write."""
        progress, value = self.progress, float(logs[self.monitor])
        progress.history.append({name: float(logs[name]) for name in sorted(logs)})
        better = progress.best is None or self.sign * value > self.sign * progress.best
        if better:
            progress.best, progress.best_epoch = value, epoch
        if self.plateau:
            progress.plateau = self.plateau.counters
        progress.seconds = time.monotonic() - self.started
        save_state(self.run.state, self.variables, progress)
        if better:
            self.save(self.run.weights)
        write_history(self.run.history, progress.history)
        if out_of_patience(progress, self.run.settings):
            self.model.stop_training = True


def out_of_patience(progress: Progress, settings: Mapping) -> bool:
    """Whether the last `patience` epochs brought nothing better; never where it is None."""
    patience = settings.get("patience")
    return patience is not None and progress.epochs - 1 - progress.best_epoch >= patience


def write_history(file: Path, history: Sequence[Mapping[str, float]]) -> None:
    """The table with a row per epoch; column `epoch` counts from 0."""
    table = io.StringIO()
    pd.DataFrame(history).to_csv(table, index_label="epoch", lineterminator="\n")
    write_text(file, table.getvalue())


def fit_fold(
    model: keras.Model,
    start: Start,
    train: keras.utils.PyDataset,
    held_out: keras.utils.PyDataset,
    run: Run,
    verbose: int = 2,
    whole: keras.Model | None = None,
) -> Progress:
    """Train a compiled net as the settings of its run say, or resume from the state in its folder.

    Leaves weights of the best epoch, a history with a row per epoch and the state in the run's
    folder. Read from the run's settings: epochs, monitor (val_loss: smaller is better; a
    score: larger), schedule (plateau lowers the learning rate by plateau_factor when val_loss has
    not fallen for plateau_patience epochs, down to min_learning_rate), patience (see
    out_of_patience).

    The run was begun (claim.begin_run); `train` has a `set_epoch`; `whole` is the net that `model`
    is a part of, whose weights are kept. With average_weights above 0, what is scored and kept is
    the moving average of the weights. Raises UserError when a loss is no longer a number, or the
    state is damaged; EndedBySignal.
    """
    settings, progress, save = run.settings, Progress(), partial(save_weights, whole or model)
    extra = []
    if settings.get("average_weights"):
        extra = [Averaged(model)]
        save = extra[0].saving(save)
    start.restore()  # and no new global seed, which would make TensorFlow optimise its graphs again
    if run.resumes:
        progress = load_state(run.state, start.variables)
        log.info("%s: resumes after epoch %d of %d", run.name, progress.epochs, settings["epochs"])
        if progress.best_epoch == progress.epochs - 1:
            save(run.weights)  # the process may have ended before it did
        write_history(run.history, progress.history)
    if progress.epochs < settings["epochs"] and not out_of_patience(progress, settings):
        with deferred() as end_if_asked:

            def end(batch: int, logs: dict | None = None) -> None:
                end_if_asked()  # between two steps

            model.fit(
                train,
                validation_data=held_out,
                initial_epoch=progress.epochs,
                epochs=settings["epochs"],
                shuffle=False,  # the batches do it, as a function of the seed
                callbacks=[
                    *extra,
                    *build_callbacks(train, run, progress, start.variables, save),
                    keras.callbacks.LambdaCallback(on_train_batch_end=end, on_test_batch_end=end),
                ],
                verbose=verbose,
            )
    if progress.epochs < settings["epochs"]:
        log.info("%s: stops after epoch %d, by --patience", run.name, progress.epochs)
    return progress


def build_callbacks(
    batches,
    run: Run,
    progress: Progress,
    variables: Sequence[keras.Variable],
    save: Callable[[Path], None],
) -> list[keras.callbacks.Callback]:
    """Callbacks of one training, in the order they run in; see fit_fold."""
    settings, callbacks, plateau = run.settings, [set_epoch(batches), StopOnNaN()], None
    if settings["schedule"] == "plateau":
        plateau = Plateau(
            progress.plateau,
            monitor="val_loss",
            factor=settings["plateau_factor"],
            patience=settings["plateau_patience"],
            min_lr=settings["min_learning_rate"],
            verbose=1,
        )
        callbacks.append(plateau)
    callbacks.append(KeepEpoch(run, progress, variables, save, plateau))
    if settings.get("log_to"):
        listeners = Listeners(settings["log_to"], run, progress.history)
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: listeners.begin(),
                on_epoch_end=lambda epoch, logs: listeners.tell(),
                on_train_end=lambda logs: listeners.close(),
            )
        )
    return callbacks
