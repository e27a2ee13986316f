"""Programs that are told of each epoch; a training that resumes goes on where it was."""

import json
import sys
import types
from dataclasses import replace
from types import SimpleNamespace

import pytest
import seg_train

from misc_utils.errors import UserError
from training import loggers
from training.run_folder import Run

TINY = {"backbone": "tiny", "weights": "none", "image_size": 32, "num_folds": 2, "folds": (0,)}
TINY |= {"batch_size": 7}

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")


@pytest.fixture
def told(monkeypatch):
    """A program of one's own: {key: {epoch: values}}; it cannot be opened while its key is None."""
    found = {}

    def opened(run, key):
        key = key or f"key{len(found)}"
        epochs = found.setdefault(key, {})

        def write(epoch, values):
            assert epoch not in epochs
            epochs[epoch] = values

        return loggers.Opened(write, lambda: epochs.setdefault("closed", 0), key, len(epochs))

    monkeypatch.setitem(loggers.LOGGERS, "mlflow", ("json", opened))
    return found


def test_each_epoch_is_told_once_also_after_a_resume(root, told):
    settings = TINY | {"log_to": ("mlflow",)}
    seg_train.main(seg_train.Settings(**settings, epochs=2))
    (epochs,) = told.values()
    assert list(epochs) == [1, 2, "closed"]
    assert {"loss", "val_loss", "jaccard", "val_jaccard", "learning_rate"} <= set(epochs[1])
    del epochs["closed"]
    seg_train.main(seg_train.Settings(**settings, epochs=3))
    assert list(epochs) == [1, 2, 3, "closed"] and len(told) == 1
    seg_train.main(seg_train.Settings(**settings, epochs=1, overwrite=True))
    assert list(told["key1"]) == [1, "closed"]
    # it shapes nothing, so that it may change
    seg_train.main(seg_train.Settings(**TINY, epochs=2))


def run_in(folder, **settings):
    record = {"task": 1, "k_fold": 0, "finished": False, "settings": settings}
    return Run(folder, record)


def test_one_that_fails_is_left_out_and_the_others_go_on(tmp_path, told, monkeypatch, caplog):
    def fails(run, key):
        def write(epoch, values):
            raise OSError("no room")

        return loggers.Opened(write, lambda: None)

    monkeypatch.setitem(loggers.LOGGERS, "wandb", ("json", fails))
    run = run_in(tmp_path, backbone="tiny", version="0")
    history = []
    listeners = loggers.Listeners(["wandb", "mlflow"], run, history)
    listeners.begin()
    for k in range(2):
        history.append({"loss": 1.0 / (k + 1)})
        listeners.tell()
    listeners.close()
    assert told == {"key0": {1: {"loss": 1.0}, 2: {"loss": 0.5}, "closed": 0}}
    assert caplog.text.count("wandb is no longer told of this training: no room") == 1


def test_one_that_cannot_begin_is_said(tmp_path, monkeypatch):
    def fails(run, key):
        raise RuntimeError("no account")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", ("json", fails))
    run = run_in(tmp_path, backbone="tiny", version="0")
    with pytest.raises(UserError, match="--log-to wandb: no account"):
        loggers.Listeners(["wandb"], run, []).begin()


def test_a_damaged_list_of_what_was_told_is_named(tmp_path):
    run = replace(run_in(tmp_path, backbone="tiny", version="0"), resumes=True)
    run.file("logged.json").write_text("{")
    with pytest.raises(UserError, match=r"logged\.json: damaged .* Delete it"):
        loggers.Listeners([], run, []).begin()


class Store:
    """As a client of MLflow, while another process makes the experiment."""

    def __init__(self, there, refuses):
        self.there, self.refuses = there, refuses

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.there else None

    def create_experiment(self, name):
        self.there = self.there or self.refuses == "as it is there"
        if self.refuses:
            raise RuntimeError(self.refuses)
        return "8"


def test_two_trainings_that_begin_at_once_have_one_experiment():
    assert loggers._experiment(Store(True, ""), "name") == "7"
    assert loggers._experiment(Store(False, ""), "name") == "8"
    assert loggers._experiment(Store(False, "as it is there"), "name") == "7"
    with pytest.raises(RuntimeError, match="no room"):
        loggers._experiment(Store(False, "no room"), "name")


def test_a_package_that_is_missing_is_said_before_any_work(root, monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "wandb", ("not_there", None))
    with pytest.raises(
        UserError, match=r"not_there must be installed: .* -m pip install not_there"
    ):
        seg_train.main(seg_train.Settings(**TINY, epochs=1, log_to=("wandb",)))
    assert not (root / "model_data").exists() and not (root / "data/cache").exists()


def test_tensorboard_is_written_anew(tmp_path, monkeypatch):
    made = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder, self.scalars = folder, []
            made.append(self)

        def add_scalar(self, *scalar):
            self.scalars.append(scalar)

        def flush(self):
            pass

        def close(self):
            self.scalars.append("closed")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    run = run_in(tmp_path, backbone="tiny", version="0")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "old").touch()
    history = [{"loss": 2.0}]
    listeners = loggers.Listeners(["tensorboard"], run, history)
    listeners.begin()
    history.append({"loss": 1.0})
    listeners.tell()
    listeners.close()
    assert made[0].folder == str(tmp_path / "tensorboard")
    assert made[0].scalars == [("loss", 2.0, 1), ("loss", 1.0, 2), "closed"]
    assert not (tmp_path / "tensorboard").exists()
    assert json.loads(run.file("logged.json").read_text()) == {"tensorboard": None}
