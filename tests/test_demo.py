"""The demo's steps and what it says; nothing is drawn or trained."""

import importlib
import json
import re
import shlex

import demo  # isort: skip  (the script; a folder of that name may be there or not)
import pytest
import tyro

import paths
from misc_utils.errors import UserError

SCRIPTS = ["seg_train", "seg_eval", "seg_tune", "seg_predict"]
SCRIPTS += ["cls_train", "cls_eval", "cls_tune", "cls_predict", "predict", "export"]
RUNS = {"task1_tiny_v0": {"jaccard": 0.8}, "task3_tiny_v0": {"balanced_accuracy": 0.5}}


def parsed(settings):
    """Script and Settings of each step, by the script's own command line."""
    for _, script, *flags in demo.plan_steps(settings):
        name = script.removesuffix(".py")
        yield name, tyro.cli(importlib.import_module(name).Settings, args=flags)


def write_scores(root, runs=RUNS):
    for run, scores in runs.items():
        folder = root / "model_data" / run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{run}_scores_fold.json").write_text(json.dumps(scores))


@pytest.fixture
def quick_demo(monkeypatch, tmp_path):
    """The demo with scripts that do nothing and scores that are just enough; (drawn, run)."""
    drawn, run = [], []
    monkeypatch.setattr("datasets.synthetic.draw_dataset", lambda *a, **k: drawn.append((a, k)))
    monkeypatch.setattr(
        demo.subprocess,
        "run",
        lambda command, cwd, env: (
            run.append((command, cwd, env["ISIC_ROOT"])) or demo.subprocess.CompletedProcess([], 0)
        ),
    )
    monkeypatch.setattr("deploy.onnx_file.PACKAGES", ())
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    write_scores(tmp_path)
    return drawn, run


def test_every_step_is_a_command_its_script_understands():
    settings = demo.Settings(
        image_size=64, num_folds=3, segmentation_epochs=5, classification_epochs=6, seed=7
    )
    steps = list(parsed(settings))
    assert {name for name, _ in steps} == set(SCRIPTS)
    for name, given in steps:
        if name == "predict":
            assert given.overwrite and "data/ISIC2018_Task3_Validation_Input" in given.images[0]
            continue
        if name == "export":
            assert given.overwrite
            continue
        assert given.backbone == "tiny" and given.version == "0"
        if name.endswith("_eval"):
            assert given.k_fold == "all" and given.eval_set == "fold"  # as check_scores reads
        elif not name.endswith("_tune"):
            assert given.overwrite  # the demo can be run again
    for name, epochs in (("seg_train", 5), ("cls_train", 6)):
        train = dict(steps)[name]
        assert (train.image_size, train.num_folds, train.seed) == (64, 3, 7)
        assert train.epochs == epochs and train.weights == "none" and train.folds == "all"
    assert dict(steps)["cls_train"].lesion_view == "crop"
    assert dict(steps)["cls_predict"].pred_set == "test"


def test_crops_and_masks_are_made_before_they_are_needed():
    steps = list(parsed(demo.Settings()))
    made = [(s.output, s.task, s.pred_set) for name, s in steps if name == "seg_predict"]
    assert made == [("crops", 3, "training"), ("crops", 3, "test"), ("mask", 1, "test")]
    order = list(dict.fromkeys(name for name, _ in steps))
    assert order == SCRIPTS


def test_the_demo_says_what_it_runs_and_what_is_left(quick_demo, tmp_path, capsys):
    drawn, run = quick_demo
    root = tmp_path / "my demo"
    write_scores(root)
    scores = demo.main(demo.Settings(root=root, lesions=30, seed=2))
    assert scores == {"jaccard": 0.8, "balanced_accuracy": 0.5}
    assert drawn == [((root / "data",), {"lesions": 30, "seed": 2})]
    said = capsys.readouterr().out
    steps = re.findall(r"^\[(\d+)/13\] [A-Z]", said, re.MULTILINE)
    assert steps == [str(number) for number in range(1, 14)]
    assert f"\n$ export ISIC_ROOT='{root}'\n" in said
    printed = [
        shlex.split(line)[1:] for line in re.findall(r"^\$ (python3 .*)", said, re.MULTILINE)
    ]
    assert printed == [command[1:] for command, _, _ in run] and len(run) == 12
    assert {where[1:] for where in run} == {(paths.repository, str(root))}
    for name in ("task1_test", "task3_training_crops", "task3_test_submission.csv", *RUNS):
        assert re.search(rf"^  .*{re.escape(str(root))}/.*{name}", said, re.MULTILINE)


def test_where_nets_cannot_be_exported_it_is_said(quick_demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("deploy.onnx_file.PACKAGES", ("onnx", "not_there"))
    demo.main(demo.Settings(root=tmp_path))
    said = capsys.readouterr().out
    assert "[12/12] " in said and "submissions/bundle" not in said
    assert "not exported: not_there must be installed: " in said
    assert quick_demo[1][-1][0][1] == "runs/predict.py"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert "takes TensorFlow" in demo.what_export_lacks()


def test_by_default_all_lands_beside_the_other_folders(monkeypatch, capsys):
    assert demo.Settings().root == paths.repository / "demo"
    monkeypatch.setattr("datasets.synthetic.draw_dataset", lambda *a, **k: None)
    monkeypatch.setattr(demo, "run_script", lambda *a: None)
    monkeypatch.setattr(demo, "check_scores", lambda *a: {})
    demo.main(demo.Settings())
    assert "\n$ export ISIC_ROOT=demo\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "score"),
    [("task1_tiny_v0", {"jaccard": 0.799}), ("task3_tiny_v0", {"balanced_accuracy": 0.499})],
)
def test_too_low_a_score_fails(run, score, tmp_path, quick_demo):
    write_scores(tmp_path, {run: score})
    (name, value), *_ = score.items()
    with pytest.raises(UserError, match=rf"{name.replace('_', ' ')} {value}"):
        demo.main(demo.Settings(root=tmp_path))


def test_a_script_that_fails_ends_the_demo(tmp_path, capfd):
    """The real script, with a flag it refuses."""
    with pytest.raises(UserError, match=r"seg_eval\.py ended with exit code 2"):
        demo.run_script("seg_eval.py", ["--k-fold", "first"], tmp_path)
    assert "--k-fold" in capfd.readouterr().err
