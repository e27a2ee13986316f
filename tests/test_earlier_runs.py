"""Runs, caches, kept predictions and results made by earlier code are read as they were then.

`earlier_runs.tar.xz` holds a root on which every script ran at commit 142e8e3 (TensorFlow 2.21,
Keras 3.15; 14 drawn lesions, tiny nets at 32 px), less what can be made again: pictures, pages,
the state of all runs but one. Of the weights all but three bits of each mantissa were cleared after
training, so that they can be compressed. `resumed.csv` is the history of that run after one epoch
more, by the same code.
"""

import json
import logging
import shutil
import tarfile
from pathlib import Path

import cls_eval
import cls_predict
import cls_train
import cls_tune
import keras
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_predict
import seg_tune
from same_results import contents

from evaluation import tuned

pytestmark = pytest.mark.usefixtures("blank_charts")

ARCHIVE = Path(__file__).with_name("earlier_runs.tar.xz")
SAME_BACKEND = keras.backend.backend() == "tensorflow"  # else the last bits of logits differ


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def root(unpacked, tmp_path, monkeypatch):
    """A copy of the root, named by ISIC_ROOT."""
    shutil.copytree(unpacked, tmp_path / "root")
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, index_col=0)


def flat(value, name: str = "") -> dict[str, float]:
    """All numbers of a JSON file by where they stand; nan for null, text left out."""
    if isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in pairs for k, v in flat(part, f"{name}.{key}").items()}
    return {} if isinstance(value, str) else {name: float("nan") if value is None else float(value)}


def test_kept_predictions_and_caches_give_the_same_scores(root, no_nets, caplog):
    model_data, caplog.records[:] = root / "model_data", []
    files = {
        model_data / "task1_tiny_k0_v0" / "task1_tiny_k0_v0_scores_fold": 0.510109895349,
        model_data / "task3_tiny_v0" / "task3_tiny_v0_scores_fold": 0.134920634921,
    }
    before = {file: (json.loads(file.with_suffix(".json").read_text())) for file in files}
    tables = {file: table(file.with_suffix(".csv")) for file in files}
    with caplog.at_level(logging.INFO):
        jaccard = seg_eval.main(seg_eval.Settings("tiny"))["jaccard"]
        balanced = cls_eval.main(cls_eval.Settings("tiny", k_fold="all"))["balanced_accuracy"]
    assert [jaccard, balanced] == pytest.approx(list(files.values()))
    assert caplog.text.count("building it") == 2  # caches are of another version, data the same
    for file, then in before.items():
        now = json.loads(file.with_suffix(".json").read_text())
        assert now["weights"] == then["weights"]
        same = [
            flat({key: part for key, part in of.items() if key != "settings"}) for of in (now, then)
        ]
        assert same[0] == pytest.approx(same[1], nan_ok=True)
        found = table(file.with_suffix(".csv"))  # earlier code wrote no lesions of Task 1
        pd.testing.assert_frame_equal(found[tables[file].columns], tables[file])


def test_tuning_again_chooses_the_same(root, no_nets, monkeypatch):
    """Apart from a gain, which was not asked for then."""
    monkeypatch.setattr(tuned, "keep_gain", lambda worth, _, chosen, __: (chosen, worth, ""))
    for script, name in ((seg_tune, "task1_tiny_v0"), (cls_tune, "task3_tiny_v0")):
        file = root / "model_data" / name / f"{name}_tuned.json"
        then = json.loads(file.read_text())
        extra = {"decision_weights": True} if script is cls_tune else {}
        script.main(script.Settings("tiny", **extra))
        now = json.loads(file.read_text())
        assert now["weights"] == then["weights"]
        assert now["chosen"].get("component") == then["chosen"].get("component")
        expected, found = flat(then), flat(now)
        found = {name: found[name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6, nan_ok=True)


def test_finished_results_are_left_as_they_are(root, no_nets):
    before = contents(root / "submissions")
    seg_predict.main(seg_predict.Settings(backbone="tiny"))
    cls_predict.main(cls_predict.Settings("tiny", browse=False))
    after = contents(root / "submissions")
    assert {name for name in after if name not in before} == {"task3_training_crops_examples.png"}
    assert all(after[name] == part for name, part in before.items())


def test_nets_predict_the_same_again(root):
    submissions = root / "submissions"
    crops = submissions / "task3_test_crops" / "crops.csv"
    then = {"crops": table(crops), "classes": table(submissions / "task3_test_submission.csv")}
    seg_predict.main(seg_predict.Settings(backbone="tiny", pred_set="test", overwrite=True))
    cls_predict.main(cls_predict.Settings("tiny", browse=False, overwrite=True))
    now = {"crops": table(crops), "classes": table(submissions / "task3_test_submission.csv")}
    assert list(now["crops"].index) == list(then["crops"].index)
    assert now["crops"].to_numpy() == pytest.approx(then["crops"].to_numpy(), abs=2)
    assert list(now["classes"].index) == list(then["classes"].index)
    np.testing.assert_allclose(now["classes"], then["classes"], atol=1e-4)


@pytest.mark.skipif(not SAME_BACKEND, reason="training resumes with the backend it began with")
def test_training_resumes(root):
    settings = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8}
    settings |= {"workers": 1, "precision": "float32", "num_folds": 2, "learning_rate": 3e-3}
    cls_train.main(cls_train.Settings(**settings, folds=(0,), epochs=7))
    history = root / "model_data" / "task3_tiny_k0_v0" / "task3_tiny_k0_v0.csv"
    expected = table(root / "resumed.csv")
    assert len(table(history)) == len(expected) == 7
    np.testing.assert_allclose(table(history), expected, rtol=1e-3)
