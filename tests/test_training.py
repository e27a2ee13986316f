import csv
import math
import subprocess
from functools import partial

import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models.weights import load_weights, save_weights
from training import environment, fit, run_folder
from training.state import Progress, load_state, save_state


class Still:
    def set_epoch(self, epoch):
        pass


def make_run(folder, **settings):
    plateau = {"plateau_factor": 0.5, "plateau_patience": 2, "min_learning_rate": 3e-4}
    settings = {"monitor": "val_loss", "schedule": "plateau"} | plateau | settings
    (folder / "run").mkdir(exist_ok=True)
    settings |= {"backbone": "tiny", "version": "0"}
    return run_folder.Run(folder / "run", {"task": 1, "k_fold": 0, "settings": settings})


def best_of(folder, values, monitor):
    run, progress, saved = make_run(folder, monitor=monitor), Progress(), []
    keep = fit.KeepEpoch(run, progress, [], lambda file: saved.append(progress.epochs - 1))
    for epoch, value in enumerate(values):
        keep.on_epoch_end(epoch, {monitor: value})
    return saved, progress.best_epoch, progress.best


def test_the_best_weights_by_the_monitored_value_are_kept(tmp_path):
    monitor = "val_threshold_jaccard"
    assert best_of(tmp_path, [0.5, 0.7, 0.6, 0.7, 0.8], monitor) == ([0, 1, 4], 4, 0.8)
    assert best_of(tmp_path, [0.5, 0.7, 0.4], "val_loss") == ([0, 2], 2, 0.4)
    assert best_of(tmp_path, [0.0, 0.0], monitor) == ([0], 0, 0.0)


def test_the_state_is_written_before_the_weights_and_the_history(tmp_path):
    """Else a kill between them would leave weights of an epoch that never was."""
    run, there = make_run(tmp_path), []

    def save(file):
        there.append((run.state.exists(), run.history.exists()))

    keep = fit.KeepEpoch(run, Progress(), [], save)
    keep.on_epoch_end(0, {"val_loss": 1.0})
    assert there == [(True, False)] and run.history.exists()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_training(wrong):
    fit.StopOnNaN().on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    with pytest.raises(UserError, match=r"epoch 3: val_loss.*learning-rate"):
        fit.StopOnNaN().on_epoch_end(2, {"loss": 1.0, "val_loss": wrong})


def test_cosine_rises_then_falls_to_zero():
    rate = fit.build_optimizer(1e-3, "cosine", 1000)._learning_rate
    values = [float(rate(step)) for step in (0, 50, 525, 1000)]
    assert values == pytest.approx([0, 1e-3, 5e-4, 0], abs=1e-6)


def test_weights_decay_but_for_biases_and_norms():
    """AdamW takes learning rate * decay of a weight that has no gradient."""
    layers = [keras.Input((2,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    model = keras.Sequential(layers)
    model.compile(fit.build_optimizer(0.1, "plateau", 0, weight_decay=0.5), "mse")
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.optimizer.apply(
        [keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables
    )
    for variable in model.trainable_variables:
        factor = 0.95 if variable.name == "kernel" else 1.0
        assert variable.numpy() == pytest.approx(factor * before[variable.path])
    assert type(fit.build_optimizer(0.1, "plateau", 0)) is keras.optimizers.Adam


def test_the_average_of_the_weights_is_scored_and_saved(tmp_path):
    """One weight w, loss w: each step of Adam moves it by the learning rate, from 1 on."""
    x, y = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    optimizer = fit.build_optimizer(0.1, "plateau", 0, average_weights=0.5)
    model.compile(optimizer, loss=lambda truth, said: keras.ops.mean(said))
    averaged, file, weights = fit.Averaged(model), tmp_path / "a.weights.h5", []
    save_average = averaged.saving(partial(save_weights, model))

    def save(epoch, logs):
        save_average(file)
        weights.append(float(layer.kernel.numpy()[0, 0]))

    callbacks = [averaged, keras.callbacks.LambdaCallback(on_epoch_end=save)]
    history = model.fit(
        x, y, batch_size=2, validation_data=(x, y), epochs=2, callbacks=callbacks, verbose=0
    )
    # weights .9 .8 | .7 .6; their average: .9, then half of the way each time
    assert weights == pytest.approx([0.8, 0.6], abs=1e-4)
    assert history.history["val_loss"] == pytest.approx([0.85, 0.6875], abs=1e-4)
    layer.kernel.assign([[0.0]])
    load_weights(model, file)
    assert float(layer.kernel.numpy()[0, 0]) == pytest.approx(0.6875, abs=1e-4)


def flat_model():
    x, y = np.zeros((4, 2), np.float32), np.ones((4, 1), np.float32)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, trainable=False)])
    model.compile(fit.build_optimizer(1e-3, "plateau", 8), "mse")
    model.optimizer.build(model.trainable_variables)
    return model, x, y


def rates_of(folder, epochs):
    """Learning rates where val_loss stays flat; `epochs`: when each of the processes ends."""
    run = make_run(folder)
    for number in epochs:
        model, x, y = flat_model()
        variables, progress = model.optimizer.variables, Progress()
        if run.state.exists():
            progress = load_state(run.state, variables)
        callbacks = fit.build_callbacks(
            Still(), run, progress, variables, lambda file: file.touch()
        )
        first = progress.epochs
        model.fit(
            x,
            y,
            initial_epoch=first,
            epochs=number,
            validation_data=(x, y),
            callbacks=callbacks,
            verbose=0,
        )
    rows = list(csv.DictReader(run.history.open()))
    assert [row["epoch"] for row in rows] == list("0123456")
    return [float(row["learning_rate"]) for row in rows]


@pytest.mark.parametrize("ends", [[7], [3, 7], [1, 2, 4, 5, 7]])
def test_plateau_lowers_the_rate_in_force_and_history_tells(tmp_path, ends):
    """Flat from the start: after two epochs without progress 5e-4, then the floor; resumed too."""
    rates = rates_of(tmp_path, ends)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 3e-4])


def test_a_state_that_does_not_fit_is_refused_whole(tmp_path):
    model, *_ = flat_model()
    variables, file = model.optimizer.variables, tmp_path / "state.npz"
    save_state(file, variables, Progress(history=[{"loss": 0.1}], best=0.1, best_epoch=0))
    assert load_state(file, variables).history == [{"loss": 0.1}]
    with pytest.raises(UserError, match=r"state\.npz: .*--overwrite"):
        load_state(file, variables[:-1])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"state\.npz: .*--overwrite"):
        load_state(file, variables)


def test_the_commit_and_whether_files_were_changed_since(tmp_path):
    def git(*words):
        user = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *user, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert environment.git_commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "-am", "a tag", "v1")  # must not be named instead
    commit = git("rev-parse", "HEAD")
    (tmp_path / "new").write_text("not part of the code")
    assert environment.git_commit(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert environment.git_commit(tmp_path) == f"{commit}+"


def test_the_epoch_that_is_better_by_another_score_is_named():
    rows = [{"val_loss": 3.0, "val_score": 0.2}, {"val_loss": 1.0, "val_score": 0.3}]
    rows += [{"val_loss": 2.0, "val_score": 0.45}]
    progress = Progress(history=rows, best=1.0, best_epoch=1)
    line = "  by score epoch 3 was better: 0.450; --monitor val_score keeps that one\n"
    assert progress.better_by("val_score") == line
    rows[2]["val_score"] = 0.3
    assert progress.better_by("val_score") == ""
