"""What an evaluation of classifiers says: lines for the terminal, and its report.

Enters: scores from evaluation.class_evaluation, a row per image. Leaves: text, and
`<name>_report_<set>.html`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.class_evaluation import Scored
from evaluation.class_scoring import score_classes
from inference.ensemble import Ensemble
from reports import eval_report, figures, report
from reports.report import Shown

GALLERY = 12  # mistakes shown


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
