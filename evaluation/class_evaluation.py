"""An evaluation of class probabilities: scores with intervals, calibrated on other folds.

Enters: a row per image (lesion, fold, truth, probabilities), and the members' log-probabilities
(M, N, C). Leaves: overall scores and scores of each class, with intervals by lesion.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation import bootstrap, calibration
from evaluation.class_scoring import ClassScores, score_classes

NOT_CLASSES = ("lesion", "fold", "truth")


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of C classes on N images."""

    classes: tuple[str, ...]
    truth: np.ndarray  # int (N,)
    probability: np.ndarray  # float (N, C)
    point: ClassScores
    overall: pd.DataFrame  # value, low, high of accuracy, balanced_accuracy, macro_...
    per_class: pd.DataFrame  # the same, index (class, measure)
    calibrated: np.ndarray | None  # (N, C), each image by a temperature fitted on other folds
    columns: dict[str, pd.DataFrame]  # overall tables, with likelihood and calibration error

    def as_json(self) -> dict:
        """Scores and intervals as JSON takes them; None for what does not exist."""
        flat = {name: _number(value) for name, value in self.overall["value"].items()}
        intervals = {
            name: [_number(low), _number(high)] for name, _, low, high in self.overall.itertuples()
        }
        per_class: dict[str, dict] = {name: {} for name in self.classes}
        for (name, measure), row in self.per_class.iterrows():
            per_class[name][measure] = [_number(row[part]) for part in ("value", "low", "high")]
        return flat | {"intervals_95": intervals, "per_class": per_class}


def score(
    table: pd.DataFrame, truth: np.ndarray, log_probability: np.ndarray, calibrate: bool
) -> Scored:
    """Score the probabilities of a table, with intervals by lesion.

    Args:
        table: index image; columns lesion, fold, truth and one per class.
        truth: int (N,).
        log_probability: (M, N, C), of each member of the ensemble.
        calibrate: also fit a temperature, for each fold on the other folds.
    """
    classes = tuple(name for name in table.columns if name not in NOT_CLASSES)
    probability = table[list(classes)].to_numpy()
    weights = bootstrap.resample(table["lesion"].tolist())
    overall, per_class = bootstrap.class_tables(truth, probability, weights, classes)
    if len(classes) == 2:
        more = bootstrap.two_class_tables(truth, probability, weights, classes)
        overall, per_class = pd.concat([more[0], overall]), pd.concat([per_class, more[1]])
    calibrated, columns = None, {}
    parts = calibration.parts_of(table["fold"], table["lesion"]) if calibrate else np.zeros(0)
    if len(np.unique(parts)) > 1:  # one lesion alone has no others to calibrate on
        calibrated = calibration.nested(
            parts,
            lambda rows: calibration.fit_temperature(log_probability[:, rows], truth[rows]),
            lambda blend, rows: calibration.blend(log_probability[:, rows], blend),
        )
        columns = {
            "uncalibrated": _with_likelihood(overall, truth, probability, weights),
            "calibrated on other folds": overall_table(truth, calibrated, weights, classes),
        }
    point = score_classes(truth, probability)
    return Scored(classes, truth, probability, point, overall, per_class, calibrated, columns)


def overall_table(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Overall scores (value, low, high), with negative log-likelihood and calibration error.

    The calibration error has no interval: resampling raises it, as it makes bins uneven.
    """
    overall, _ = bootstrap.class_tables(truth, probability, weights, classes)
    return _with_likelihood(overall, truth, probability, weights)


def difference_table(
    truth: np.ndarray, before: np.ndarray, after: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    """Overall scores and negative log-likelihood of `after` less those of `before`, both (N, C)."""
    both = [calibration.negative_log_likelihood(truth, each) for each in (before, after)]
    rows = {"negative_log_likelihood": _mean(both[1] - both[0], weights)}
    more = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return pd.concat([bootstrap.class_difference(truth, before, after, weights), more])


def _mean(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Mean of N values, and the ends of its interval."""
    low, high = bootstrap.interval((weights @ values) / weights.sum(axis=1))
    return [float(values.mean()), float(low), float(high)]


def _with_likelihood(
    overall: pd.DataFrame, truth: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    losses = calibration.negative_log_likelihood(truth, probability)
    rows = {
        "negative_log_likelihood": _mean(losses, weights),
        "calibration_error": [calibration.calibration_error(truth, probability), np.nan, np.nan],
    }
    more = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return pd.concat([overall, more])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
