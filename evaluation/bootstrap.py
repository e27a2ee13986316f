"""Confidence intervals by resampling what is independent: lesions, or images.

Enters: scores or probabilities of N images and the lesion each shows. Leaves: tables with a value
and the ends of its 95 % interval (Efron's percentile method). An interval says what other images of
the same kind would change; not what another training would.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from evaluation.class_scoring import (
    CLASS_MEASURES,
    mean_over_classes,
    measure_classes,
    sensitivity_at,
)
from evaluation.mask_scoring import MASK_MEASURES

OVERALL_MEASURES = ("accuracy", "balanced_accuracy", *(f"macro_{name}" for name in CLASS_MEASURES))
SPECIFICITIES = (80, 90, 95)  # per cent, at which the sensitivity of one of two classes is told
REPEATS = 2000
LEVEL = 0.95


def resample(groups: Sequence[str], repeats: int = REPEATS, seed: int = 0) -> np.ndarray:
    """How often each image counts in each resample, float32 (repeats, N).

    Groups (the lesions) are drawn with replacement, as many as there are; an image counts as often
    as its group was drawn.
    """
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = group.max() + 1
    generator = np.random.default_rng(seed)
    drawn = np.empty((repeats, count), np.float32)
    for row in drawn:  # one after another: all at once would be eight times the memory
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count)
    return drawn[:, group]


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Both ends along axis 0; resamples in which a measure does not exist (nan) are left out."""
    shares = [50 * (1 - level), 50 * (1 + level)]
    with warnings.catch_warnings():  # a measure may exist in no resample
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanpercentile(np.asarray(values, dtype=float), shares, axis=0)
    return low, high


def mask_table(scores: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Task 1: mean of each measure over images, with its interval.

    Args:
        scores: a row per image, among its columns those of MASK_MEASURES.
        weights: from resample, (B, N).

    Returns:
        DataFrame indexed by measure, columns value, low, high.
    """
    values = scores[list(MASK_MEASURES)].to_numpy()
    return _table(values.mean(axis=0), _weighted_means(values, weights), MASK_MEASURES)


def mask_difference(
    scores_a: pd.DataFrame, scores_b: pd.DataFrame, weights: np.ndarray
) -> pd.DataFrame:
    """Task 1: mean of `b - a` image by image (joined by id; rows of `weights` as in `a`)."""
    if set(scores_a.index) != set(scores_b.index):
        raise ValueError("both must be scored on the same images")
    names = list(MASK_MEASURES)
    values = (scores_b.loc[scores_a.index, names] - scores_a[names]).to_numpy()
    return _table(values.mean(axis=0), _weighted_means(values, weights), MASK_MEASURES)


def class_tables(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Task 3: overall scores, and those of each class, with intervals.

    Args:
        truth: int (N,).
        probability: float (N, C).
        weights: from resample, (B, N).
        classes: C names.

    Returns:
        Two DataFrames with columns value, low, high; the first indexed by accuracy,
        balanced_accuracy and macro_<measure>, the second by (class, measure).
    """
    overall, per_class = _class_values(truth, probability, np.ones((1, len(truth))))
    many_overall, many_per_class = _class_values(truth, probability, weights)
    index = pd.MultiIndex.from_product([list(classes), CLASS_MEASURES], names=["class", "measure"])
    return (
        _table(overall[0], many_overall, list(OVERALL_MEASURES)),
        _table(per_class[0], many_per_class, index),
    )


def two_class_tables(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of two classes: the AUC, and the sensitivity of each class at fixed specificities.

    Arguments as in class_tables, C = 2. Returns two tables with columns value, low, high, by
    measure and by (class, measure): `auc`, which is the same for both classes;
    `sensitivity_at_specificity_90` is that at a specificity of at least .90.
    """
    ones = np.ones((1, len(truth)))
    value, many = (_class_values(truth, probability, rows)[0] for rows in (ones, weights))
    column = OVERALL_MEASURES.index("macro_auc")
    overall = _table(value[0, [column]], many[:, [column]], ["auc"])
    rows = {}
    for k, name in enumerate(classes):
        for share in SPECIFICITIES:
            which = (share / 100, truth == k, probability[:, k])
            value, many = sensitivity_at(*which, ones), sensitivity_at(*which, weights)
            rows[name, f"sensitivity_at_specificity_{share}"] = [
                value[0],
                *map(float, interval(many)),
            ]
    index = pd.MultiIndex.from_tuples(rows, names=["class", "measure"])
    return overall, pd.DataFrame(list(rows.values()), index, ["value", "low", "high"])


def class_difference(
    truth: np.ndarray, probability_a: np.ndarray, probability_b: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    """Task 3: overall scores of `b` minus those of `a`, over the same resamples."""
    ones = np.ones((1, len(truth)))
    value, many = (
        _class_values(truth, probability_b, rows)[0] - _class_values(truth, probability_a, rows)[0]
        for rows in (ones, weights)
    )
    return _table(value[0], many, list(OVERALL_MEASURES))


def _class_values(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Overall (B, 2 + M) and per class (B, C * M)."""
    measures = measure_classes(truth, probability, weights)
    macro = [mean_over_classes(measures.per_class[name]) for name in CLASS_MEASURES]
    overall = np.stack([measures.accuracy, measures.balanced_accuracy, *macro], axis=1)
    per_class = np.stack([measures.per_class[name] for name in CLASS_MEASURES], axis=2)
    return overall, per_class.reshape(len(weights), -1)


def _weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights @ values) / weights.sum(axis=1, dtype=float, keepdims=True)


def _table(value: np.ndarray, resampled: np.ndarray, index) -> pd.DataFrame:
    low, high = interval(resampled)
    return pd.DataFrame({"value": value, "low": low, "high": high}, index=index)
