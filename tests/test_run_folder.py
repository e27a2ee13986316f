import json
import shutil

import pandas as pd
import pytest
from drawn_results import create_run

from misc_utils.errors import UserError
from training import run_folder

FOLDS = pd.DataFrame({"image": ["a", "b", "c", "d"], "fold": [0, 1, 0, 1]})
SETTINGS = {"backbone": "tiny", "version": "0", "num_folds": 2, "image_size": 64}
FACTS = {"data_fingerprint": "0123456789abcdef", "crops_maker": None}


def make_run(model_data, k_fold=0, task=1, **settings):
    run = create_run(model_data, task, k_fold, SETTINGS | settings, FOLDS, FACTS)
    run.weights.touch()
    return run


def test_names_are_those_of_the_user():
    assert run_folder.run_name(1, "densenet169", 0, "0") == "task1_densenet169_k0_v0"
    for version in ("", "a_b", "../x", "a b"):
        with pytest.raises(UserError, match="letters, digits and -"):
            run_folder.run_name(1, "densenet169", 0, version)


def test_a_run_is_found_by_its_settings_not_its_folder(tmp_path):
    made = make_run(tmp_path, version="0-whole")
    made.folder.rename(tmp_path / "my_best")
    found = run_folder.find_runs(tmp_path, 1, "tiny", "0-whole", [0])[0]
    assert found.name == made.name and found.folder.name == "my_best" and found.weights.exists()


def test_a_copy_of_a_run_is_named_beside_it(tmp_path):
    made = make_run(tmp_path)
    shutil.copytree(made.folder, tmp_path / f"backup_{made.name}")
    for k_folds in (None, [0]):
        with pytest.raises(UserError, match=r"(?s)backup_task1.*k0_v0 both hold the run task1_ti"):
            run_folder.find_runs(tmp_path, 1, "tiny", "0", k_folds)
    assert run_folder.list_runs(tmp_path, 1)


def test_a_missing_run_lists_those_there_are(tmp_path):
    make_run(tmp_path, k_fold=1)
    make_run(tmp_path, task=3)
    with pytest.raises(UserError) as error:
        run_folder.find_runs(tmp_path, 1, "tiny", "0", [0])[0]
    assert "task1_tiny_k1_v0" in str(error.value) and "task3" not in str(error.value)
    with pytest.raises(UserError, match="none"):
        run_folder.find_runs(tmp_path / "empty", 1, "tiny", "0")


def test_a_run_without_weights_is_not_used(tmp_path):
    make_run(tmp_path, k_fold=0)
    make_run(tmp_path, k_fold=1).weights.unlink()
    assert [run.k_fold for run in run_folder.find_runs(tmp_path, 1, "tiny", "0")] == [0]
    with pytest.raises(UserError, match="no weights yet"):
        run_folder.find_runs(tmp_path, 1, "tiny", "0", [1])[0]


def test_broken_settings_are_named(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json.*Restore"):
        run_folder.list_runs(tmp_path, 1)


def test_folds_come_back_as_they_went(tmp_path):
    run = make_run(tmp_path)
    loaded = run_folder.load_folds(run)
    pd.testing.assert_frame_equal(loaded, FOLDS)
    assert run_folder.held_out_images(loaded, 0) == ["a", "c"]
    assert run_folder.training_images(loaded, 0) == ["b", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,fold\na,0\na,1\n", "images in two folds: a"),
        ("image,lesion,fold\na,L1,0\nb,L1,1\n", "lesions in two folds: L1"),
        ("image,part\na,0\n", "fold"),
    ],
)
def test_a_leaking_split_is_refused_when_read(tmp_path, text, message):
    run = make_run(tmp_path)
    del run.record["folds_fingerprint"]  # as of a run of before there was one
    (run.folder / "folds.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        run_folder.load_folds(run)


def test_another_split_than_trained_with_is_refused(tmp_path):
    run = make_run(tmp_path)
    FOLDS.assign(fold=[1, 0, 0, 1]).to_csv(run.folder / "folds.csv", index=False)
    with pytest.raises(UserError, match="not the split that the run was trained with"):
        run_folder.load_folds(run)


def test_a_leaking_split_is_refused_when_written(tmp_path):
    crossing = FOLDS.assign(lesion=["L", "L", "M", "N"])
    with pytest.raises(ValueError, match="two folds: L"):
        create_run(tmp_path, 3, 0, SETTINGS, crossing, FACTS)
    with pytest.raises(UserError, match="fold 2 leaves 4 images"):
        create_run(tmp_path, 3, 2, SETTINGS, FOLDS, FACTS)
    assert not list(tmp_path.iterdir())


def test_fingerprints_of_splits_and_weights(tmp_path):
    same = FOLDS.iloc[::-1]  # the order of the rows does not matter
    assert run_folder.folds_fingerprint(same) == run_folder.folds_fingerprint(FOLDS)
    for other in (FOLDS.assign(fold=[0, 1, 1, 0]), FOLDS.assign(label=1), FOLDS[:3]):
        assert run_folder.folds_fingerprint(other) != run_folder.folds_fingerprint(FOLDS)
    run = make_run(tmp_path)
    before = run_folder.weights_hash(run)
    run.weights.write_text("x")
    assert len(before) == 64 and run_folder.weights_hash(run) != before
    run.weights.unlink()
    with pytest.raises(UserError, match="a training is under way"):
        run_folder.weights_hash(run)


def test_images_the_net_was_trained_on_are_not_scored():
    run_folder.check_unseen(FOLDS, 0, ["a", "c", "new"])
    with pytest.raises(UserError, match="no image to score"):
        run_folder.check_unseen(FOLDS, 0, [])
    with pytest.raises(UserError, match="such as b"):
        run_folder.check_unseen(FOLDS, 0, ["a", "b"])
    # what is related decides, not the name: b is another picture of that name, x one of lesion d
    run_folder.check_unseen(FOLDS, 0, ["b"], {"b": set()})
    with pytest.raises(UserError, match=r"1 of .*x \(the same picture, lesion or patient as d\)"):
        run_folder.check_unseen(FOLDS, 0, ["b", "x"], {"b": set(), "x": {"a", "d"}})


def test_other_data_and_other_crops_are_refused(tmp_path):
    run = make_run(tmp_path)
    run_folder.check_same_data(run, FACTS["data_fingerprint"])
    with pytest.raises(UserError, match=r"0123456789ab.*fedcba987654"):
        run_folder.check_same_data(run, "fedcba9876543210")
    run_folder.check_same_crops([run], None)
    with pytest.raises(UserError, match="crops"):
        run_folder.check_same_crops([run], "someone")


def test_runs_that_predict_together_share_settings(tmp_path):
    runs = [make_run(tmp_path, 0), make_run(tmp_path, 1)]
    assert run_folder.shared_setting(runs, "image_size") == 64
    runs[1] = make_run(tmp_path / "other", 1, image_size=96)
    with pytest.raises(UserError, match="task1_tiny_k1_v0: 96"):
        run_folder.shared_setting(runs, "image_size")


def test_finishing_keeps_the_record(tmp_path):
    run = run_folder.finish_run(make_run(tmp_path), {"best_epoch": 3})
    record = json.loads((run.folder / "settings.json").read_text())
    assert record["finished"] and record["best_epoch"] == 3 and record["settings"] == SETTINGS
