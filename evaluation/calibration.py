"""Probabilities that mean what they say, and decisions for the balanced accuracy; pure.

Enters: log-probabilities (M, N, C) of the M members of an ensemble, or probabilities (N, C), and
the true classes int (N,). Leaves: a temperature, weights of members and of classes; measures of
calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from evaluation.class_scoring import decide

if TYPE_CHECKING:  # `blend` does without it, and without SciPy
    import pandas as pd

LEAST = 1e-15  # a smaller probability counts as this: no image can cost infinitely much
TEMPERATURES = (0.05, 20.0)
BINS = 15
STEPS = 2.0 ** np.arange(-2, 2.01, 0.25)  # factors that a decision weight is tried with
ROUNDS = 3
PARTS = 5  # of an only fold, so that values are scored on images they were not fitted on


@dataclass(frozen=True)
class ClassChoice:
    """How members become one probability: softmax(sum of weight * log-probability / T)."""

    weights: tuple[float, ...]  # of the members of an ensemble, not negative, sum 1
    temperature: float = 1.0  # T: above 1 makes less sure, below 1 surer
    decision_weights: tuple[float, ...] | None = None  # a factor per class; None: not tuned

    def to_json(self) -> dict:
        """The values as JSON takes them."""
        factors = self.decision_weights and list(self.decision_weights)
        values = {"temperature": self.temperature, "decision_weights": factors}
        return {"member_weights": list(self.weights)} | values


def blend(log_probability: np.ndarray, how: ClassChoice | None = None) -> np.ndarray:
    """Probabilities float64 (N, C) of log-probabilities (M, N, C); None: the plain mean."""
    how = how or equal_weights(len(log_probability))
    mean = np.tensordot(how.weights, log_probability, axes=1)
    scaled = mean / how.temperature
    likelihood = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probability = likelihood / likelihood.sum(axis=1, keepdims=True)
    if how.decision_weights is None:
        return probability
    return reweigh(probability, np.asarray(how.decision_weights))


def equal_weights(members: int) -> ClassChoice:
    """The plain mean of so many members."""
    return ClassChoice((1 / members,) * members)


def fit_blend(log_probability: np.ndarray, truth: np.ndarray) -> ClassChoice:
    """Weights of the members and one temperature, for the least negative log-likelihood.

    Temperature scaling (Guo et al., ICML 2017) of a weighted mean: with theta = weight / T the
    likelihood is concave in theta >= 0, so there is one best answer.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    rows = np.arange(len(truth))

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(np.tensordot(theta, log_probability, axes=1), axis=1)
        expected = np.einsum("nc,mnc->mn", np.exp(log_p), log_probability)
        slope = (expected - log_probability[:, rows, truth]).mean(axis=1)
        return float(-log_p[rows, truth].mean()), slope

    members = len(log_probability)
    start, bounds = np.full(members, 1 / members), [(0.0, 1 / TEMPERATURES[0])] * members
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    if theta.sum() <= 0:
        return ClassChoice(tuple(start.tolist()), TEMPERATURES[1])
    temperature = float(np.clip(1 / theta.sum(), *TEMPERATURES))
    return ClassChoice(tuple((theta / theta.sum()).tolist()), temperature)


def fit_temperature(log_probability: np.ndarray, truth: np.ndarray) -> ClassChoice:
    """The temperature alone, for members (M, N, C) of equal weights."""
    equal = equal_weights(len(log_probability))
    mean = np.tensordot(equal.weights, log_probability, axes=1)
    return replace(equal, temperature=fit_blend(mean[None], truth).temperature)


def negative_log_likelihood(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Of each image, float (N,); a true class given less than 1e-15 counts as given that."""
    return -np.log(np.maximum(probability[np.arange(len(truth)), truth], LEAST))


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017), 0..1: the mean gap of `reliability`."""
    table = reliability(truth, probability, bins)
    gaps = (table["accuracy"] - table["confidence"]).abs()
    return float((gaps * table["images"]).sum() / len(truth))


def reliability(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """How often the decision is right, by the confidence it was made with (Guo et al. 2017).

    The confidence is the largest probability of a row; where two classes share it the decision is
    wrong, as it is to the organisers' scorer. Bin k of K holds confidences in (k/K, (k + 1)/K].

    Returns:
        DataFrame with a row for each bin that holds an image: `part`, its number from 0; mean
        confidence, accuracy, number of images.
    """
    import pandas as pd

    confidence = probability.max(axis=1)
    right = decide(probability) == truth
    part = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    table = pd.DataFrame({"part": part, "confidence": confidence, "accuracy": right, "images": 1})
    how = {"confidence": "mean", "accuracy": "mean", "images": "sum"}
    return table.groupby("part").agg(how).reset_index()


def fit_decision_weights(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """A factor per class, float (C,) of geometric mean 1, for the highest balanced accuracy.

    One class after another is tried with each of STEPS; of equal scores the factor next to the old
    one stays, so a class of few images is not moved without cause. A tie for the largest value is
    wrong, as to the scorer: the factors never lower the score of the images they are fitted on.
    """
    weights = np.ones(probability.shape[1])
    count = np.bincount(truth, minlength=len(weights))
    share = np.where(count > 0, 1 / np.maximum(count, 1), 0)[truth] / (count > 0).sum()

    def score(some: np.ndarray) -> float:
        return float(share[decide(reweigh(probability, some)) == truth].sum())

    best = score(weights)
    steps = sorted(STEPS, key=lambda step: abs(np.log(step)))
    for _ in range(ROUNDS):
        before = best
        for k in np.flatnonzero(count > 0):
            for step in steps:
                tried = weights.copy()
                tried[k] = step
                if (value := score(tried)) > best + 1e-12:
                    weights, best = tried, value
        if best == before:
            break
    return weights / np.exp(np.log(weights).mean())


def reweigh(probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) times a factor per class, each row summing to 1 again."""
    scaled = probability * np.asarray(weights)
    return scaled / scaled.sum(axis=1, keepdims=True)


def parts_of(folds: Sequence[int], groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """The parts that values are fitted without: the folds, or PARTS of an only fold; int (N,).

    Args:
        folds: of each image.
        groups: of each image what no part may split: its lesion, or the image itself.
        seed: of the split of an only fold.
    """
    if len(set(folds)) > 1:
        return np.asarray(folds, dtype=int)
    import pandas as pd

    group = pd.factorize(np.asarray(groups), sort=True)[0]
    return (np.random.default_rng(seed).permutation(group.max() + 1) % PARTS)[group]


def nested(
    parts: np.ndarray,
    fit: Callable[[np.ndarray], object],
    apply: Callable[[object, np.ndarray], np.ndarray],
) -> np.ndarray:
    """What fitted values do on images they were not fitted on.

    Args:
        parts: int (N,), the fold of each image.
        fit: bool (N,) rows to fit on -> values.
        apply: values and bool (N,) rows -> an array with a row for each of those.

    Returns:
        An array with N rows: each part by the values fitted on all other parts.

    Raises:
        ValueError: fewer than two parts.
    """
    names = np.unique(parts)
    if len(names) < 2:
        raise ValueError("one part alone has no others to fit on")
    result = None
    for name in names:
        rows = parts == name
        values = apply(fit(~rows), rows)
        if result is None:
            result = np.empty((len(parts), *values.shape[1:]), values.dtype)
        result[rows] = values
    return result
