"""What can be wrong in model_data/ and submissions/: one message that names it and the mend.

All but caches is afterwards as it was before. What can be made again is made again.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cls_eval
import cls_predict
import cls_train
import numpy as np
import pytest
import seg_eval
import seg_predict
import seg_train
from PIL import Image
from quickly import draw_nothing

from misc_utils import command_line

pytestmark = pytest.mark.usefixtures("blank_charts")

TINY = ("--backbone", "tiny")
TRAIN = (*TINY, "--weights", "none", "--image-size", 32, "--epochs", 1, "--folds", 0)
WHOLE = (*TRAIN, "--lesion-view", "whole")
MASK = ("mask", "--task", 1, *TINY, "--pred-set", "test")
IMAGES = "data/ISIC2018_Task1-2_Training_Input"
RUN, CLASSIFIER = "task1_tiny_k0_v0", "task3_tiny_k0_v0"
WEIGHTS, SETTINGS = f"{RUN}/{RUN}.weights.h5", f"{RUN}/settings.json"
FOLDS, TUNED = f"{RUN}/folds.csv", "task1_tiny_v0/task1_tiny_v0_tuned.json"
CROPS, RECORD = "task3_training_crops", "task3_training_crops.json"


class Case(NamedTuple):
    """A refusal: what is spoiled, the script that meets it, and a pattern of its message."""

    spoil: Callable[[Path], str | None]  # gives what the message must name
    script: Any
    flags: tuple
    message: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_data):
    """A root with a trained net of each task, and crops."""
    root = tmp_path_factory.mktemp("trained") / "root"
    shutil.copytree(drawn_data, root / "data", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISIC_ROOT", str(root))
        draw_nothing(patch)
        for script, flags in ((seg_train, TRAIN), (seg_predict, TINY), (cls_train, WHOLE)):
            patch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
            command_line.run(script.main, script.Settings, script.__doc__)
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "root", symlinks=True)
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def edited(name, change, folder="model_data"):
    """A spoiler: `change` gives the new bytes of a file from those of before."""

    def spoil(root):
        file = root / folder / name
        file.write_bytes(change(file.read_bytes()))
        return str(file)

    return spoil


def written(name, text):
    """A spoiler: a file with this text, made if need be; {weights} becomes those there are."""

    def spoil(root):
        from training import run_folder

        file = root / "model_data" / name
        file.parent.mkdir(exist_ok=True)
        run = run_folder.read_run(root / "model_data" / SETTINGS)
        hashes = json.dumps({RUN: run_folder.weights_hash(run)})
        file.write_text(text.replace("{weights}", hashes))
        return str(file)

    return spoil


def half(old):
    return old[: len(old) // 2]


def empty(old):
    return b""


def other_net(root):
    edited(SETTINGS, replace(rb'"deconv"', b'"subpixel"'))(root)
    return str(root / "model_data" / WEIGHTS)


def replace(old, new):
    return lambda content: re.sub(old, new, content, count=1)


def crops(change):
    return edited(f"{CROPS}/crops.csv", change, "submissions")


def copy_a_run(root):
    shutil.copytree(root / "model_data" / RUN, root / "model_data" / "copy")
    return str(root / "model_data" / "copy")


def crop_row(column, value):
    """A spoiler of one number in row 3 of crops.csv."""

    def change(old):
        lines = old.decode().splitlines()
        values = lines[3].split(",")
        values[lines[0].split(",").index(column)] = value
        return "\n".join([*lines[:3], ",".join(values), *lines[4:], ""]).encode()

    return crops(change)


def a_crop(change):
    def spoil(root):
        file = sorted((root / "submissions" / CROPS).glob("*.png"))[2]
        change(file)
        return file.stem

    return spoil


def cut_image(file):
    file.write_bytes(half(file.read_bytes()))


def drop_weights_of_other(root):
    (root / "model_data" / WEIGHTS).unlink()


def as_it_is(root):
    pass


def flip_an_image(root):
    file = sorted((root / IMAGES).glob("*.jpg"))[0]
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)


def table_of_nobody(root):
    file = root / "submissions" / "task3_test_submission.csv"
    file.write_text("image,MEL\n")
    return str(file)


def tuned_text(**changes):
    chosen = {"member_weights": [1.0], "smoothing": 1.0, "threshold": 0.5}
    content = {"format": 1, "weights": 0, "chosen": chosen | changes, "worth": {}}
    return json.dumps(content).replace('"weights": 0', '"weights": {weights}')


EVAL = (seg_eval, TINY)
PREDICT = (seg_predict, MASK)
CROPPED = (cls_train, (*TRAIN, "--version", "crops"))
SETTINGS_OF = "cannot be read as the settings of a run"
CASES = {
    # weights
    "weights cut in half": Case(edited(WEIGHTS, half), *PREDICT, "cut off|damaged"),
    "weights of zero bytes": Case(edited(WEIGHTS, empty), *PREDICT, "cut off|damaged"),
    "weights that are text": Case(edited(WEIGHTS, lambda old: b"404"), *PREDICT, "cut off|damaged"),
    "weights missing": Case(drop_weights_of_other, *EVAL, "no weights yet"),
    "weights of another architecture": Case(
        other_net, seg_eval, (*TINY, "--tta"), "not the weights of"
    ),
    # settings and split of a run
    "settings of another format": Case(
        edited(SETTINGS, replace(rb'"format": 1', b'"format": 99')), *EVAL, "format 99, expected 1"
    ),
    "settings cut": Case(edited(SETTINGS, half), *EVAL, SETTINGS_OF),
    "settings of zero bytes": Case(edited(SETTINGS, empty), *PREDICT, SETTINGS_OF),
    "settings that are a list": Case(edited(SETTINGS, lambda old: b"[]"), *EVAL, SETTINGS_OF),
    "settings that are no text": Case(edited(SETTINGS, lambda old: b"\xff\0"), *EVAL, SETTINGS_OF),
    "settings cut, training again": Case(edited(SETTINGS, half), seg_train, TRAIN, SETTINGS_OF),
    "settings without image size": Case(
        edited(SETTINGS, replace(rb'"image_size": 32,', b"")), *EVAL, SETTINGS_OF
    ),
    "settings without fingerprint": Case(
        edited(SETTINGS, replace(rb'"data_fingerprint"', b'"other"')), *EVAL, SETTINGS_OF
    ),
    "folds.csv cut": Case(edited(FOLDS, half), *EVAL, "Restore"),
    "folds.csv without its last line": Case(
        edited(FOLDS, lambda old: b"".join(old.splitlines(True)[:-1])), *EVAL, "Restore"
    ),
    "folds.csv of zero bytes": Case(edited(FOLDS, empty), *EVAL, "Restore"),
    "folds.csv with an image twice": Case(
        edited(FOLDS, lambda old: old + old.splitlines()[1] + b"\n"), *EVAL, "Restore"
    ),
    "folds.csv without a number": Case(
        edited(FOLDS, replace(rb"(ISIC_\d+),\d", rb"\1,")), *PREDICT, "Restore"
    ),
    "folds.csv of words": Case(
        edited(FOLDS, replace(rb"(ISIC_\d+),\d", rb"\1,one")), *PREDICT, "Restore"
    ),
    "folds.csv without a column": Case(edited(FOLDS, replace(rb"fold", b"part")), *EVAL, "Restore"),
    "folds.csv missing": Case(
        lambda root: (root / "model_data" / FOLDS).unlink(), *EVAL, "folds.csv.*Restore"
    ),
    "a copy of a run": Case(copy_a_run, *EVAL, "both hold the run task1_tiny_k0_v0"),
    "other images than trained with": Case(flip_an_image, *EVAL, "trained on other images"),
    # crops
    "crops.csv with nan": Case(crop_row("top", "nan"), *CROPPED, "overwrite"),
    "crops.csv with nothing": Case(crop_row("width", ""), *CROPPED, "overwrite"),
    "crops.csv with words": Case(crop_row("left", "ten"), *CROPPED, "overwrite"),
    "crops.csv with half a pixel": Case(crop_row("top", "0.5"), *CROPPED, "overwrite"),
    "negative box": Case(crop_row("top", "-1"), *CROPPED, "overwrite"),
    "box too large": Case(crop_row("width", "5000"), *CROPPED, "leaves its source.*overwrite"),
    "box of no width": Case(crop_row("width", "0"), *CROPPED, "leaves its source.*overwrite"),
    "id that leaves the folder": Case(
        crop_row("image", "../../secret"), *CROPPED, "not an image id.*overwrite"
    ),
    "crops.csv with an image twice": Case(
        crops(lambda old: old + old.splitlines()[1] + b"\n"), *CROPPED, "overwrite"
    ),
    "crops.csv cut": Case(crops(half), *CROPPED, "overwrite"),
    "crops.csv of zero bytes": Case(crops(empty), *CROPPED, "overwrite"),
    "crops.csv of other columns": Case(
        crops(replace(rb"lesion_pixels", b"area")), *CROPPED, "expected the columns"
    ),
    "a crop deleted": Case(a_crop(Path.unlink), *CROPPED, "no crop of"),
    "a crop of zero bytes": Case(a_crop(lambda file: file.write_bytes(b"")), *CROPPED, "empty"),
    "a crop cut": Case(a_crop(cut_image), *CROPPED, "damaged or cut off"),
    "record of the crops cut": Case(
        edited(RECORD, half, "submissions"), *CROPPED, "cannot be read as the record"
    ),
    "record of the crops cut, made again": Case(
        edited(RECORD, half, "submissions"), seg_predict, TINY, "cannot be read as the record"
    ),
    "record of the crops without its parts": Case(
        edited(RECORD, lambda old: b"{}", "submissions"), *CROPPED, "cannot be read as the record"
    ),
    "a table that nobody made": Case(
        table_of_nobody, cls_predict, TINY, "what made it is unknown.*--overwrite"
    ),
    # tuned values
    "tuned values cut": Case(written(TUNED, '{"format'), *PREDICT, r"Tune again \(.*seg_tune\.py"),
    "tuned values empty": Case(written(TUNED, ""), *PREDICT, r"Tune again \(.*seg_tune\.py"),
    "tuned values that are a list": Case(
        written(TUNED, "[]"), *PREDICT, r"Tune again \(.*seg_tune\.py"
    ),
    "tuned threshold NaN": Case(
        written(TUNED, tuned_text(threshold=float("nan"))), *PREDICT, r"Tune again \(.*seg_tune\.py"
    ),
    "tuned threshold 2": Case(written(TUNED, tuned_text(threshold=2)), *PREDICT, "threshold"),
    "tuned weight NaN": Case(
        written(TUNED, tuned_text(member_weights=[float("nan")])),
        *PREDICT,
        r"Tune again \(.*seg_tune\.py",
    ),
    "tuned weights of two members": Case(
        written(TUNED, tuned_text(member_weights=[0.5, 0.5])),
        *PREDICT,
        r"Tune again \(.*seg_tune\.py",
    ),
    "tuned for other weights": Case(
        written(TUNED, tuned_text().replace("{weights}", '{"other": "0"}')),
        *PREDICT,
        r"Tune again \(.*seg_tune\.py",
    ),
    # flags that meet a trained net
    "threshold 2": Case(as_it_is, seg_predict, (*MASK, "--threshold", 2), "hreshold.* 2"),
    "threshold nan": Case(as_it_is, seg_eval, (*TINY, "--threshold", "nan"), "hreshold"),
    "smoothing -1": Case(as_it_is, seg_eval, (*TINY, "--smoothing", -1), "moothing.* -1"),
    "margin -1": Case(as_it_is, seg_predict, (*TINY, "--margin", -1), "argin.* -1"),
    "fold that was not trained": Case(as_it_is, cls_eval, (*TINY, "--k-fold", 3), "fold 3"),
}


def results(root):
    """Every file of model_data/ and submissions/, and a hash of its content."""
    found = {}
    for folder in ("model_data", "submissions"):
        for file in (root / folder).rglob("*"):
            if file.is_file() and ".locks" not in file.parts:
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_all_as_before(case, root, run_script):
    spoil, script, flags, message = CASES[case]
    named = spoil(root)
    before = results(root)
    code, _, err = run_script(script, *flags)
    assert code == 1, err
    assert "Traceback" not in err
    assert re.search(message, err, re.S), err
    assert named is None or named in err, err
    assert results(root) == before
    assert not [file for file in root.rglob("*") if "partial" in file.name]


LOGITS = f"{RUN}_logits_fold"
MADE_AGAIN = {
    "kept predictions cut": (f"{LOGITS}.npy", half),
    "kept predictions of zero bytes": (f"{LOGITS}.npy", empty),
    "record of kept predictions cut": (f"{LOGITS}.json", half),
    "record of kept predictions that is a list": (f"{LOGITS}.json", lambda old: b"[]"),
}


@pytest.mark.parametrize("case", MADE_AGAIN)
def test_what_is_damaged_is_predicted_again(case, root, run_script):
    name, change = MADE_AGAIN[case]
    before = np.load(root / "model_data" / RUN / f"{LOGITS}.npy")
    file = edited(f"{RUN}/{name}", change)(root)
    code, _, err = run_script(*EVAL[:1], *TINY)
    assert code == 0, err
    assert Path(file).stat().st_size > 2
    np.testing.assert_allclose(
        np.load(root / "model_data" / RUN / f"{LOGITS}.npy"), before, atol=0.02
    )


def test_a_cut_state_is_named(root, run_script):
    file = Path(edited(f"{RUN}/{RUN}_state.npz", half)(root))
    code, _, err = run_script(seg_train, *TRAIN, "--epochs", 2)
    assert code == 1 and str(file) in err and "--overwrite" in err and "Traceback" not in err


def test_a_run_that_is_there_is_not_trained_over(root, run_script):
    weights = root / "model_data" / WEIGHTS
    before = weights.read_bytes()
    other = (*TRAIN, "--seed", 7)
    code, _, err = run_script(seg_train, *other)
    assert code == 1 and "seed 42 then, 7 now" in err
    assert "--overwrite" in err and "--version" in err
    assert weights.read_bytes() == before
    assert run_script(seg_train, *other, "--overwrite")[0] == 0
    assert weights.read_bytes() != before


def test_a_link_in_place_of_a_result_leads_nowhere(root, run_script):
    """What a link leads to is not written over."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    folder = root / "submissions" / CROPS
    shutil.rmtree(folder)
    os.symlink(outside, folder)
    code, _, err = run_script(seg_predict, *TINY, "--overwrite")
    assert code == 0, err
    assert [file.name for file in outside.iterdir()] == ["kept.txt"]
