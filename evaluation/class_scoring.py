"""The challenge's measures of class probabilities (isic-challenge-scoring 5.6.0), for Task 3.

Enters: class indices int (N,), probabilities float (N, C), weights of the rows (B, N): a row of
ones for the score itself, one row per resample for its interval; both go through the same lines.
Leaves: scores 0..1, nan for what does not exist.
"""

from dataclasses import dataclass

import numpy as np

CLASS_MEASURES = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv", "auc", "ap")
CUT = 0.5  # a class is present where its probability is greater
CHUNK = 2_000_000  # weights looked at in one go, so that memory stays small


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Measures over C classes; of B rows of weights, every array has one more axis in front."""

    confusion: np.ndarray
    """(C, C + 1), rows are true classes, columns decided ones, the last column undecided (a tie
    for the largest value). int64 counts; float64 sums of weights where weights were given."""
    per_class: dict[str, np.ndarray]
    """{measure of CLASS_MEASURES: float64 (C,)}, each class against all others"""

    @property
    def right(self) -> np.ndarray:
        """Right decisions for each class (C,)."""
        return np.diagonal(self.confusion, axis1=-2, axis2=-1)

    @property
    def precision(self) -> np.ndarray:
        """Of each class, float64 (C,); nan for one that was never decided."""
        return _divide(self.right, self.confusion.sum(axis=-2)[..., :-1])

    @property
    def recall(self) -> np.ndarray:
        """Of each class, float64 (C,); nan for one that the truth does not hold."""
        return _divide(self.right, self.confusion.sum(axis=-1))

    @property
    def accuracy(self) -> np.ndarray:
        """Weighted share of right decisions."""
        return self.right.sum(axis=-1) / self.confusion.sum(axis=(-2, -1))

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """Mean recall over the classes that the truth holds: the Task 3 measure."""
        return mean_over_classes(self.recall)


def score_classes(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> ClassScores:
    """Score class probabilities (Task 3).

    The decision is the largest value of a row; where several are exactly equal to it the row is
    undecided, which counts as wrong. A class whose rows all weigh 0 is not in the truth: it has no
    AUC and no average precision (where the organisers' scorer ends with an error).

    Args:
        truth: int (N,), 0..C-1.
        probability: float (N, C), finite.
        weights: float (N,), not negative; 0 leaves a row out. None weighs all rows 1.

    Raises:
        ValueError: shapes, types or values other than these, or no row with a weight.
    """
    truth, probability = np.asarray(truth), np.asarray(probability)
    _check_table(truth, probability)
    one = np.ones(len(truth)) if weights is None else _checked(weights, len(truth))
    measures = measure_classes(truth, probability, one[None])
    confusion = measures.confusion[0]
    if weights is None:
        confusion = np.rint(confusion).astype(np.int64)
    per_class = {name: values[0] for name, values in measures.per_class.items()}
    return ClassScores(confusion, per_class)


def measure_classes(truth: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> ClassScores:
    """All measures for each row of weights (B, N); see score_classes for the rules.

    Per class, its probability is cut at > 0.5. A ratio of nothing to nothing is 1, as to the
    organisers: sensitivity without positives, ppv without positive predictions, and so on.
    """
    num_classes = probability.shape[1]
    truth_is = truth[:, None] == np.arange(num_classes)  # (N, C)
    cell = truth * (num_classes + 1) + decide(probability)
    from scipy import sparse

    # sparse: one of C * (C + 1) cells of each row
    places = np.ones(len(cell)), (np.arange(len(cell)), cell)
    cells = sparse.csr_matrix(places, (len(cell), num_classes * (num_classes + 1)))
    said = probability > CUT
    # each of the four by itself: differences of sums would leave a trace where nothing is
    outcomes = np.hstack([truth_is & said, ~truth_is & said, truth_is & ~said, ~truth_is & ~said])
    outcomes = outcomes.astype(float)  # (N, 4 C)
    curves = [_Curve(truth_is[:, k], probability[:, k]) for k in range(num_classes)]

    confusions, per_class = [], {name: [] for name in CLASS_MEASURES}
    step = max(CHUNK // len(truth), 1)
    for start in range(0, len(weights), step):
        some = weights[start : start + step].astype(np.float64)  # (b, N)
        confusions.append((some @ cells).reshape(-1, num_classes, num_classes + 1))
        sums = (some @ outcomes).reshape(-1, 4, num_classes)
        areas = np.stack([curve.areas(some) for curve in curves], axis=2)  # (2, b, C)
        for name, values in _measures(*np.moveaxis(sums, 1, 0), *areas).items():
            per_class[name].append(values)
    per_class = {name: np.concatenate(values) for name, values in per_class.items()}
    return ClassScores(np.concatenate(confusions), per_class)


def decide(probability: np.ndarray) -> np.ndarray:
    """The class of the largest value of each row of (N, C); C where several are equal to it."""
    is_largest = probability == probability.max(axis=1, keepdims=True)
    return np.where(is_largest.sum(axis=1) > 1, probability.shape[1], is_largest.argmax(axis=1))


def _measures(
    hit: np.ndarray,
    false_alarm: np.ndarray,
    miss: np.ndarray,
    neither: np.ndarray,
    roc_area: np.ndarray,
    precision_area: np.ndarray,
) -> dict[str, np.ndarray]:
    """CLASS_MEASURES from weights of rows, all (b, C)."""
    positive, negative = hit + miss, false_alarm + neither
    return {
        "accuracy": (hit + neither) / (positive + negative),
        "sensitivity": _divide(hit, positive, 1.0),
        "specificity": _divide(neither, negative, 1.0),
        "dice": _divide(2 * hit, 2 * hit + false_alarm + miss, 1.0),
        "ppv": _divide(hit, hit + false_alarm, 1.0),
        "npv": _divide(neither, neither + miss, 1.0),
        "auc": _divide(roc_area, positive * negative),
        "ap": _divide(precision_area, positive),
    }


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis over what is not nan; nan where nothing is left."""
    there = ~np.isnan(values)
    return _divide(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


class _Curve:
    """One class against the others: its images sorted once by falling probability."""

    def __init__(self, positive: np.ndarray, score: np.ndarray) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.positive = positive[self.order].astype(float)
        sorted_score = score[self.order]
        # groups of equal probabilities, which a threshold cannot part
        starts = np.flatnonzero(np.append(True, sorted_score[1:] != sorted_score[:-1]))
        # those without the class, one after another, are as good as one: no hit is counted there
        has_class = np.add.reduceat(self.positive, starts) > 0
        self.starts = starts[has_class | np.append(True, has_class[:-1])]

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Areas by trapezoids (ROC) and by steps (precision), as scikit-learn has them.

        Both (b,), in units of weight: to be divided by positives x negatives, and by positives.
        """
        ordered = weights.take(self.order, axis=1)
        new = np.add.reduceat(ordered, self.starts, axis=1)  # (b, groups)
        new_true = np.add.reduceat(ordered * self.positive, self.starts, axis=1)
        true, claimed = new_true.cumsum(axis=1), new.cumsum(axis=1)
        area = ((new - new_true) * (true - new_true / 2)).sum(axis=1)
        return area, (new_true * _divide(true, claimed, 0.0)).sum(axis=1)

    def sensitivity_at(self, specificity: float, weights: np.ndarray) -> np.ndarray:
        """See the function of this name; (b,) of weights (b, N)."""
        ordered = weights.take(self.order, axis=1).astype(float)
        new = np.add.reduceat(ordered, self.starts, axis=1)  # (b, groups)
        new_true = np.add.reduceat(ordered * self.positive, self.starts, axis=1)
        true, false = new_true.cumsum(axis=1), (new - new_true).cumsum(axis=1)
        positives, negatives = true[:, -1:], false[:, -1:]
        allowed = false <= (1 - specificity + 1e-12) * negatives  # below the largest such threshold
        most = np.where(allowed, true, 0.0).max(axis=1)
        there = (positives > 0) & (negatives > 0)
        return np.where(there[:, 0], _divide(most, positives[:, 0]), np.nan)


def sensitivity_at(
    specificity: float, positive: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The largest sensitivity at a threshold with at least this specificity.

    Args:
        specificity: 0..1.
        positive: bool (N,).
        score: float (N,), larger for positives; images of one score cannot be parted.
        weights: float (B, N), not negative.

    Returns:
        float64 (B,), nan where positives or negatives have no weight.
    """
    curve, values = _Curve(positive, score), []
    step = max(CHUNK // len(positive), 1)
    for start in range(0, len(weights), step):
        values.append(curve.sensitivity_at(specificity, weights[start : start + step]))
    return np.concatenate(values)


def _divide(part: np.ndarray, whole: np.ndarray, nothing: float = np.nan) -> np.ndarray:
    """Float64 part / whole, `nothing` where whole is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    out = np.full(np.broadcast_shapes(part.shape, whole.shape), nothing)
    return np.divide(part, whole, out=out, where=whole > 0)


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
