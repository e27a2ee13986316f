import numpy as np
import pandas as pd
import pytest

from evaluation import bootstrap
from evaluation.mask_scoring import MASK_MEASURES


def test_lesions_are_drawn_not_images():
    weights = bootstrap.resample(["L1", "L2", "L1", "L3"], repeats=500)
    assert weights.shape == (500, 4) and weights.dtype == np.float32
    assert (weights[:, 0] == weights[:, 2]).all()  # both photographs of L1, or none
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # three lesions each time
    assert weights[:, 1].mean() == pytest.approx(1, abs=0.1)
    assert (
        bootstrap.resample(list("abc"), 5, seed=1) == bootstrap.resample(list("abc"), 5, 1)
    ).all()
    assert (bootstrap.resample(list("abc"), 9, 1) != bootstrap.resample(list("abc"), 9, 2)).any()


def test_intervals_leave_out_what_does_not_exist():
    values = np.array([[0.0, np.nan, np.nan], [1.0, 5.0, np.nan], [2.0, np.nan, np.nan]])
    low, high = bootstrap.interval(values, level=0.5)
    assert low.tolist()[:2] == [0.5, 5.0] and high.tolist()[:2] == [1.5, 5.0]
    assert np.isnan([low[2], high[2]]).all()


def scores_of(jaccard):
    columns = {name: jaccard for name in MASK_MEASURES}
    index = pd.Index([f"ISIC_{k:07d}" for k in range(len(jaccard))], name="image")
    return pd.DataFrame(columns | {"lesion_share": 0.5}, index=index)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        table = scores_of(random.normal(0.5, 0.1, 60))
        row = bootstrap.mask_table(table, bootstrap.resample(table.index, 300, seed)).loc["jaccard"]
        assert row["value"] == pytest.approx(table["jaccard"].mean())
        covered += row["low"] < 0.5 < row["high"]
    assert 0.88 < covered / 200 < 0.99


def test_a_resample_is_a_weighted_mean():
    table = scores_of(np.array([0.2, 0.6, 1.0]))
    weights = np.array([[3, 0, 0], [1, 1, 2], [0, 1, 0]], np.float32)  # of lesions of any size
    row = bootstrap.mask_table(table, weights).loc["jaccard"]
    low, high = np.percentile([0.2, 0.7, 0.6], [2.5, 97.5])
    assert row.tolist() == pytest.approx([0.6, low, high])


def test_photographs_of_one_lesion_widen_the_interval():
    """Forty images of ten lesions, all four alike, tell as much as ten."""
    table = scores_of(np.repeat(np.random.default_rng(1).normal(0.5, 0.1, 10), 4))
    lesions = np.repeat([f"L{k}" for k in range(10)], 4)
    by_lesion = bootstrap.mask_table(table, bootstrap.resample(lesions)).loc["dice"]
    by_image = bootstrap.mask_table(table, bootstrap.resample(table.index)).loc["dice"]
    widths = [row["high"] - row["low"] for row in (by_lesion, by_image)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)


def test_paired_differences_are_narrower_and_joined_by_id():
    random = np.random.default_rng(2)
    before = scores_of(random.uniform(0.3, 0.9, 80))
    after = (before + 0.02).sample(frac=1, random_state=0)  # in another order
    weights = bootstrap.resample(before.index)
    difference = bootstrap.mask_difference(before, after, weights).loc["jaccard"]
    assert difference[["value", "low", "high"]].tolist() == pytest.approx([0.02] * 3)
    with pytest.raises(ValueError, match="same images"):
        bootstrap.mask_difference(before, after[1:], weights)


def test_class_tables():
    random = np.random.default_rng(3)
    truth = random.integers(0, 3, 150)
    probability = random.dirichlet(np.ones(3), 150) + 0.5 * np.eye(3)[truth]
    weights = bootstrap.resample([f"L{k // 2}" for k in range(150)], 400)
    overall, per_class = bootstrap.class_tables(truth, probability, weights, ("A", "B", "C"))
    assert list(overall.index[:3]) == ["accuracy", "balanced_accuracy", "macro_accuracy"]
    right = probability.argmax(axis=1) == truth
    assert overall.value["accuracy"] == pytest.approx(right.mean())
    recalls = [right[truth == k].mean() for k in range(3)]
    assert overall.value["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert overall.value["macro_auc"] == pytest.approx(per_class.value[:, "auc"].mean())
    assert ((overall.low <= overall.value) & (overall.value <= overall.high)).all()
    resampled = [(right * row).sum() / row.sum() for row in weights]
    assert overall.low["accuracy"] == pytest.approx(np.percentile(resampled, 2.5))
    worse = random.dirichlet(np.ones(3), 150)
    difference = bootstrap.class_difference(truth, worse, probability, weights)
    assert difference.low["balanced_accuracy"] > 0 and difference.value["accuracy"] > 0
    same = bootstrap.class_difference(truth, worse, worse, weights)
    assert (same.to_numpy() == 0).all()


def test_a_class_of_one_lesion_is_missing_from_some_resamples():
    truth, probability = np.array([0, 0, 0, 1]), np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]])
    weights = bootstrap.resample(list("abcd"), 200)
    overall, per_class = bootstrap.class_tables(truth, probability, weights, ("A", "B"))
    assert overall.loc["balanced_accuracy"].tolist() == [1, 1, 1]
    assert per_class.loc[("B", "auc")].tolist() == [1, 1, 1]
    absent, per_absent = bootstrap.class_tables(
        truth, np.c_[probability, np.zeros(4)], weights, ("A", "B", "C")
    )
    assert per_absent.loc[("C", "auc")].isna().all() and not absent.isna().any().any()
