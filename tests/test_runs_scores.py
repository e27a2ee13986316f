"""Kept predictions, ensembles, tuning, reports, comparisons: the real scripts on drawn lesions."""

import json
import logging
import re
import shutil

import cls_eval
import cls_predict
import cls_train
import cls_tune
import cls_views
import compare
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_predict
import seg_train
import seg_tune
from PIL import Image
from quickly import draw_nothing

from evaluation import calibration, scores, tuned
from inference import ensemble
from inference.scope import Scope
from misc_utils.errors import UserError
from training import run_folder
from training.loop import Plan

pytestmark = pytest.mark.usefixtures("blank_charts")

TINY = {"backbone": "tiny", "weights": "none", "image_size": 64, "batch_size": 8, "workers": 2}
SEG = TINY | {"num_folds": 2, "epochs": 3, "learning_rate": 5e-3}
CLS = TINY | {"num_folds": 2, "epochs": 1, "learning_rate": 5e-3, "lesion_view": "whole"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, drawn_data):
    """A root with two trainings of both tasks, of two folds each; copy it before changing it."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(drawn_data, root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISIC_ROOT", str(root))
        draw_nothing(patch)
        seg_train.main(seg_train.Settings(**SEG))
        other = {"version": "b", "image_size": 32, "batch_norm": False, "epochs": 1}
        seg_train.main(seg_train.Settings(**SEG | other))
        cls_train.main(cls_train.Settings(**CLS))
        cls_train.main(cls_train.Settings(**CLS | {"version": "b", "image_size": 32}))
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A copy of it, named by ISIC_ROOT."""
    shutil.copytree(trained, tmp_path / "root")
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def test_training_keeps_what_is_scored_afterwards(root, no_nets):
    for script in (seg_eval, cls_eval):
        for k_fold in (0, 1, "all"):
            script.main(script.Settings("tiny", k_fold=k_fold))
    with pytest.raises(AssertionError, match="net was loaded"):
        seg_eval.main(seg_eval.Settings("tiny", tta=True))


def test_all_folds_together_are_the_mean_of_their_images(root):
    means = [seg_eval.main(seg_eval.Settings("tiny", k_fold=k)) for k in range(2)]
    every = seg_eval.main(seg_eval.Settings("tiny", k_fold="all"))
    sizes = [
        json.loads(file.read_text())["images"]
        for file in sorted((root / "model_data").glob("task1_tiny_k?_v0/*_scores_fold.json"))
    ]
    for measure in ("jaccard", "threshold_jaccard", "dice", "accuracy", "sensitivity"):
        pooled = np.average([mean[measure] for mean in means], weights=sizes)
        assert every[measure] == pytest.approx(pooled)
    folder = root / "model_data" / "task1_tiny_v0"
    scores = json.loads((folder / "task1_tiny_v0_scores_fold.json").read_text())
    low, high = scores["intervals_95"]["jaccard"]
    assert low < scores["jaccard"] < high
    assert (folder / "task1_tiny_v0_report_fold.html").exists()


def test_masks_of_the_training_set_are_those_that_were_scored(root, no_nets):
    """seg_predict writes what seg_eval scored: each image by the net that held it out."""
    seg_eval.main(seg_eval.Settings("tiny", k_fold="all"))
    seg_predict.main(seg_predict.Settings("mask", "tiny", task=1, pred_set="training"))
    runs = ensemble.find_ensemble(root / "model_data", 1, "tiny", "0")
    table = scores.read_scores(Scope(runs, "fold", False))[1]
    for image_id, row in table.iterrows():
        name = f"{image_id}_segmentation.png"
        masks = [
            np.asarray(Image.open(folder / name)) > 128
            for folder in (
                root / "data" / "ISIC2018_Task1_Training_GroundTruth",
                root / "submissions" / "task1_training",
            )
        ]
        jaccard = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert row["jaccard"] == pytest.approx(jaccard)


def test_ensembles_of_two_sizes(root, run_script):
    """Evaluated, tuned and used for prediction; their values hold for their weights alone."""
    both = ("--backbone", "tiny", "--ensemble", "tiny:b")
    code, out, _ = run_script(seg_eval, *both, "--k-fold", "all")
    assert code == 0 and "task1_tiny_v0+tiny_vb on 28 images (folds 0, 1, held out)" in out
    assert re.search(r"^fold 1: jaccard 0\.\d{3}", out, re.M)
    code, out, _ = run_script(seg_tune, *both)
    assert code == 0 and "weight of tiny:b" in out and "tuned on other folds" in out
    file = root / "model_data/task1_tiny_v0+tiny_vb/task1_tiny_v0+tiny_vb_tuned.json"
    content = json.loads(file.read_text())
    worth = {name: rows["threshold_jaccard"]["value"] for name, rows in content["worth"].items()}
    same = next(name for name in worth if name.endswith(" on the same"))  # tuned, or only tried
    assert worth[same] >= worth["not tuned"] - 0.02
    assert sum(content["chosen"]["member_weights"]) == pytest.approx(1)

    code, out, _ = run_script(seg_eval, *both, "--k-fold", "all")
    report = file.with_name("task1_tiny_v0+tiny_vb_report_fold.html").read_text()
    assert code == 0 and "tuned on other folds" in report
    code, _, err = run_script(seg_eval, *both, "--k-fold", "all", "--tuned")
    assert code == 1 and "too high" in err
    code, out, _ = run_script(seg_eval, *both, "--k-fold", "all", "--eval-set", "test", "--tuned")
    assert code == 0 and "the test set" in out

    flags = ("mask", *both, "--task", 1, "--pred-set", "test")
    code, out, _ = run_script(seg_predict, *flags)
    assert code == 0 and "tuned values" in out
    record = json.loads((root / "submissions" / "task1_test.json").read_text())
    assert record["made_by"]["settings"]["tuned"] == content["chosen"]
    code, _, err = run_script(seg_predict, *flags, "--no-tuned")
    assert code == 1 and "something different" in err
    weights = run_folder.find_runs(root / "model_data", 1, "tiny", "b", [1])[0].weights
    shutil.copy(run_folder.find_runs(root / "model_data", 1, "tiny", "b", [0])[0].weights, weights)
    code, _, err = run_script(seg_predict, *flags, "--overwrite")
    assert code == 1 and "Tune again" in err
    assert run_script(seg_eval, *both, "--k-fold", "all")[0] == 0  # scored again, with a note
    assert "is of other weights than there are now" in file.with_name("MODEL_CARD.md").read_text()
    report = file.with_name("task1_tiny_v0+tiny_vb_report_fold.html").read_text()
    assert "tuned on other folds" not in report and "Tune again" in report


def test_one_fold_alone_is_tuned_in_parts(root, run_script):
    shutil.rmtree(root / "model_data" / "task1_tiny_k1_v0")
    code, out, _ = run_script(seg_tune, "--backbone", "tiny")
    assert code == 0 and "a single fold: split into five parts" in out


def test_without_a_gain_on_other_folds_the_defaults_stay(root, run_script):
    """Decision weights of a dozen images never do anything for other images."""
    code, out, _ = run_script(cls_tune, "--backbone", "tiny", "--decision-weights")
    assert code == 0 and "balanced accuracy did not gain on other folds beyond its interval" in out
    assert "tried on other folds" in out and "temperature: 1.000" in out
    file = next((root / "model_data").glob("*/task3_tiny_v0_tuned.json"))
    content = json.loads(file.read_text())
    chosen = {"member_weights": [1.0], "temperature": 1.0, "decision_weights": None}
    assert content["chosen"] == chosen
    assert content["worth"]["tuned on other folds"] == content["worth"]["not tuned"]


def test_classes_tuned_and_predicted(root, run_script, monkeypatch):
    monkeypatch.setattr(tuned, "keep_gain", lambda worth, _, chosen, __: (chosen, worth, ""))
    both = ("--backbone", "tiny", "--ensemble", "tiny:b")
    code, out, _ = run_script(cls_eval, *both, "--k-fold", "all")
    assert code == 0 and "with a temperature fitted on other folds" in out
    assert re.search(r"^balanced accuracy +0\.\d{3} +0\.\d{3} to 0\.\d{3}$", out, re.M)
    code, out, _ = run_script(cls_tune, *both, "--decision-weights")
    assert code == 0 and "temperature: " in out and "decision weights: MEL" in out
    code, out, _ = run_script(cls_predict, *both)
    assert code == 0 and "tuned values (" in out
    submissions = root / "submissions"
    table = pd.read_csv(submissions / "task3_test_submission.csv").set_index("image")
    as_json = json.loads((submissions / "task3_test_classes.json").read_text())
    assert [row["image"] for row in as_json["images"]] == table.index.tolist()
    for row in as_json["images"]:
        assert row["probability"] == pytest.approx(table.loc[row["image"]].to_dict())
        assert row["class"] == table.loc[row["image"]].idxmax()
    assert table.sum(axis=1).to_numpy() == pytest.approx(1)
    page = (submissions / "task3_test_browse" / "index.html").read_text()
    assert all(image_id in page for image_id in table.index)
    plain = ("--no-tuned", "--overwrite", "--no-browse")
    assert run_script(cls_predict, *both, *plain)[0] == 0
    untuned = pd.read_csv(submissions / "task3_test_submission.csv").set_index("image")
    assert not np.allclose(untuned, table)


def test_one_image_is_enough_to_be_scored(root, run_script):
    for script in (seg_eval, cls_eval):
        code, out, _ = run_script(script, "--backbone", "tiny", "--limit", 1)
        assert code == 0 and "on 1 images" in out and "temperature" not in out


def test_out_of_fold_classes_are_those_that_were_scored(root, no_nets):
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all"))
    cls_predict.main(cls_predict.Settings("tiny", pred_set="training", browse=False))
    nets = ensemble.find_ensemble(root / "model_data", 3, "tiny", "0")
    scored = scores.read_scores(Scope(nets, "fold", False))[1]
    table = pd.read_csv(root / "submissions" / "task3_training_submission.csv").set_index("image")
    assert table.to_numpy() == pytest.approx(scored.loc[table.index, table.columns].to_numpy())


def test_classes_are_tuned_by_the_labels_that_are_scored(root, monkeypatch, caplog):
    """A label may have been corrected since the training."""
    file = root / "data/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
    table = pd.read_csv(file).set_index("image")
    first = table.index[0]
    before = table.loc[first].to_numpy().argmax()
    table.loc[first] = np.eye(7)[(before + 1) % 7]
    table.to_csv(file)
    seen, fit = [], calibration.fit_blend

    def noted(log_probability, truth):
        seen.append(truth)
        return fit(log_probability, truth)

    monkeypatch.setattr(calibration, "fit_blend", noted)
    cls_tune.main(cls_tune.Settings("tiny"))
    assert seen[0][sorted(table.index).index(first)] == (before + 1) % 7  # of all folds together
    # where that table is no longer there, by those of then
    (file.parent / file.name).write_text("image\nx\n")
    seen.clear()
    cls_tune.main(cls_tune.Settings("tiny"))
    assert seen[0][sorted(table.index).index(first)] == before
    assert "Tuned by the labels of then" in caplog.text


@pytest.mark.parametrize("task", [1, 3])
def test_trainings_are_compared_on_the_same_images(root, run_script, task):
    script = seg_eval if task == 1 else cls_eval
    flags = ("tiny:0", "tiny:b", "tiny:0+tiny:b", "--task", task)
    code, _, err = run_script(compare, *flags)
    assert code == 1 and f"runs/{script.__name__}.py --backbone tiny" in err
    for more in (("--version", 0), ("--version", "b"), ("--ensemble", "tiny:b")):
        assert run_script(script, "--backbone", "tiny", "--k-fold", "all", *more)[0] == 0
    code, out, _ = run_script(compare, *flags)
    measure = "jaccard" if task == 1 else "balanced accuracy"
    assert code == 0 and f"tiny:b - tiny:0: {measure} " in out
    (file,) = (root / "model_data" / "comparisons").glob("*.html")
    assert "tiny:0+tiny:b" in file.read_text()
    code, _, err = run_script(compare, "tiny:0", "--task", task)
    assert code == 1 and "two different" in err
    if task == 1:
        other = ("--backbone", "tiny", "--k-fold", "all", "--version", "b", "--threshold", 0.9)
        assert run_script(script, *other)[0] == 0
        code, _, err = run_script(compare, *flags[:2], *flags[3:])
        assert code == 1 and "threshold 0.5" in err and "0.9" in err
        assert run_script(script, *other[:-2])[0] == 0
    table = root / "model_data" / f"task{task}_tiny_vb" / f"task{task}_tiny_vb_scores_fold.csv"
    before = table.read_text()
    scores = pd.read_csv(table)
    changed = {"truth": scores["truth"].shift()} if task == 3 else {"lesion_share": 0.5}
    scores.assign(**changed).to_csv(table, index=False)
    code, _, err = run_script(compare, *flags[:2], *flags[3:])
    assert code == 1 and "were scored with another truth" in err
    table.write_text(before)
    limited = ("--version", "b", "--limit", 5)
    assert run_script(script, "--backbone", "tiny", "--k-fold", "all", *limited)[0] == 0
    code, _, err = run_script(compare, *flags[:2], *flags[3:])
    assert code == 1 and "without --limit" in err


@pytest.mark.parametrize("script", [seg_eval, cls_eval, seg_tune, cls_tune])
def test_other_folds_are_refused_with_both_fingerprints(root, run_script, script):
    task = 1 if script in (seg_eval, seg_tune) else 3
    run = run_folder.find_runs(root / "model_data", task, "tiny", "b", [0])[0]
    folds = run_folder.load_folds(run)
    if task == 3:  # a lesion stays whole
        moved = folds["lesion"] == folds["lesion"][0]
        folds.loc[moved, "fold"] = 1 - folds["fold"][0]
    else:
        folds.loc[0, "fold"] = 1 - folds["fold"][0]
    before = run_folder.folds_fingerprint(run_folder.load_folds(run))[:12]
    folds.to_csv(run.folder / "folds.csv", index=False)
    record = run.record | {"folds_fingerprint": run_folder.folds_fingerprint(folds)}
    run_folder.write_record(run_folder.Run(run.folder, record))  # as if trained with that split
    after = run_folder.folds_fingerprint(folds)[:12]
    flags = ("--k-fold", "all") if script in (seg_eval, cls_eval) else ()
    code, _, err = run_script(script, "--backbone", "tiny", "--ensemble", "tiny:b", *flags)
    assert code == 1 and "different folds" in err and before in err and after in err


def plan_of(root, version):
    settings = cls_train.Settings("tiny", version=version)
    return Plan(root / "model_data", 3, settings, (0,), {})


def test_views_are_compared_in_one_command(root, run_script, caplog):
    seg_predict.main(seg_predict.Settings(backbone="tiny"))
    quick = CLS | {"folds": 0}
    train = {f"--train.{name.replace('_', '-')}": value for name, value in quick.items()}
    del train["--train.lesion-view"]
    flags = ["--views", "whole", "crop"]
    for flag, value in train.items():
        flags += [flag, value]
    code, out, _ = run_script(cls_views, *flags)
    assert code == 0 and "tiny:0-crop - tiny:0-whole: balanced accuracy" in out
    versions = {run.settings["version"] for run in run_folder.list_runs(root / "model_data", 3)}
    assert {"0-whole", "0-crop"} <= versions
    folds = {
        run_folder.folds_fingerprint(run_folder.load_folds(run))
        for run in run_folder.list_runs(root / "model_data", 3)
    }
    assert len(folds) == 1
    with caplog.at_level(logging.INFO):
        code, _, _ = run_script(cls_views, *flags)
    assert code == 0 and caplog.text.count("finished already, nothing to do") == 2
    code, _, err = run_script(cls_views, *flags, "--train.batch-size", 3)
    assert code == 1 and "batch_size" in err and "3 now" in err
    run = run_folder.find_runs(root / "model_data", 3, "tiny", "0-crop", [0])[0]
    run_folder.write_record(run_folder.Run(run.folder, run.record | {"finished": False}))
    with pytest.raises(UserError, match="0-crop is being trained by another process"):
        cls_views.check_finished(plan_of(root, "0-crop"))
    with pytest.raises(UserError, match="9-crop is being trained"):  # not begun yet
        cls_views.check_finished(plan_of(root, "9-crop"))


def test_views_without_crops_name_the_command(root):
    with pytest.raises(UserError, match=r"seg_predict\.py"):
        cls_views.main(cls_views.Settings(train=cls_train.Settings(**CLS)))


@pytest.mark.parametrize("monitor", ["val_loss", "val_balanced_accuracy"])
def test_a_better_epoch_by_the_measure_of_the_challenge_is_said(root, run_script, monitor):
    flags = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--num-folds", 1)
    flags = (*flags, "--lesion-view", "whole", "--epochs", 4, "--learning-rate", 1e-2)
    flags = (*flags, "--batch-size", 8, "--version", "m", "--monitor", monitor)
    code, out, _ = run_script(cls_train, *flags)
    assert code == 0
    folder = root / "model_data" / "task3_tiny_k0_vm"
    table = pd.read_csv(folder / "task3_tiny_k0_vm.csv")["val_balanced_accuracy"]
    kept = json.loads((folder / "settings.json").read_text())["best"]["val_balanced_accuracy"]
    better = f"epoch {table.argmax() + 1} was better: {table.max():.3f}"
    assert (better in out) is bool(table.max() > kept)
    assert monitor == "val_loss" or better not in out
