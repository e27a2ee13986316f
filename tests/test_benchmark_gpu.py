"""That benchmarks/gpu.py measures, and that its counting and extrapolating are right."""

import json
import sys

import gpu
import keras
import numpy as np
import pytest
import torch_nets

from misc_utils.errors import UserError

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="its steps are those of jax")


@on_jax
def test_part_speed(tmp_path, run_script):
    out = tmp_path / "rows.json"
    flags = ["--nets", "tiny", "--image-size", 32, "--batch-size", 4]
    flags += ["--repetitions", 2, "--steps", 2, "--precision", "float32", "--out", out]
    code, said, wrong = run_script(gpu, "--part", "speed", *flags)
    assert code == 0, wrong
    content = json.loads(out.read_text())
    kinds = ["training with fit", "prediction", "arithmetic of the training step"]
    assert [row["what"].split(", tiny")[0] for row in content["rows"]] == kinds
    for row in content["rows"]:
        numbers = [*row["ours"], *row["reference_measured"], row["ratio"]]
        assert len(row["ours"]) == len(row["reference_measured"]) == 2
        assert np.isfinite(numbers).all() and min(numbers) > 0
        assert said.count(f"| {row['what']}") == 2  # at once, and in the table
    assert [row["target"] for row in content["rows"]] == ["<= 1.05", None, None]
    (compiled,) = [remark for remark in content["remarks"] if remark.startswith("tiny: first step")]
    assert float(compiled.split()[-2]) > 0


@on_jax
def test_the_bare_step_trains_on_and_leaves_the_net_usable():
    settings = gpu.Settings(image_size=32, batch_size=4)
    trained = gpu.Trained("tiny-classifier", settings, steps=2)
    assert len(trained.batch) == 3  # the class weights are part of the step
    before = trained.model.optimizer.iterations.numpy()
    assert before == 2  # one epoch
    assert trained.train(3) > 0
    assert trained.model.optimizer.iterations.numpy() == before + 3
    trained.fit()
    assert trained.model.optimizer.iterations.numpy() == before + 5
    assert trained.predict(1) > 0
    logits = trained.logits.predict_on_batch(trained.images[:4])
    assert logits.shape == (4, 7) and np.isfinite(logits).all()
    # one counts what is over the edge, the other Adam, loss and metrics
    flop, how = gpu.count_flop(trained)
    assert "cost analysis" in how
    assert 0.7 < flop / (3 * 4 * gpu.forward_flop(trained.model)) < 1.3


def test_flop_by_hand():
    layers, zeros = keras.layers, {"kernel_initializer": "zeros"}  # soon built
    model = keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            # 4 x 5 places, kernel 3 x 3 x 3 x 5
            layers.Conv2D(5, 3, strides=2, padding="same", **zeros),
            layers.BatchNormalization(),
            # 4 x 5 places, kernel 2 x 2 x 2 x 5
            layers.Conv2DTranspose(2, 2, strides=2, **zeros),
            # 6 x 8 places, kernel 3 x 3 x 2
            layers.DepthwiseConv2D(3, depthwise_initializer="zeros"),
            # 6 x 8 places, kernels of 2 and of 2 x 4
            layers.SeparableConv2D(
                4, 1, depthwise_initializer="zeros", pointwise_initializer="zeros"
            ),
            layers.Flatten(),
            layers.Dense(7, **zeros),  # 192 x 7 weights
        ]
    )
    places = 20 * 135 + 20 * 40 + 48 * 18 + 48 * 2 + 48 * 8 + 192 * 7
    assert gpu.forward_flop(model) == 2 * places


def test_five_folds_from_one():
    """Start 10 s, first epoch 20 s, later ones 2 s, 6 s to end."""
    one = [gpu.FoldTimes(10, [30, 32, 34])]
    assert gpu.whole_time(one, 40, epochs=3, num_folds=1) == 40
    assert gpu.whole_time(one, 40, epochs=35, num_folds=1) == 40 + 32 * 2
    assert gpu.whole_time(one, 40, epochs=35, num_folds=5) == 40 + 64 + 4 * (70 + 6)


def test_a_second_fold_tells_what_lies_between_two():
    two = [gpu.FoldTimes(10, [30, 32, 34]), gpu.FoldTimes(37, [39, 41, 43])]
    assert gpu.whole_time(two, 50, epochs=3, num_folds=2) == 50
    assert gpu.whole_time(two, 50, epochs=4, num_folds=3) == 50 + 2 * 2 + (4 * 2 + 3)


def test_files_tell_the_times_of_a_training(tmp_path):
    """The history gets its head with its first row; a fold that never began has no times."""
    code = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
run.mkdir()
(run / "settings.json").write_text("{}")
with (run / "one.csv").open("w") as history:
    for line in ("epoch,loss\\n0,1\\n", "1,1\\n"):
        time.sleep(0.3)
        history.write(line)
        history.flush()
time.sleep(0.3)
"""
    runs = [tmp_path / "one", tmp_path / "two"]
    running = gpu.subprocess.Popen([sys.executable, "-c", code, str(runs[0])])
    (times,), ended = gpu.watch_files(running, runs)
    first, second = times.epochs
    assert 0 < times.begun < first < second < ended
    assert second - first == pytest.approx(0.3, abs=0.2)


def test_what_is_left_out_is_said():
    settings = gpu.Settings(nets=("vgg16", "tiny"), minutes=0)
    clock = iter([0.0, 0.0, 5.0, 5.0])

    def measure(net):
        yield f"{net} measured"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu.time, "monotonic", lambda: next(clock))
        said = list(gpu.each_net(settings, measure))
    assert said[0] == "vgg16 measured" and said[1].startswith("tiny: left out")


def test_mistakes_a_person_can_mend(tmp_path):
    with pytest.raises(UserError, match="tiny: PyTorch's side has no such net"):
        list(gpu.torch(gpu.Settings(nets=("vgg16", "tiny"))))
    with pytest.raises(UserError, match="--epochs 1"):
        list(gpu.folds(gpu.Settings(epochs=1)))


def test_a_package_that_pytorch_s_side_lacks_is_named(tmp_path, monkeypatch):
    """The worker's Python has PyTorch no more than its folder of packages says."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no', name='segmentation_m')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with torch_nets.reference(sys.executable, "vgg16", 32, 1, "float32") as theirs:
        with pytest.raises(UserError, match=r"has no segmentation_m\. Bring its wheel"):
            gpu.wait_for(theirs, sys.executable)
    assert theirs.process.returncode is not None
