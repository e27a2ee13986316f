import json

import pandas as pd
import pytest
from drawn_results import create_run

from evaluation import scores
from inference import ensemble
from inference.scope import Scope
from misc_utils.errors import UserError
from training import run_folder

FOLDS = pd.DataFrame({"image": list("abcdef"), "fold": [0, 0, 1, 1, 2, 2]})
SETTINGS = {"num_folds": 3, "image_size": 64}


def make_run(
    model_data, backbone, k_fold, version="0", folds=FOLDS, data="data1", task=1, **settings
):
    named = SETTINGS | {"backbone": backbone, "version": version} | settings
    facts = {"data_fingerprint": data, "truth_fingerprint": "truth"}
    run = create_run(model_data, task, k_fold, named, folds, facts)
    run.weights.write_text(run.name)
    return run_folder.finish_run(run, {})


@pytest.fixture
def two_trainings(tmp_path):
    for k in range(3):
        make_run(tmp_path, "vgg16", k)
    for k in range(2):
        make_run(tmp_path, "tiny", k, version="a")
    return tmp_path


def test_folders_and_labels(two_trainings):
    find = ensemble.find_ensemble
    assert find(two_trainings, 1, "vgg16", "0", k_fold=1).folder.name == "task1_vgg16_k1_v0"
    assert find(two_trainings, 1, "vgg16", "0").name == "task1_vgg16_v0"
    nets = find(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    assert nets.name == "task1_tiny_va+vgg16_v0" and nets.labels == ["tiny:a", "vgg16:0"]
    assert nets.name == find(two_trainings, 1, "tiny", "a", ["vgg16:0"]).name  # in any order
    assert len(nets.runs) == 5 and nets.file("x.json").name == f"{nets.name}_x.json"
    both = find(two_trainings, 1, "vgg16", "0", ["tiny:a"], k_fold=0)
    assert both.name == "task1_tiny_k0_va+vgg16_k0_v0"
    assert [run.name for run in both.runs] == ["task1_tiny_k0_va", "task1_vgg16_k0_v0"]
    several = find(two_trainings, 1, "vgg16", "0", k_fold=(2, 0))
    assert several.name == "task1_vgg16_k0-2_v0" and [run.k_fold for run in several.runs] == [0, 2]
    with pytest.raises(UserError, match="fold 7"):
        find(two_trainings, 1, "vgg16", "0", k_fold=(0, 7))


def test_its_flags_name_it_again(two_trainings):
    found = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    flags = ["--backbone", "tiny", "--version", "a", "--ensemble", "vgg16:0"]
    assert found.flags == flags


def test_each_split_is_read_once(two_trainings, monkeypatch):
    read, load = [], run_folder.load_folds
    monkeypatch.setattr(run_folder, "load_folds", lambda run: read.append(run.name) or load(run))
    found = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    ensemble.check_alike(found)
    ensemble.images_to_score(found, "fold", list("abcdef"))
    ensemble.assign_runs(found, list("abcdef"))
    assert sorted(read) == sorted(run.name for run in found.runs)


def test_long_names_are_cut_but_stay_apart(tmp_path):
    versions = [f"{'x' * 40}{k}" for k in range(4)]
    for version in versions:
        make_run(tmp_path, "vgg16", 0, version=version)
    more = [f"vgg16:{version}" for version in versions]
    names = {
        ensemble.find_ensemble(tmp_path, 1, "vgg16", versions[0], [*more[1:3]]).name,
        ensemble.find_ensemble(tmp_path, 1, "vgg16", versions[0], [more[1], more[3]]).name,
    }
    assert len(names) == 2 and all(len(name) <= ensemble.LONGEST_NAME for name in names)


@pytest.mark.parametrize("text", ["vgg16", "vgg16:", ":0", "vgg16:0:1"])
def test_a_run_is_named_with_a_colon(two_trainings, text):
    with pytest.raises(UserError, match="backbone:version"):
        ensemble.find_ensemble(two_trainings, 1, "tiny", "a", [text])


def test_the_same_twice_is_refused(two_trainings):
    with pytest.raises(UserError, match="twice"):
        ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["vgg16:0"])


def test_other_folds_are_refused_with_both_fingerprints(two_trainings):
    other = FOLDS.assign(fold=[0, 1, 1, 0, 2, 2])
    run = make_run(two_trainings, "vgg19", 0, folds=other)
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["vgg19:0"])
    prints = [run_folder.folds_fingerprint(folds)[:12] for folds in (FOLDS, other)]
    with pytest.raises(UserError, match="different folds") as error:
        ensemble.check_alike(nets)
    assert prints[0] != prints[1] and all(one in str(error.value) for one in prints)
    assert run.name in str(error.value)


def test_other_data_or_truth_are_refused_with_both_fingerprints(two_trainings):
    make_run(two_trainings, "vgg19", 0, data="data2")
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["vgg19:0"])
    with pytest.raises(UserError, match=r"different data.*data1.*data2"):
        ensemble.check_alike(nets)
    run = make_run(two_trainings, "vgg19", 0)
    record = run.record | {"truth_fingerprint": "other"}
    (run.folder / "settings.json").write_text(json.dumps(record))
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["vgg19:0"])
    with pytest.raises(UserError, match=r"different truth.*truth.*other"):
        ensemble.check_alike(nets)


def test_other_views_of_the_same_lesions_may_be_blended(tmp_path):
    folds = FOLDS.assign(lesion=list("ABCDEF"), label=[0, 1, 2, 3, 4, 5])
    make_run(tmp_path, "vgg16", 0, "w", folds, "whole", 3, lesion_view="whole")
    make_run(tmp_path, "vgg16", 0, "c", folds, "crops", 3, lesion_view="crop")
    ensemble.check_alike(ensemble.find_ensemble(tmp_path, 3, "vgg16", "w", ["vgg16:c"]))
    make_run(tmp_path, "vgg16", 0, "d", folds, "other crops", 3, lesion_view="crop")
    with pytest.raises(UserError, match="different data"):
        ensemble.check_alike(ensemble.find_ensemble(tmp_path, 3, "vgg16", "c", ["vgg16:d"]))
    seen = {"lesion_view": "whole", "preprocess": ["remove_hair"]}
    make_run(tmp_path, "vgg16", 0, "h", folds, "without hair", 3, **seen)
    ensemble.check_alike(ensemble.find_ensemble(tmp_path, 3, "vgg16", "w", ["vgg16:h"]))
    relabelled = folds.assign(label=[1, 1, 2, 3, 4, 5])
    make_run(tmp_path, "vgg16", 0, "r", relabelled, "whole", 3, lesion_view="whole")
    with pytest.raises(UserError, match="different folds"):
        ensemble.check_alike(ensemble.find_ensemble(tmp_path, 3, "vgg16", "w", ["vgg16:r"]))


def test_scored_are_the_images_that_every_member_held_out(two_trainings):
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    to_score = ensemble.images_to_score(nets, "fold", list("abcdef"))
    assert to_score.of_fold == {0: ["a", "b"], 1: ["c", "d"]} and list(to_score.of_fold) == [0, 1]
    assert to_score.image_ids == list("abcd") and to_score.fold_of["c"] == 1
    assert ensemble.missing_folds(nets) == "; not trained: tiny:a fold 2"
    first = ensemble.images_to_score(nets, "fold", list("abcdef"), lambda ids: ids[:1])
    assert first.of_fold == {0: ["a"], 1: ["c"]}
    assert ensemble.images_to_score(nets, "test", ["z", "y"]).of_fold == {None: ["y", "z"]}
    with pytest.raises(UserError, match="trained on 1 of the images to score, such as e"):
        ensemble.images_to_score(nets, "test", ["e", "y"])
    with pytest.raises(UserError, match="data/ lacks b, d, which the runs held out"):
        ensemble.images_to_score(nets, "fold", list("acef"))


def test_a_fold_in_training_is_named(tmp_path):
    settings = SETTINGS | {"backbone": "vgg16", "version": "0", "num_folds": 1}
    run = create_run(tmp_path, 1, 0, settings, FOLDS, {"data_fingerprint": "d"})
    run.weights.touch()
    nets = ensemble.find_ensemble(tmp_path, 1, "vgg16", "0")
    first, second = ensemble.described(nets, ensemble.assign_runs(nets, ["a", "b", "c"])).split(
        "\n"
    )
    assert first.endswith("; training unfinished: task1_vgg16_k0_v0")
    assert second == "left out, as every run was trained on them: 1 images"


def test_no_common_fold(tmp_path):
    make_run(tmp_path, "vgg16", 0)
    make_run(tmp_path, "tiny", 1)
    nets = ensemble.find_ensemble(tmp_path, 1, "vgg16", "0", ["tiny:0"])
    with pytest.raises(UserError, match="no fold was trained for all"):
        ensemble.images_to_score(nets, "fold", list("abcdef"))


def test_runs_are_assigned_and_weighed(two_trainings):
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    assignment = ensemble.assign_runs(nets, ["a", "c", "e", "new"])
    tiny, vgg = (
        [f"task1_tiny_k{k}_va" for k in range(2)],
        [f"task1_vgg16_k{k}_v0" for k in range(3)],
    )
    assert assignment.groups == {
        (tiny[0], vgg[0]): ["a"],
        (tiny[1], vgg[1]): ["c"],
        (*tiny, *vgg): ["new"],
    }
    assert assignment.left_out == ["e"]  # tiny's net that held it out was not trained
    assert assignment.count == 3
    shares = ensemble.weights_of_runs(nets, [*tiny, *vgg], [1.0, 3.0])
    assert shares == pytest.approx(
        {tiny[0]: 0.5, tiny[1]: 0.5, vgg[0]: 1.0, vgg[1]: 1.0, vgg[2]: 1.0}
    )


def test_an_image_is_predicted_by_the_runs_that_never_saw_it(tmp_path):
    folds = FOLDS.assign(lesion=list("ABCDEF"))
    for k in range(2):
        make_run(tmp_path, "vgg16", k, folds=folds, task=3)
    nets = ensemble.find_ensemble(tmp_path, 3, "vgg16", "0")
    # other photographs of their lesions, one of another, and one that is named as another image
    related = {"a2": {"a", "a2"}, "c2": {"c"}, "e2": {"e"}, "new": {"new"}, "b": set()}
    assignment = ensemble.assign_runs(nets, list(related), related=related)
    k0, k1 = (run.name for run in nets.runs)
    assert assignment.groups == {(k0,): ["a2"], (k1,): ["c2"], (k0, k1): ["new", "b"]}
    assert assignment.left_out == ["e2"]  # its fold was not trained, so both runs saw its lesion
    with pytest.raises(UserError, match=r"no image is left to predict.*each of the 1 images"):
        ensemble.assign_runs(nets, ["e2"], related=related)


def test_scores_are_written_where_the_ensemble_lives(two_trainings):
    nets = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    scope, table = (
        Scope(nets, "fold", False),
        pd.DataFrame({"jaccard": [0.5, 0.7]}, index=["b", "a"]),
    )
    scores.write_scores(scope, {"tta": False}, {"jaccard": 0.6}, table.rename_axis("image"))
    content = json.loads(nets.file("scores_fold.json").read_text())
    assert content["jaccard"] == 0.6 and content["images"] == 2 and len(content["weights"]) == 5
    assert pd.read_csv(nets.file("scores_fold.csv"))["image"].tolist() == ["a", "b"]
    assert len(run_folder.list_runs(two_trainings, 1)) == 5  # its folder is no run
    read, rows = scores.read_scores(scope)
    assert read == content and rows["jaccard"].to_dict() == {"a": 0.7, "b": 0.5}
    command = r"seg_eval\.py --backbone tiny --version a --ensemble vgg16:0"
    with pytest.raises(UserError, match=f"no scores.*{command} --tta --k-fold all"):
        scores.read_scores(Scope(nets, "fold", True))
    nets.runs[0].weights.write_text("trained again")
    later = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", ["tiny:a"])
    with pytest.raises(UserError, match=f"other folds or weights.*{command}"):
        scores.read_scores(Scope(later, "fold", False))


def test_a_suggested_command_names_the_folds_scored(two_trainings):
    one = ensemble.find_ensemble(two_trainings, 1, "vgg16", "0", k_fold=(0, 2))
    assert Scope(one, "fold", False).command("eval").endswith("--version 0 --k-fold 0 2")
    test = Scope(ensemble.find_ensemble(two_trainings, 1, "vgg16", "0"), "test", True)
    assert test.command("eval").endswith("--version 0 --tta --k-fold all --eval-set test")
    assert test.command("tune").endswith("seg_tune.py --backbone vgg16 --version 0 --tta")
