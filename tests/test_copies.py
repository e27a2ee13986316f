"""The same photograph under two ids: never in training and in evaluation at once."""

import json
import shutil
from pathlib import Path

import cls_eval
import cls_train
import pytest
import seg_eval
import seg_predict
import seg_train

from datasets import copies, dataset
from datasets.ISIC2018 import raw
from evaluation import bootstrap
from training import run_folder

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")

TINY = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8, "workers": 1}
TINY |= {"num_folds": 2, "epochs": 1}
IMAGES, MASKS = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
TEST = "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"


@pytest.fixture
def files(tmp_path):
    content = {"a": b"one", "b": b"two", "c": b"one", "d": b"three", "e": b"two", "f": b"one"}
    for name, text in content.items():
        (tmp_path / name).write_bytes(text)
    return {name: tmp_path / name for name in content}


def test_equal_bytes_are_found_whatever_their_ids(files):
    assert copies.find_copies(files, files) == {
        "a": {"a", "c", "f"},
        "b": {"b", "e"},
        "c": {"a", "c", "f"},
        "d": {"d"},
        "e": {"b", "e"},
        "f": {"a", "c", "f"},
    }
    some = {name: files[name] for name in "ad"}
    others = {name: files[name] for name in "bcd"}
    assert copies.find_copies(some, others) == {"a": {"c"}, "d": {"d"}}


def test_only_files_of_equal_size_are_read(files, monkeypatch):
    read = []
    sha256 = copies.sha256
    monkeypatch.setattr(copies, "sha256", lambda file: read.append(file.name) or sha256(file))
    copies.find_copies(files, files)
    assert sorted(read) == ["a", "b", "c", "e", "f"]  # not d, of five letters


def test_lesions_are_joined_through_their_images():
    lesions = {"a": "L3", "b": "L1", "c": "L2", "d": "L2", "e": "L5"}
    joined = copies.join_lesions(lesions, [("a", "c"), ("d", "b"), ("a", "gone")])
    assert joined == {"a": "L1", "b": "L1", "c": "L1", "d": "L1", "e": "L5"}
    assert copies.join_lesions(lesions, []) == lesions


def copy_images(root, count=28):
    """Every image of Task 1 and its mask once more, under other ids."""
    for file in sorted((root / "data" / IMAGES).glob("*.jpg"))[:count]:
        other = f"ISIC_9{file.stem[6:]}"
        shutil.copy(file, file.with_name(f"{other}.jpg"))
        mask = root / "data" / MASKS / f"{file.stem}_segmentation.png"
        shutil.copy(mask, mask.with_name(f"{other}_segmentation.png"))


def test_copies_are_in_one_fold_and_count_as_one_lesion(root, caplog, monkeypatch):
    copy_images(root)
    seg_train.main(seg_train.Settings(**TINY))
    assert "the same picture, thus one lesion: 28: ISIC_9" in caplog.text
    for k in range(2):
        run = run_folder.find_runs(root / "model_data", 1, "tiny", "0", [k])[0]
        fold = run_folder.load_folds(run).set_index("image")["fold"]
        pairs = [(i, f"ISIC_9{i[6:]}") for i in fold.index if not i.startswith("ISIC_9")]
        assert len(pairs) == 28 and all(fold[one] == fold[other] for one, other in pairs)
    groups = []
    resample = bootstrap.resample
    monkeypatch.setattr(bootstrap, "resample", lambda some: groups.extend(some) or resample(some))
    seg_eval.main(seg_eval.Settings("tiny", k_fold="all"))
    assert len(groups) == 56 and len(set(groups)) == 28


def test_a_run_that_trained_on_copies_of_what_it_held_out_is_refused(root, run_script, monkeypatch):
    copy_images(root, 9)
    with monkeypatch.context() as patch:  # as code that did not look for copies made it
        patch.setattr(dataset, "find_copies", lambda files, among: {})
        seg_train.main(seg_train.Settings(**TINY))
    code, _, err = run_script(seg_eval, "--backbone", "tiny", "--k-fold", "all")
    assert (
        code == 1
        and "(the same picture, lesion or patient as ISIC_" in err
        and "new --version" in err
    )


def test_a_test_image_that_was_trained_on_under_another_id_is_refused(
    trained_root, tmp_path, run_script, monkeypatch
):
    root = Path(shutil.copytree(trained_root, tmp_path / "root"))
    monkeypatch.setenv("ISIC_ROOT", str(root))
    files = sorted((root / "data" / IMAGES).glob("*.jpg"))
    original = next((root / "data" / TEST[0]).glob("*.jpg"))
    truth = root / "data" / TEST[1] / f"{original.stem}_segmentation.png"
    shutil.copy(files[3], original)
    shutil.copy(root / "data" / MASKS / f"{files[3].stem}_segmentation.png", truth)
    code, _, err = run_script(
        seg_eval, "--backbone", "tiny", "--eval-set", "test", "--k-fold", "all"
    )
    assert (
        code == 1
        and f"{original.stem} (the same picture, lesion or patient as {files[3].stem})" in err
    )
    # and is predicted by the one net alone that has not seen it
    code, _, err = run_script(
        seg_predict, "mask", "--task", 1, "--pred-set", "test", "--backbone", "tiny"
    )
    assert code == 0, err
    made_by = json.loads((root / "submissions" / "task1_test.json").read_text())["made_by"]
    (runs,) = [names for names, ids in made_by["images_by_nets"].items() if original.stem in ids]
    assert len(runs.split()) == 1


def test_diagnoses_of_copies_share_fold_and_lesion(root):
    folder = root / "data" / "ISIC2018_Task3_Training_Input"
    first, second = sorted(folder.glob("*.jpg"))[:2]
    before = raw.read_groups(raw.groups_file(root / "data"))
    assert before[first.stem] != before[second.stem]
    shutil.copy(first, second)
    cls_train.main(cls_train.Settings(**TINY, lesion_view="whole"))
    run = run_folder.find_runs(root / "model_data", 3, "tiny", "0", [0])[0]
    table = run_folder.load_folds(run).set_index("image")
    one, other = table.loc[first.stem], table.loc[second.stem]
    assert (one["fold"], one["lesion"]) == (other["fold"], other["lesion"])
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all"))
