"""The challenge's measures by the organisers' rules (the package isic-challenge-scoring 5.6.0).

Enters: a truth and a prediction at original size, uint8 (H, W) or bool; class indices int (N,) with
probabilities (N, C). Leaves: scores 0..1 as plain floats, and the confusion matrix they come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

JACCARD_THRESHOLD = 0.65  # a Jaccard index below it counts as 0
FOREGROUND_ABOVE = 128  # a grey value must be greater, so that 128 itself is background


@dataclass(frozen=True, eq=False)
class ClassScores:
    """What `score_classes` measures over C classes.

    Attributes:
        accuracy: weighted share of right decisions.
        balanced_accuracy: mean recall over the classes that the truth holds: the Task 3 measure.
        confusion: (C, C + 1), rows are true classes, columns decided ones, the last column
            undecided (a tie for the largest value). int64 counts; float64 sums of weights where
            weights were given.
        precision: float64 (C,), nan for a class that was never decided.
        recall: float64 (C,), nan for a class that the truth does not hold.
    """

    accuracy: float
    balanced_accuracy: float
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def score_mask(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Score one predicted mask (Task 1).

    Args:
        truth: (H, W), bool, or uint8 0..255 of which values above 128 are lesion. A {0, 1} uint8
            mask is therefore all background, as it is to the organisers: hand over `mask > 0`.
        prediction: the same, of the same size.

    Returns:
        accuracy, sensitivity, specificity, dice, jaccard and threshold_jaccard (the Jaccard index,
        0 where it is below 0.65), each 0..1. A ratio of nothing to nothing is 1: sensitivity
        without lesion, specificity without background, dice and jaccard of two empty masks.

    Raises:
        ValueError: wrong type or sizes that differ.
    """
    truth, prediction = _foreground(truth, "truth"), _foreground(prediction, "prediction")
    if truth.shape != prediction.shape or truth.size == 0:
        raise ValueError(
            f"truth and prediction must have one size, not {truth.shape} and {prediction.shape}"
        )
    in_truth, in_prediction = np.count_nonzero(truth), np.count_nonzero(prediction)
    both = np.count_nonzero(truth & prediction)
    either = in_truth + in_prediction - both
    neither = truth.size - either
    jaccard = _ratio(both, either)
    return {
        "accuracy": float((both + neither) / truth.size),
        "sensitivity": _ratio(both, in_truth),
        "specificity": _ratio(neither, truth.size - in_truth),
        "dice": _ratio(2 * both, in_truth + in_prediction),
        "jaccard": jaccard,
        "threshold_jaccard": jaccard if jaccard >= JACCARD_THRESHOLD else 0.0,
    }


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every measure over images, as the organisers average (each image counts once).

    Raises ValueError without images, or when the images were not scored by the same measures.
    """
    if not scores:
        raise ValueError("there is no score to take the mean of")
    names = list(scores[0])
    if any(set(score) != set(names) for score in scores):
        raise ValueError(f"every image must have the same measures, the first has {names}")
    return {name: float(np.mean([score[name] for score in scores])) for name in names}


def score_classes(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> ClassScores:
    """Score class probabilities (Task 3).

    The decision is the largest value of a row; where several are exactly equal to it the row is
    undecided, which counts as wrong. A class whose rows all weigh 0 is not in the truth.

    Args:
        truth: int (N,), 0..C-1.
        probability: float (N, C), finite; only the order within a row matters.
        weights: float (N,), not negative; 0 leaves a row out. None weighs all rows 1.

    Raises:
        ValueError: shapes, types or values other than these, or no row with a weight.
    """
    truth, probability = np.asarray(truth), np.asarray(probability)
    _check_table(truth, probability)
    num_classes = probability.shape[1]
    is_largest = probability == probability.max(axis=1, keepdims=True)  # (N, C)
    decided = np.where(is_largest.sum(axis=1) > 1, num_classes, is_largest.argmax(axis=1))
    confusion = np.zeros((num_classes, num_classes + 1), np.int64 if weights is None else float)
    np.add.at(confusion, (truth, decided), 1 if weights is None else _checked(weights, len(truth)))

    right = confusion.diagonal()
    in_truth, in_decisions = confusion.sum(axis=1), confusion.sum(axis=0)[:num_classes]
    recall = _divide(right, in_truth)
    return ClassScores(
        accuracy=float(right.sum() / confusion.sum()),
        balanced_accuracy=float(recall[in_truth > 0].mean()),
        confusion=confusion,
        precision=_divide(right, in_decisions),
        recall=recall,
    )


def _foreground(mask: np.ndarray, name: str) -> np.ndarray:
    """Bool (H, W)."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"{name} must be uint8 or bool (H, W), not {mask.dtype} {mask.shape}")
    return mask if mask.dtype == np.bool_ else mask > FOREGROUND_ABOVE


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 1.0


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Float64 part / whole, nan where whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _check_table(truth: np.ndarray, probability: np.ndarray) -> None:
    if probability.ndim != 2 or truth.shape != probability.shape[:1] or probability.size == 0:
        raise ValueError(
            f"truth (N,) and probability (N, C) expected, not {truth.shape}, {probability.shape}"
        )
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"truth must be class indices, not {truth.dtype}")
    if truth.min() < 0 or truth.max() >= probability.shape[1]:
        raise ValueError(
            f"truth must be 0..{probability.shape[1] - 1}, not {truth.min()}..{truth.max()}"
        )
    if not np.isfinite(probability).all():
        raise ValueError(f"row {np.argwhere(~np.isfinite(probability))[0, 0]} is not finite")


def _checked(weights: np.ndarray, count: int) -> np.ndarray:
    """The weights as float64 (N,)."""
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"weights must be {count} finite numbers, none negative")
    if not weights.any():
        raise ValueError("every weight is 0: nothing is left to score")
    return weights
