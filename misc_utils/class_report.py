"""What an evaluation of classifiers says: scores with intervals, calibration, and the report.

Enters: a table with a row per image (lesion, fold, truth, a probability per class), the logits of
each member of an ensemble. Leaves: scores, text, and `<name>_report_<set>.html`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from misc_utils import bootstrap, calibration, eval_report, figures, report
from misc_utils.class_scoring import ClassScores, score_classes
from misc_utils.ensemble import Ensemble
from misc_utils.report import Shown

PARTS = 5  # an only fold is cut into, to calibrate on other images than those it is scored on
GALLERY = 12  # mistakes shown
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
    table: pd.DataFrame,
    truth: np.ndarray,
    log_probability: np.ndarray,
    chosen: Mapping | None,
    calibrate: bool,
) -> Scored:
    """Score the probabilities of a table, with intervals by lesion.

    Args:
        table: index image; columns lesion, fold, truth and one per class.
        truth: int (N,).
        log_probability: (M, N, C), of each member of the ensemble.
        chosen: what cls_tune chose, where it is in force.
        calibrate: also fit a temperature, for each fold on the other folds.
    """
    classes = tuple(name for name in table.columns if name not in NOT_CLASSES)
    probability = table[list(classes)].to_numpy()
    weights = bootstrap.resample(table["lesion"].tolist())
    overall, per_class = bootstrap.class_tables(truth, probability, weights, classes)
    calibrated, columns = None, {}
    parts = parts_of(table) if calibrate else np.zeros(0)
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


def _with_likelihood(
    overall: pd.DataFrame, truth: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    losses = calibration.negative_log_likelihood(truth, probability)
    low, high = bootstrap.interval((weights @ losses) / weights.sum(axis=1))
    rows = {
        "negative_log_likelihood": [float(losses.mean()), float(low), float(high)],
        "calibration_error": [calibration.calibration_error(truth, probability), np.nan, np.nan],
    }
    more = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    return pd.concat([overall, more])


def parts_of(table: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """The folds, int (N,); where there is only one, parts of it that no lesion crosses."""
    if table["fold"].nunique() > 1:
        return table["fold"].to_numpy().astype(int)
    lesion = pd.factorize(table["lesion"], sort=True)[0]
    return (np.random.default_rng(seed).permutation(lesion.max() + 1) % PARTS)[lesion]


def text(scored: Scored, table: pd.DataFrame) -> str:
    """Confusion matrix with precision and recall, measures of each class, overall scores."""
    lines = ["rows: truth, columns: prediction (the class of the largest probability)"]
    columns = [*scored.classes, "tie"]
    confusion = pd.DataFrame(scored.point.confusion, index=list(scored.classes), columns=columns)
    confusion = confusion.drop(columns=[] if confusion["tie"].any() else ["tie"])
    confusion["precision"], confusion["recall"] = scored.point.precision, scored.point.recall
    lines.append(confusion.to_string(float_format="{:.3f}".format, na_rep="none"))
    lines.append("each class against the others, its probability cut at 0.5:")
    measures = scored.per_class["value"].unstack()
    order = scored.per_class.index.get_level_values(1).unique()
    measures = measures.loc[list(scored.classes), order]
    lines.append(measures.to_string(float_format="{:.3f}".format, na_rep="none"))
    shown = next(iter(scored.columns.values()), scored.overall)
    lines.append(eval_report.scores_text(shown))
    if scored.columns:
        after = list(scored.columns.values())[1]["value"]
        lines.append(
            f"with a temperature fitted on other folds: negative log likelihood "
            f"{after['negative_log_likelihood']:.3f}, calibration error "
            f"{after['calibration_error']:.3f}"
        )
    if table["fold"].nunique() > 1:
        for fold, rows in table.reset_index().groupby("fold").groups.items():
            part = score_classes(scored.truth[rows], scored.probability[rows])
            lines.append(
                f"fold {fold}: accuracy {part.accuracy:.3f}, balanced accuracy "
                f"{part.balanced_accuracy:.3f}"
            )
    return "\n".join(lines)


def write(
    ensemble: Ensemble,
    images: str,
    used: Mapping,
    table: pd.DataFrame,
    scored: Scored,
    read: Callable[[str], np.ndarray],
) -> Path:
    """Write the report; `read` gives the picture (H, W, 3) of an image id."""
    columns, notes = eval_report.tuned_columns(ensemble, images, used)
    file = ensemble.file(f"report_{images}{'_tta' * used['tta']}.html")
    folds = eval_report.scored_folds(table)
    drawn = "lesions, with all their images"
    if images != "fold":
        drawn = "images; which show the same lesion is not known, so they may be too narrow"
    report.write_classification_report(
        file,
        title=f"{ensemble.name}: {eval_report.described(ensemble, images, folds)}",
        about=eval_report.about(ensemble, images, used, len(table)),
        overall=scored.columns.get("uncalibrated", scored.overall),
        per_class=scored.per_class,
        confusion=scored.point.confusion,
        classes=scored.classes,
        truth=scored.truth,
        probability=scored.probability,
        galleries={"Confident mistakes": confident_mistakes(table, scored, read)},
        histories=eval_report.histories(ensemble),
        columns=scored.columns | columns,
        calibrated=scored.calibrated,
        limits=eval_report.limits(ensemble, images),
        notes=[eval_report.INTERVALS.format(drawn), *notes],
    )
    return file


def confident_mistakes(
    table: pd.DataFrame, scored: Scored, read: Callable[[str], np.ndarray]
) -> list[Shown]:
    """The wrong decisions of the largest probability."""
    decided, sure = scored.probability.argmax(axis=1), scored.probability.max(axis=1)
    wrong = np.flatnonzero(decided != scored.truth)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:GALLERY]
    return [
        Shown(
            table.index[row],
            f"truth {scored.classes[scored.truth[row]]}, said {scored.classes[decided[row]]} "
            f"with {sure[row]:.3f}",
            figures.outline(read(table.index[row]), None, None),
        )
        for row in worst
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
