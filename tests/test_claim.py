import json
import logging

import pandas as pd
import pytest
from drawn_results import create_run

from misc_utils.errors import UserError
from training import claim, run_folder

FOLDS = pd.DataFrame({"image": ["a", "b", "c", "d"], "fold": [0, 1, 0, 1]})
SETTINGS = {
    "backbone": "tiny",
    "version": "0",
    "num_folds": 2,
    "image_size": 32,
    "learning_rate": 0.1,
    "schedule": "plateau",
    "epochs": 3,
    "folds": (0, 1),
    "workers": 4,
    "overwrite": False,
}
FACTS = {"data_fingerprint": "d" * 64, "precision": "float32", "device": "cpu"}


def trained(model_data, finished=True, state=True):
    run = create_run(model_data, 1, 0, SETTINGS, FOLDS, FACTS)
    run.weights.write_text("w")
    if state:
        run.state.write_text("s")
    record = run.record | {"finished": finished, "best_epoch": 2}
    (run.folder / "settings.json").write_text(json.dumps(record))
    return run


def claimed(model_data, folds=FOLDS, facts=FACTS, overwrite=False, **changed):
    settings = SETTINGS | changed
    claim.check_settings(model_data, 1, settings, [0], overwrite)
    replaced = claim.stamp_runs(model_data, 1, settings, [0]) if overwrite else {}
    with claim.claim_run(model_data, 1, 0, settings, folds, facts, replaced) as run:
        if run:
            claim.begin_run(run, folds)
        return run


def test_a_finished_run_is_passed_over(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained(tmp_path)
    assert claimed(tmp_path) is None
    assert "task1_tiny_k0_v0: finished already" in caplog.text
    # what shapes neither net nor data nor optimisation may be another
    assert claimed(tmp_path, workers=8, folds=FOLDS) is None


def test_an_unfinished_run_resumes_and_says_what_changed(tmp_path):
    trained(tmp_path, finished=False)
    run = claimed(tmp_path, facts=FACTS | {"device": "gpu"})
    assert run.resumes and run.weights.exists()
    record = json.loads((run.folder / "settings.json").read_text())
    assert record["device"] == "cpu" and record["resumed"] == [{"device": "gpu"}]
    assert not record["finished"] and "best_epoch" not in record


def test_resuming_leaves_alone_what_an_evaluation_is_writing(tmp_path):
    run = trained(tmp_path, finished=False)
    theirs = run.folder / f".partial_0123456789ab_{run.name}_logits_fold.npy"
    ours = [
        run.folder / f".partial_0123456789ab_{file.name}"
        for file in (run.weights, run.state, run.history, run.file("history.png"))
    ]
    for file in (theirs, *ours):
        file.write_text("half")
    claimed(tmp_path)
    assert theirs.exists() and not any(file.exists() for file in ours)


def test_more_epochs_resume(tmp_path):
    trained(tmp_path)
    run = claimed(tmp_path, epochs=5)
    assert run.resumes and run.settings["epochs"] == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.2}, "learning_rate 0.1 then, 0.2 now"),
        ({"epochs": 2}, "epochs 3 then, 2 now"),
        ({"epochs": 5, "schedule": "cosine"}, "schedule plateau then, cosine now; epochs 3 then"),
        ({"facts": FACTS | {"data_fingerprint": "e" * 64}}, "images in data/.*dddd then, eeee"),
        ({"facts": FACTS | {"precision": "bfloat16"}}, "precision.*float32 then, bfloat16 now"),
        ({"folds": FOLDS.assign(fold=[1, 0, 0, 1])}, "split in folds.csv"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_training_is_refused_with_the_difference(tmp_path, changed, message, finished):
    run = trained(tmp_path, finished)
    before = {file: file.read_bytes() for file in run.folder.iterdir()}
    with pytest.raises(UserError, match=rf"(?s){message.replace('dddd', 'd*')}") as error:
        claimed(tmp_path, **changed)
    assert "--version" in str(error.value) and "--overwrite" in str(error.value)
    assert {file: file.read_bytes() for file in run.folder.iterdir()} == before
    assert not claimed(tmp_path, overwrite=True, **changed).weights.exists()


def test_it_is_refused_before_any_data_is_read(tmp_path):
    trained(tmp_path)
    claim.check_settings(tmp_path, 1, SETTINGS, [0, 1], overwrite=False)
    other = SETTINGS | {"learning_rate": 0.2}
    claim.check_settings(tmp_path, 1, other, [0], overwrite=True)
    with pytest.raises(UserError, match="learning_rate"):
        claim.check_settings(tmp_path, 1, other, [1, 0], overwrite=False)


def test_folds_of_one_version_are_trained_alike(tmp_path):
    trained(tmp_path)  # fold 0
    claim.check_settings(tmp_path, 1, SETTINGS | {"epochs": 5, "workers": 1}, [1], overwrite=False)
    other = SETTINGS | {"learning_rate": 0.2}
    claim.check_settings(tmp_path, 1, other | {"version": "1"}, [1], overwrite=False)
    claim.check_settings(tmp_path, 3, other, [1], overwrite=False)
    claim.check_settings(tmp_path, 1, other, [0, 1], overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"k0_v0, another fold.*rate 0\.1 then, 0\.2 now"):
            claim.check_settings(tmp_path, 1, other, [1], overwrite=overwrite)


@pytest.mark.parametrize("left", ["weights", "state"])
def test_a_fold_of_which_an_epoch_is_left_counts_among_those_of_its_version(tmp_path, left):
    run = create_run(tmp_path, 1, 0, SETTINGS, FOLDS, FACTS)
    other = SETTINGS | {"learning_rate": 0.2}
    claim.check_settings(tmp_path, 1, other, [1], overwrite=False)  # no epoch yet
    (run.weights if left == "weights" else run.state).write_text("w")
    with pytest.raises(UserError, match="k0_v0, another fold"):
        claim.check_settings(tmp_path, 1, other, [1], overwrite=False)
    (run.folder / "settings.json").unlink()  # as while another process deletes it
    claim.check_settings(tmp_path, 1, other, [1], overwrite=False)


def test_another_fold_trained_since_the_command_began_is_looked_at(tmp_path):
    other = SETTINGS | {"learning_rate": 0.2}
    claim.check_settings(tmp_path, 1, other, [1], overwrite=False)
    trained(tmp_path)  # fold 0, by another process
    with pytest.raises(UserError, match="k0_v0, another fold"):
        with claim.claim_run(tmp_path, 1, 1, other, FOLDS, FACTS):
            pass


def test_overwriting_with_two_trainings_at_once_mixes_none(tmp_path):
    """One has trained fold 0 again when the other, with other settings, comes to fold 1."""
    trained(tmp_path)
    other = SETTINGS | {"learning_rate": 0.2}
    replaced = claim.stamp_runs(tmp_path, 1, other, [0, 1])
    run = claimed(tmp_path, overwrite=True, learning_rate=0.3)
    run.weights.write_text("new")
    with pytest.raises(UserError, match=r"k0_v0, another fold.*rate 0\.3 then, 0\.2 now"):
        with claim.claim_run(tmp_path, 1, 1, other, FOLDS, FACTS, replaced):
            pass


def test_a_fold_that_is_deleted_meanwhile_is_no_other_training(tmp_path, monkeypatch):
    run = trained(tmp_path)
    read = run_folder.read_run

    def deleted(file):
        (run.folder / "settings.json").unlink()
        return read(file)

    monkeypatch.setattr(run_folder, "read_run", deleted)
    claim.check_settings(tmp_path, 1, SETTINGS | {"learning_rate": 0.2}, [1], overwrite=False)


def test_what_was_trained_since_is_not_overwritten(tmp_path, caplog):
    """The same command with --overwrite on two nodes: neither deletes what the other trained."""
    caplog.set_level(logging.INFO)
    trained(tmp_path)
    replaced = [claim.stamp_runs(tmp_path, 1, SETTINGS, [0, 1]) for _ in range(2)]
    assert replaced[0].keys() == {0, 1} and replaced[0][0] and replaced[0][1] is None
    with claim.claim_run(tmp_path, 1, 0, SETTINGS, FOLDS, FACTS, replaced[0]) as run:
        assert run and not run.resumes
        claim.begin_run(run, FOLDS)
        assert not run.weights.exists()
        run.weights.write_text("new")
        run_folder.write_record(run_folder.Run(run.folder, run.record | {"finished": True}))
    with claim.claim_run(tmp_path, 1, 0, SETTINGS, FOLDS, FACTS, replaced[1]) as run:
        assert run is None
    assert "finished already" in caplog.text


def test_a_run_without_an_epoch_holds_nothing_to_keep(tmp_path):
    run = create_run(tmp_path, 1, 0, SETTINGS, FOLDS, FACTS)
    again = claimed(tmp_path, learning_rate=0.2)
    assert again.folder == run.folder and not again.resumes
    record = json.loads((run.folder / "settings.json").read_text())
    assert record["settings"]["learning_rate"] == 0.2


def test_what_cannot_resume_is_said(tmp_path):
    run = trained(tmp_path, finished=False, state=False)
    with pytest.raises(UserError, match=r"k0_v0_state\.npz is missing"):
        claimed(tmp_path)
    (run.folder / "settings.json").unlink()
    with pytest.raises(UserError, match=r"trained net, but no settings\.json"):
        claimed(tmp_path)
    assert run.weights.exists()


def test_a_run_in_training_is_left_to_that_process(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with claim.claim_run(tmp_path, 1, 0, SETTINGS, FOLDS, FACTS) as first:
        assert first
        assert claimed(tmp_path) is None
        assert claimed(tmp_path, overwrite=True) is None
        with claim.claim_run(tmp_path, 1, 1, SETTINGS, FOLDS, FACTS) as other:
            assert other.name == "task1_tiny_k1_v0"
    assert "another process is training it" in caplog.text
    assert claimed(tmp_path)


def test_an_old_run_goes_away_from_its_settings_on(tmp_path, monkeypatch):
    """A kill while it is deleted leaves no folder that passes for a run."""
    run = trained(tmp_path)

    def fail(folder):
        assert not (folder / "settings.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(claim.shutil, "rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        claimed(tmp_path, overwrite=True)
    assert run.weights.exists()


def test_a_renamed_folder_holds_the_same_run(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained(tmp_path).folder.rename(tmp_path / "my_best")
    assert claimed(tmp_path) is None and "task1_tiny_k0_v0: finished already" in caplog.text
    with pytest.raises(UserError, match="my_best was trained with other settings"):
        claimed(tmp_path, learning_rate=0.2)
    with pytest.raises(UserError, match="my_best, another fold"):
        claim.check_settings(tmp_path, 1, SETTINGS | {"learning_rate": 0.2}, [1], overwrite=False)
    assert claimed(tmp_path, epochs=5).folder.name == "my_best"


def test_random_weights_recorded_as_imagenet_are_random_weights(tmp_path):
    """Earlier code recorded what was asked for, where a backbone has no ImageNet weights."""
    run = create_run(tmp_path, 1, 0, SETTINGS | {"weights": "imagenet"}, FOLDS, FACTS)
    run.weights.write_text("w")
    run.state.write_text("s")
    assert claimed(tmp_path, weights="none").resumes
    run = create_run(
        tmp_path, 1, 0, SETTINGS | {"weights": "imagenet", "backbone": "vgg16"}, FOLDS, FACTS
    )
    run.weights.write_text("w")
    with pytest.raises(UserError, match="weights imagenet then, none now"):
        claimed(tmp_path, weights="none", backbone="vgg16")


def test_settings_that_earlier_code_did_not_have_count_as_what_they_were(tmp_path):
    trained(tmp_path)  # says nothing of data set, preprocessing and metadata
    assert claimed(tmp_path, preprocess=(), metadata=False, dataset="isic2018") is None
    for changed in ({"preprocess": ("remove_hair",)}, {"metadata": True}):
        with pytest.raises(UserError, match=next(iter(changed))):
            claimed(tmp_path, **changed)


def test_another_data_set_has_runs_of_its_own(tmp_path):
    trained(tmp_path)
    run = claimed(tmp_path, dataset="ph2")
    assert run.name == "ph2_task1_tiny_k0_v0" and run.folder.name == run.name


def test_where_images_lie_is_no_difference_but_the_classes_are(tmp_path):
    facts = FACTS | {"classes": ["a", "b"]}
    run = claimed(tmp_path, facts=facts, own={"images": "/here"})
    run_folder.finish_run(run, {})
    for file in (run.weights, run.state):
        file.write_bytes(b"")
    assert claimed(tmp_path, facts=facts, own={"images": "/there"}) is None
    with pytest.raises(UserError, match="the classes"):
        claimed(tmp_path, facts=FACTS | {"classes": ["b", "a"]}, own={"images": "/here"})
