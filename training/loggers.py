"""Other programs that are told of each epoch: TensorBoard, MLflow, Weights & Biases.

Enters: a run and its history. Leaves: what these programs keep. A package is imported when its
program is named; a training that resumes goes on in the same place.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from misc_utils.errors import UserError
from misc_utils.files import write_text
from misc_utils.messages import lacking

if TYPE_CHECKING:  # the scripts list the programs in their help, which is to be quick
    from training.run_folder import Run

log = logging.getLogger(__name__)

PROJECT = "skin lesions"  # that runs belong to, where nothing else is set

Write = Callable[[int, Mapping[str, float]], None]  # epoch from 1, {measure: value}


class Opened(NamedTuple):
    """A program that listens."""

    write: Write
    close: Callable[[], None]
    key: str | None = None  # by which it finds the run again
    epochs: int = 0  # that it knows already


def _tensorboard(run: Run, key: str | None) -> Opened:
    """Event files in the run's folder, written anew where a training resumes."""
    from tensorboardX import SummaryWriter

    folder = run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder))

    def write(epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return Opened(write, writer.close)


def _mlflow(run: Run, key: str | None) -> Opened:
    """Where MLFLOW_TRACKING_URI says, else in `mlflow.db` beside the runs."""
    from mlflow.tracking import MlflowClient

    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder.parent / 'mlflow.db'}"
    client = MlflowClient(where)
    if key is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = _experiment(client, name)
        key = client.create_run(experiment, run_name=run.name).info.run_id
        for setting, value in run.settings.items():
            client.log_param(key, setting, str(value)[:500])

    def write(epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            client.log_metric(key, name, value, step=epoch)

    known = client.get_metric_history(key, "loss")
    epochs = max((metric.step for metric in known), default=0)
    return Opened(write, lambda: client.set_terminated(key), key, epochs)


def _experiment(client: Any, name: str) -> str:
    """Id of the experiment of this name, which is made where there is none."""
    found = client.get_experiment_by_name(name)
    if not found:
        try:
            return client.create_experiment(name)
        except Exception:  # another training that began just now has made it
            found = client.get_experiment_by_name(name)
            if not found:
                raise
    return found.experiment_id


def _wandb(run: Run, key: str | None) -> Opened:
    """To an account, or with WANDB_MODE=offline into `wandb` beside the runs."""
    import wandb

    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT.replace(" ", "-"),
        name=run.name,
        id=key,
        resume="allow",
        config=dict(run.settings),
        dir=os.environ.get("WANDB_DIR") or str(run.folder.parent),
    )
    return Opened(
        lambda epoch, values: opened.log(dict(values), step=epoch), opened.finish, opened.id
    )


# {name: (package, how it is opened)}
LOGGERS: dict[str, tuple[str, Callable[[Run, str | None], Opened]]] = {
    "tensorboard": ("tensorboardX", _tensorboard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _wandb),
}


def check_loggers(names: Sequence[str]) -> None:
    """UserError unless the package of each is there."""
    if said := lacking([LOGGERS[name][0] for name in names]):
        raise UserError(f"--log-to {' '.join(names)}: {said}")


class Listeners:
    """The programs in `names`, told of the epochs in `history`, which grows.

    One that fails is left out from then on, with a warning.
    """

    def __init__(self, names: Sequence[str], run: Run, history: Sequence[Mapping]) -> None:
        self.names, self.run, self.history = names, run, history
        self.opened: dict[str, Opened] = {}

    def begin(self) -> None:
        """Open each, and tell it of epochs it does not know; UserError where one cannot begin."""
        file = self.run.file("logged.json")
        try:
            known = json.loads(file.read_text()) if self.run.resumes and file.exists() else {}
        except ValueError as error:
            raise UserError(
                f"{file}: damaged ({error}). Delete it: a new run begins there."
            ) from None
        for name in self.names:
            try:
                self.opened[name] = LOGGERS[name][1](self.run, known.get(name))
            except Exception as error:  # of kinds of their own
                raise UserError(f"--log-to {name}: {error}. Or do without it.") from None
            known[name] = self.opened[name].key
        write_text(file, json.dumps(known) + "\n")
        for epoch, values in enumerate(self.history, start=1):
            self._write(epoch, values)

    def tell(self) -> None:
        """Of the last epoch."""
        self._write(len(self.history), self.history[-1])

    def close(self) -> None:
        """Close each."""
        for name in list(self.opened):
            self._try(name, self.opened[name].close)

    def _write(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, opened in list(self.opened.items()):
            if epoch > opened.epochs:
                self._try(name, partial(opened.write, epoch, values))

    def _try(self, name: str, what: Callable[[], Any]) -> None:
        try:
            what()
        except Exception as error:
            log.warning("%s is no longer told of this training: %s", name, error)
            del self.opened[name]
