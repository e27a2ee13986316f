"""The real scripts, ended at chosen moments and started again: results as of one uninterrupted run.

Ended means that the rename of a file never happens and nothing after it does, as in a kill.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cls_predict
import cls_train
import keras
import numpy as np
import pytest
import seg_predict
import seg_train
from quickly import draw_nothing, run_eagerly
from same_results import contents

from misc_utils import command_line, files

pytestmark = pytest.mark.usefixtures("blank_charts")

TRAIN = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--batch-size", 8)
# the encoder's moving averages are enough
SEG = (*TRAIN, "--no-batch-norm", "--num-folds", 2, "--plateau-patience", 1, "--epochs", 3)
# dropout: the state of its random numbers has to go on as well
CLS = (*TRAIN, "--num-folds", 2, "--epochs", 3, "--lesion-view", "whole", "--dropout", 0.3)
# and so does the average of the weights
CLS = (*CLS, "--average-weights", 0.9, "--weight-decay", 0.01, "--mix", "cutmix")
RUNS = Path(__file__).resolve().parents[1] / "runs"


class Killed(BaseException):
    """Nothing in the product catches it."""


@pytest.fixture
def kill_at(monkeypatch):
    """The n-th file whose name ends so is not renamed, and all ends there; None: never."""
    replace, left = os.replace, {}

    def deadly(source, target):
        if left and str(target).endswith(left["ending"]):
            left["number"] -= 1
            if not left["number"]:
                left.clear()
                raise Killed
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", deadly)

    def kill_at(ending, number=1):
        left.update(ending=ending, number=number)

    return kill_at


def killed(script, *flags):
    """Run a script in this process until it is killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
        with pytest.raises(Killed):
            command_line.run(script.main, script.Settings, script.__doc__)


# Starts one after the other: each ends at the rename of the n-th file whose name ends so, or,
# where flags are given in place of a number, when all they ask for is done.
CHAINS = {
    "seg": [
        ("--folds", 0, "--epochs", 1),  # more epochs go on as if asked for at once
        ("settings.json", 2),  # the fold would have been finished
        ("k1_v0_state.npz", 1),  # no epoch is whole: it starts anew
        ("k1_v0.weights.h5", 1),  # of the first epoch, which the state holds already
    ],
    "cls": [("_state.npz", 2), ("logits_fold.npy", 1), ("k1_v0.csv", 2)],
}


@pytest.mark.parametrize(
    ("script", "flags", "name"), [(seg_train, SEG, "seg"), (cls_train, CLS, "cls")]
)
def test_training_in_pieces_ends_as_if_in_one(
    script, flags, name, root, run_script, kill_at, caplog, eagerly
):
    caplog.set_level("INFO")

    def start(*more):
        keras.utils.clear_session()  # layers are named anew, as in a process of its own
        code, _, err = run_script(script, *flags, *more)
        assert code == 0, err
        return contents(root / "model_data")

    expected = start()
    assert sum(file.endswith(".h5") for file in expected) == 2
    shutil.rmtree(root / "model_data")
    for ending, *rest in CHAINS[name]:
        if ending.startswith("--"):
            start(ending, *rest)
        else:
            keras.utils.clear_session()
            kill_at(ending, *rest)
            killed(script, *flags)
    found = start()
    assert found.keys() == expected.keys()
    for file in expected:
        assert found[file] == expected[file], file
    caplog.clear()
    assert start() == expected and caplog.text.count("finished already") == 2


def test_patience_ends_where_it_would_have_without_a_kill(
    root, run_script, kill_at, caplog, eagerly
):
    """With a learning rate of nothing the first epoch stays the best: two more, and it stops."""
    caplog.set_level("INFO")
    flags = (*SEG[:-2], "--folds", 0, "--epochs", 9, "--patience", 2, "--learning-rate", 1e-30)
    assert run_script(seg_train, *flags)[0] == 0
    assert "stops after epoch 3, by --patience" in caplog.text
    expected = contents(root / "model_data")
    shutil.rmtree(root / "model_data")
    keras.utils.clear_session()
    kill_at("k0_v0.csv", 3)  # of the last epoch
    killed(seg_train, *flags)
    keras.utils.clear_session()
    assert run_script(seg_train, *flags)[0] == 0
    assert contents(root / "model_data") == expected
    caplog.clear()
    assert run_script(seg_train, *flags)[0] == 0 and "finished already" in caplog.text
    code, _, err = run_script(seg_train, *flags, "--patience", 3)
    assert code == 1 and "patience 2 then, 3 now" in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_data):
    """A root with one fold of each task trained for an epoch."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(drawn_data, root / "data")
    with pytest.MonkeyPatch.context() as patch, run_eagerly():
        patch.setenv("ISIC_ROOT", str(root))
        draw_nothing(patch)
        fold = {"backbone": "tiny", "weights": "none", "image_size": 32, "epochs": 1, "folds": (0,)}
        seg_train.main(seg_train.Settings(**fold))
        cls_train.main(cls_train.Settings(**fold, lesion_view="whole"))
    return root


PREDICTIONS = {
    "masks": (
        seg_predict,
        ("mask", "--backbone", "tiny", "--task", 1, "--pred-set", "test", "--batch-size", 2),
        [("_segmentation.png", 1), ("_segmentation.png", 4), ("task1_test_progress.jsonl", 1)],
    ),
    "crops": (
        seg_predict,
        ("--backbone", "tiny", "--pred-set", "test", "--batch-size", 3),
        [(".png", 5), ("crops.csv", 1), ("task3_test_crops.json", 1)],
    ),
    "classes": (
        cls_predict,
        ("--backbone", "tiny", "--batch-size", 3),
        [("submission.csv", 1), ("task3_test_submission.json", 2), ("index.html", 1)],
    ),
}


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_killed_prediction_ends_as_if_it_had_not_been(
    kind, trained, tmp_path, run_script, kill_at, monkeypatch
):
    script, flags, chain = PREDICTIONS[kind]
    roots = tmp_path / "whole", tmp_path / "killed"
    for root in roots:
        shutil.copytree(trained, root)
    monkeypatch.setenv("ISIC_ROOT", str(roots[0]))
    assert run_script(script, *flags)[0] == 0
    expected = contents(roots[0] / "submissions")
    monkeypatch.setenv("ISIC_ROOT", str(roots[1]))
    for ending, number in chain:
        kill_at(ending, number)
        killed(script, *flags)
    code, out, err = run_script(script, *flags)
    assert code == 0, err
    assert "are there already" in out or "are classified already" in out
    found = contents(roots[1] / "submissions")
    assert found.keys() == expected.keys()
    for file in expected:
        assert found[file] == expected[file], file


def test_a_spoilt_mask_is_made_again_and_no_other(trained, tmp_path, run_script, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(trained, root)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    flags = PREDICTIONS["masks"][1]
    assert run_script(seg_predict, *flags)[0] == 0
    masks = sorted((root / "submissions" / "task1_test").iterdir())
    before = {mask: (mask.read_bytes(), mask.stat().st_ino) for mask in masks}
    masks[1].write_bytes(before[masks[1]][0][:-50])  # as a power failure may leave it
    masks[3].unlink()
    code, out, _ = run_script(seg_predict, *flags)
    assert code == 0 and f"{len(masks) - 2} of {len(masks)} are there already" in out
    for mask in masks:
        assert mask.read_bytes() == before[mask][0]
        assert (mask.stat().st_ino == before[mask][1]) is (mask not in (masks[1], masks[3]))


def test_changed_images_are_predicted_anew(trained, tmp_path, run_script, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(trained, root)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    flags = PREDICTIONS["masks"][1]
    assert run_script(seg_predict, *flags)[0] == 0
    first, second = sorted((root / "data" / "ISIC2018_Task1-2_Test_Input").glob("*.jpg"))[:2]
    first.write_bytes(second.read_bytes())
    code, out, _ = run_script(seg_predict, *flags)
    assert code == 0 and "already" not in out
    made = [
        root / "submissions" / "task1_test" / f"{i.stem}_segmentation.png" for i in (first, second)
    ]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_result_that_another_process_writes_is_left_to_it(trained, run_script, monkeypatch):
    monkeypatch.setenv("ISIC_ROOT", str(trained))
    for kind, name in (("masks", "task1_test"), ("classes", "task3_test_submission.csv")):
        script, flags, _ = PREDICTIONS[kind]
        with files.locked(trained / "submissions", name):
            code, _, err = run_script(script, *flags)
        assert code == 1 and "another process is writing it" in err
        assert not (trained / "submissions" / name).exists()


def start(root, script, *flags):
    command = [sys.executable, str(RUNS / script), *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | {"ISIC_ROOT": str(root)}, **pipes)


def test_a_signal_ends_training_after_the_batch(root):
    """What stands is the last whole epoch."""
    process = start(root, "seg_train.py", *SEG[:-2], "--folds", 0, "--epochs", 5000)
    run = root / "model_data" / "task1_tiny_k0_v0"
    history = run / f"{run.name}.csv"
    while not history.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert "ended by SIGTERM; repeat the command to resume" in said
    assert "Traceback" not in said
    state = json.loads(str(np.load(run / f"{run.name}_state.npz")["progress"]))
    assert len(history.read_text().splitlines()) == 1 + len(state["history"])
    assert not list(root.rglob(f"{files.PARTIAL}*"))


def test_four_processes_at_once_on_one_root(root):
    flags = (*TRAIN, "--no-batch-norm", "--num-folds", 4, "--epochs", 1)
    processes = [start(root, "seg_train.py", *flags, "--folds", k) for k in range(4)]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    built = [line for text in said for line in text.splitlines() if ": building it" in line]
    assert len(built) == 2  # images and masks, once each
    runs = sorted((root / "model_data").glob("task1_*"))
    assert [json.loads((run / "settings.json").read_text())["finished"] for run in runs] == [
        True
    ] * 4
