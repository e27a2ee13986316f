"""Trainings that start from a weight file: of which layers, and never from images held out."""

import json
import shutil

import cls_train
import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import seg_train

from misc_utils.errors import UserError
from misc_utils.files import sha256
from models.classifier import build_classifier
from models.unet import build_segmenter
from models.weights import load_matching, save_weights
from training import start

TINY = {"backbone": "tiny", "image_size": 32, "num_folds": 2, "batch_size": 7, "epochs": 1}

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")


def of_layer(model, name):
    return [keras.ops.convert_to_numpy(v.value) for v in model.get_layer(name).weights]


def assert_same(one, other, name):
    pairs = list(zip(of_layer(one, name), of_layer(other, name), strict=True))
    assert pairs
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def segmenter(tmp_path):
    """A U-Net with values of its own, and its file."""
    model = build_segmenter("tiny", image_size=32, weights="none")
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(-1, 1, value.shape) for value in model.get_weights()])
    save_weights(model, tmp_path / "net.weights.h5")
    return model, tmp_path / "net.weights.h5"


def test_a_classifier_takes_the_encoder_of_a_segmenter(segmenter, caplog):
    caplog.set_level("INFO")
    source, file = segmenter
    model = build_classifier("tiny", image_size=64, weights=str(file))
    before = of_layer(model, "fc1")
    start.start_from(model, "tiny", file)
    for level in range(4):
        assert_same(model, source, f"encoder{level}_conv1")
        assert_same(model, source, f"encoder{level}_norm2")  # moving averages too
    np.testing.assert_array_equal(of_layer(model, "fc1")[0], before[0])
    assert f"weights from {file}, but of fc1, logits, which start anew" in caplog.text


def test_layers_of_other_shapes_start_anew(segmenter, caplog):
    caplog.set_level("INFO")
    source, file = segmenter
    model = build_segmenter("tiny", image_size=32, weights="none", channels=5)
    start.start_from(model, "tiny", file)
    assert_same(model, source, "decoder0_conv1")
    assert "but of logits, which start anew" in caplog.text


def test_float16_files_are_taken(segmenter):
    source, file = segmenter
    with h5py.File(file, "r+") as opened:
        names = []
        opened.visit(lambda n: names.append(n) if isinstance(opened[n], h5py.Dataset) else None)
        for name in names:
            value = opened[name][()].astype(np.float16)
            del opened[name]
            opened[name] = value
    model = build_segmenter("tiny", image_size=32, weights="none")
    assert load_matching(model, file, ["encoder0_conv1"]) == []
    np.testing.assert_allclose(
        of_layer(model, "encoder0_conv1")[0], of_layer(source, "encoder0_conv1")[0], atol=1e-3
    )


def test_what_does_not_fit_is_refused_and_nothing_is_set(segmenter, tmp_path):
    _, file = segmenter
    model = build_classifier("unet", image_size=32, weights="none")
    before = model.get_weights()
    with pytest.raises(UserError, match=r"net\.weights\.h5: not of the same backbone as unet_c"):
        start.start_from(model, "unet", file)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot be read as a weight file"):
        start.start_from(model, "unet", file)
    with pytest.raises(UserError, match="no such weight file"):
        start.start_from(model, "unet", tmp_path / "gone.weights.h5")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_trained_from_a_run_of_the_same_fold_alone(trained_root, tmp_path, monkeypatch, run_script):
    root = tmp_path / "root"
    shutil.copytree(trained_root, root)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    monkeypatch.chdir(root)
    name = "task3_tiny_k0_v0"
    file = f"model_data/{name}/{name}.weights.h5"
    flags = ("--backbone", "tiny", "--image-size", 32, "--num-folds", 2, "--epochs", 1)
    flags = (*flags, "--lesion-view", "whole", "--version", "more", "--batch-size", 7)
    code, _, err = run_script(cls_train, *flags, "--weights", file)  # both folds
    assert code == 1 and "which fold 1 holds out: scores would be too good" in err
    assert not list((root / "model_data").glob("*vmore"))
    flags = (*flags, "--folds", 0)
    code, _, err = run_script(cls_train, *flags, "--weights", file, "--learning-rate", 1e-30)
    assert code == 0, err
    record = json.loads((root / "model_data/task3_tiny_k0_vmore/settings.json").read_text())
    assert record["settings"]["weights"] == str(root / file) and len(record["weights_sha256"]) == 64
    # a rate of nothing: it is the net that it started from, but for moving averages
    models = []
    for version in ("0", "more"):
        run = root / f"model_data/task3_tiny_k0_v{version}/task3_tiny_k0_v{version}.weights.h5"
        models.append(build_classifier("tiny", image_size=32, weights="none"))
        models[-1].load_weights(run)
    np.testing.assert_allclose(
        of_layer(models[0], "fc1")[0], of_layer(models[1], "fc1")[0], atol=1e-6
    )
    # it resumes, and not from another file of that name
    code, _, err = run_script(cls_train, *flags, "--weights", file, "--learning-rate", 1e-30)
    assert code == 0, err
    other = root / "model_data/task3_tiny_k1_v0/task3_tiny_k1_v0.weights.h5"
    shutil.copy(other, root / file)
    again = (*flags, "--weights", file, "--learning-rate", 1e-30, "--epochs", 2)
    code, _, err = run_script(cls_train, *again)
    assert code == 1 and "the file that --weights names: " in err
    # the other fold of the same version, from the file of its own fold
    again = (*flags[:-1], 1, "--weights", other, "--learning-rate", 1e-30)
    code, _, err = run_script(cls_train, *again)
    assert code == 0, err
    code, _, err = run_script(cls_train, *flags, "--version", 0, "--weights", file, "--overwrite")
    assert code == 1 and "--overwrite would delete " in err and (root / file).exists()
    another = (*flags, "--version", "another")
    for name, said in (("gone.weights.h5", "no such file"), ("imagnet", "Unknown weights 'imagn")):
        code, _, err = run_script(cls_train, *another, "--weights", name)
        assert code == 1 and said in err
    assert not list((root / "model_data").glob("*vanother"))


def test_what_is_behind_a_file_is_followed_back(trained_root, tmp_path, caplog):
    model_data = tmp_path / "model_data"
    shutil.copytree(trained_root / "model_data", model_data)

    def file(name):
        return model_data / name / f"{name}.weights.h5"

    def started(name, before):
        record = json.loads((model_data / name / "settings.json").read_text())
        record["settings"]["weights"] = str(before)
        record["weights_sha256"] = sha256(before) if before.exists() else "gone"
        (model_data / name / "settings.json").write_text(json.dumps(record))

    first, second = "task3_tiny_k0_v0", "task3_tiny_k1_v0"
    folds = pd.read_csv(model_data / first / "folds.csv", dtype=str).astype({"fold": int})
    start.check_start(file(first), folds, [0], "isic2018")
    started(first, file(second))  # which was trained on what fold 0 holds out
    with pytest.raises(UserError, match="which fold 0 holds out"):
        start.check_start(file(first), folds, [0], "isic2018")
    with pytest.raises(UserError, match="which fold 0 holds out"):
        start.check_start(file(first), folds, [0], "isic2019")  # the same images
    # of lesions too, whatever the ids of the images
    other = folds.assign(image=[f"other{k}" for k in range(len(folds))])
    with pytest.raises(UserError, match="which fold 1 holds out"):
        start.check_start(file(first), other, [1], "isic2018")
    assert "not known" not in caplog.text
    started(first, tmp_path / "somewhere.weights.h5")
    start.check_start(file(first), folds, [0], "isic2018")
    assert f"{tmp_path / 'somewhere.weights.h5'}: not known whether" in caplog.text
    caplog.clear()
    start.check_start(file(first), folds, [0, 1], "folder")  # ids mean something else there
    assert f"{file(first)}: not known whether" in caplog.text
    # trained again since, here from the file that it is behind: not that of then
    started(first, file(second))
    file(second).write_bytes(file(second).read_bytes() + b"more")
    started(second, file(first))
    caplog.clear()
    start.check_start(file(first), folds, [0], "isic2018")
    assert f"{file(second)}: not known whether" in caplog.text


def test_the_smaller_copies_of_isic2019_are_the_same_images(trained_root):
    name = "task1_tiny_k1_v0"
    file = trained_root / "model_data" / name / f"{name}.weights.h5"
    folds = pd.read_csv(file.with_name("folds.csv"), dtype=str).astype({"fold": int})
    renamed = folds.assign(image=folds["image"] + "_downsampled").drop(
        columns="lesion", errors="ignore"
    )
    start.check_start(file, renamed, [1], "isic2019")
    with pytest.raises(UserError, match="which fold 0 holds out"):
        start.check_start(file, renamed, [0], "isic2019")


def test_an_image_and_a_patient_of_the_same_name_are_two_things(trained_root, tmp_path):
    name = "task3_tiny_k0_v0"
    folder = shutil.copytree(trained_root / "model_data" / name, tmp_path / name)
    folds = pd.read_csv(folder / "folds.csv", dtype=str).astype({"fold": int})
    trained = folds.loc[folds["fold"] == 1, "image"].iloc[0]
    other = folds.assign(image=[f"x{k}" for k in range(len(folds))])
    other["lesion"] = [f"y{k}" for k in range(len(folds))]
    other.loc[other.index[0], ["lesion", "fold"]] = trained, 0
    start.check_start(folder / f"{name}.weights.h5", other, [0], "isic2018")


def test_a_segmenter_starts_from_a_segmenter(trained_root, tmp_path, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(trained_root, root)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    file = root / "model_data/task1_tiny_k1_v0/task1_tiny_k1_v0.weights.h5"
    seg_train.main(seg_train.Settings(**TINY, weights=str(file), folds=(1,), version="more"))
