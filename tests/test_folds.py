import numpy as np
import pandas as pd
import pytest

from datasets import folds
from datasets.challenge import CLASSES
from misc_utils.errors import UserError

IDS = [f"ISIC_{k:07d}" for k in range(2594)]


def test_every_image_is_in_exactly_one_fold():
    split = folds.split_images(IDS, 5, seed=42)
    assert split["image"].tolist() == IDS
    assert sorted(split["fold"].value_counts()) == [518, 519, 519, 519, 519]


def test_a_hold_out_keeps_four_fifths_for_training():
    split = folds.split_images(IDS, 1, seed=42)
    assert split["fold"].value_counts().to_dict() == {1: 2075, 0: 519}


def test_the_split_depends_on_ids_and_seed_alone():
    first = folds.split_images(IDS, 5, seed=1)
    pd.testing.assert_frame_equal(first, folds.split_images(IDS[::-1], 5, seed=1))
    assert (first["fold"] != folds.split_images(IDS, 5, seed=2)["fold"]).any()


def test_too_few_images():
    with pytest.raises(UserError, match="4 images"):
        folds.split_images(IDS[:4], 5, seed=1)
    with pytest.raises(UserError, match="not 0"):
        folds.split_images(IDS, 0, seed=1)


@pytest.fixture
def lesions():
    """1,000 images of 700 lesions; the class depends on the lesion; a rare class of 2 %."""
    random = np.random.default_rng(0)
    lesion = [f"L{k}" for k in range(700)] + [f"L{k}" for k in random.integers(0, 700, 300)]
    rare = {f"L{k}" for k in range(0, 700, 50)}
    labels = {IDS[k]: int(lesion[k] in rare) for k in range(1000)}
    return labels, dict(zip(IDS[:1000], lesion, strict=True))


@pytest.mark.parametrize("num_folds", [1, 2, 5])
def test_no_lesion_crosses_and_classes_are_spread(lesions, num_folds):
    split = folds.split_lesions(*lesions, num_folds, 42, CLASSES)
    assert split["image"].tolist() == sorted(lesions[0])
    assert (split.groupby("lesion")["fold"].nunique() == 1).all()
    share = split.groupby("fold")["label"].mean()
    assert len(share) == max(num_folds, 2)
    assert (share - split["label"].mean()).abs().max() < 0.012


def test_labels_and_lesions_are_joined_by_id(lesions):
    labels, groups = lesions
    turned = dict(reversed(groups.items()))
    split = folds.split_lesions(labels, turned, 5, 42, CLASSES)
    assert all(groups[row.image] == row.lesion for row in split.itertuples())
    assert all(labels[row.image] == row.label for row in split.itertuples())


def test_limit_takes_the_first_ids():
    assert folds.limit_images(["b", "c", "a"], 2) == ["a", "b"]
    assert folds.limit_images(["b", "a"], None) == ["a", "b"]


def test_limit_keeps_the_shares_of_classes():
    labels = {f"i{k:03d}": 0 if k < 60 else 1 if k < 90 else 2 for k in range(100)}
    kept = folds.limit_labels(labels, 10)
    assert np.bincount(list(kept.values())).tolist() == [6, 3, 1]
    assert [i for i in kept if labels[i] == 1] == ["i060", "i061", "i062"]
    assert len(folds.limit_labels(labels, 4)) == 4
    assert set(folds.limit_labels(labels, 3).values()) == {0, 1, 2}
    assert len(folds.limit_labels(labels, 2)) == 2
    assert folds.limit_labels(labels, 1000) == labels


@pytest.mark.parametrize("limit", range(1, 101))
def test_limit_is_met_exactly(limit):
    labels = {f"i{k:03d}": k % 7 if k < 30 else 1 for k in range(100)}
    assert len(folds.limit_labels(labels, limit)) == limit


def test_fold_numbers():
    assert folds.check_fold_numbers("all", 3) == [0, 1, 2]
    assert folds.check_fold_numbers((2, 0, 2), 3) == [2, 0]
    assert folds.check_fold_numbers("all", 1) == [0]
    with pytest.raises(UserError, match=r"0 to 4.*no fold 5"):
        folds.check_fold_numbers((0, 5), 5)
    with pytest.raises(UserError, match="there is no fold given"):
        folds.check_fold_numbers((), 5)
    for number in (0, -1):
        with pytest.raises(UserError, match=f"num_folds must be 1 .* not {number}"):
            folds.check_fold_numbers("all", number)


def test_too_few_images_of_every_class():
    labels = {f"i{k}": k for k in range(7)}
    with pytest.raises(UserError, match="5 folds need a class with 5 images"):
        folds.split_lesions(labels, {i: i for i in labels}, 5, 1, CLASSES)


def test_images_of_one_lesion_stay_together_and_the_others_where_they_were():
    plain = folds.split_images(IDS, 5, seed=1).set_index("image")["fold"]
    assert folds.split_images(IDS, 5, seed=1, lesions={i: i for i in IDS}).columns.tolist() == [
        "image",
        "fold",
    ]
    a, b, c, d, e = (plain.index[plain == k][100] for k in range(5))  # of five folds
    lesions = {a: "L", b: "L", c: "M", d: "M", e: "M"}
    split = folds.split_images(IDS, 5, seed=1, lesions=lesions).set_index("image")
    assert split.groupby("lesion")["fold"].nunique().max() == 1
    assert split["lesion"].nunique() == len(IDS) - 3
    firsts = {min(a, b), min(c, d, e)}
    moved = [image_id for image_id in lesions if image_id not in firsts]
    assert split["fold"].drop(moved).equals(plain.drop(moved))
    assert split.loc[max(a, b), "fold"] == plain[min(a, b)]


def test_a_lesion_of_two_diagnoses_is_named_with_its_rows(caplog):
    labels = {f"ISIC_{k}": k % 7 for k in range(70)}
    lesions = {image_id: f"L{k}" for k, image_id in enumerate(labels)}
    folds.split_lesions(labels, lesions, 5, 1, CLASSES)
    assert caplog.text == ""
    lesions["ISIC_8"] = "L0"
    folds.split_lesions(labels, lesions, 5, 1, CLASSES)
    assert "1 lesions have more than one diagnosis" in caplog.text
    assert "2: L0 ISIC_0 MEL, L0 ISIC_8 NV" in caplog.text


def test_several_diagnoses_of_a_patient_are_no_contradiction(caplog):
    labels = {f"i{k:02}": k % 2 for k in range(20)}
    groups = {image_id: f"p{k // 2}" for k, image_id in enumerate(labels)}
    folds.split_lesions(labels, groups, 5, 1, CLASSES, "patient")
    assert not caplog.records
    folds.split_lesions(labels, groups, 5, 1, CLASSES)
    assert "more than one diagnosis" in caplog.text
