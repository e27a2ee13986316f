"""The report of a Task 3 evaluation, and what it says in the terminal.

Enters: scores from evaluation.class_evaluation, a row per image. Leaves: text, and
`<name>_report_<set>.html`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.class_evaluation import Scored
from evaluation.class_scoring import score_classes
from inference.scope import Scope
from reports import charts, facts, figures, parts
from reports.pages import format_share
from reports.parts import Frame, Picture, Section

GALLERY = 12  # mistakes shown
MOST_COLUMNS = 12  # of a confusion matrix in the terminal that have names
MOST_MISTAKES = 6  # the most frequent ones are named


def text(scored: Scored, table: pd.DataFrame) -> str:
    """Confusion matrix with precision and recall, measures of each class, overall scores."""
    lines = ["rows: truth, columns: prediction (the class of the largest probability)"]
    names, columns = list(scored.classes), [*scored.classes, "tie"]
    if len(names) > MOST_COLUMNS:  # a line would not fit: columns by their number
        names = [f"{name} ({number})" for number, name in enumerate(names)]
        columns = [*map(str, range(len(names))), "tie"]
    confusion = pd.DataFrame(scored.point.confusion, index=names, columns=columns)
    confusion = confusion.drop(columns=[] if confusion["tie"].any() else ["tie"])
    confusion["precision"], confusion["recall"] = scored.point.precision, scored.point.recall
    lines.append(confusion.to_string(float_format="{:.3f}".format, na_rep="none"))
    lines.append("each class against the others, its probability cut at 0.5:")
    measures = scored.per_class["value"].unstack()
    order = scored.per_class.index.get_level_values(1).unique()
    measures = measures.loc[list(scored.classes), order]
    lines.append(measures.to_string(float_format="{:.3f}".format, na_rep="none"))
    lines += conventions(scored)
    lines.append(facts.scores_text(next(iter(scored.columns.values()), scored.overall)))
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
    scope: Scope,
    used: Mapping,
    table: pd.DataFrame,
    scored: Scored,
    read: Callable[[str], np.ndarray],
) -> Path:
    """Write the report of an evaluation; `read` gives the picture (H, W, 3) of an image id."""
    drawn = f"{scope.ensemble.runs[0].group}s, with all their images"
    if not scope.held_out:
        drawn = "images; which show the same lesion is not known, so they may be too narrow"
    columns, notes = facts.tuned_columns(scope, used)
    frame = facts.frame(scope, used, table["fold"], [drawn, *notes])
    galleries = {"Confident mistakes": confident_mistakes(table, scored, read)}
    file = scope.ensemble.file(f"report_{scope.ending}.html")
    write_page(file, frame, scored, galleries, columns)
    return file


def write_page(
    file: Path,
    frame: Frame,
    scored: Scored,
    galleries: Mapping[str, Sequence[Picture]],
    columns: Mapping[str, pd.DataFrame] = {},
) -> None:
    """Write the page; `columns` are {name: scores} beside those of `scored`."""
    truth, classes, confusion = scored.truth, scored.classes, scored.point.confusion
    overall = scored.columns.get("uncalibrated", scored.overall)
    counts = dict(zip(classes, np.bincount(truth, minlength=len(classes)), strict=True))
    matrix = parts.chart(
        charts.draw_confusion(confusion, classes),
        "",
        "Confusion matrix: rows are true classes, columns decided ones",
        wide=True,
    )
    sections = [
        parts.scores_section(overall, scored.columns | columns, frame.notes),
        Section(
            "By class",
            tables=[parts.two_way_table(scored.per_class, counts)],
            notes=conventions(scored),
        ),
        Section(
            "Confusion",
            text=["The most frequent mistakes:"],
            points=mistakes(confusion, classes),
            charts=[matrix],
        ),
        _curves_section(scored),
        Section("Gallery", galleries=galleries),
    ]
    subtitle = f"Diagnoses (Task 3) of {len(truth):,} images"
    parts.write_page(file, frame, subtitle, parts.tiles(overall), sections)


def _curves_section(scored: Scored) -> Section:
    """ROC of each class, and how far the probabilities can be believed."""
    truth, probability, classes = scored.truth, scored.probability, scored.classes
    absent = [name for number, name in enumerate(classes) if not (truth == number).any()]
    said = [f"No image in the truth, thus no ROC curve: {', '.join(absent)}."] if absent else []
    drawn = [
        parts.chart(
            charts.draw_roc(truth, probability, classes),
            "ROC: each class against all others",
            "ROC curves; areas in the legend, of many classes those of the smallest",
        ),
        parts.chart(
            charts.draw_reliability(truth, probability, scored.calibrated),
            "Reliability: confidence against accuracy",
            "Share of right decisions at each confidence, 15 bins; below, how many images each has",
        ),
    ]
    return Section("ROC and calibration", text=said, charts=drawn)


def mistakes(confusion: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The most frequent mistakes in words, of counts (C, C + 1) whose last column is undecided."""
    in_truth = confusion.sum(axis=1)
    wrong = confusion[:, :-1] * (1 - np.eye(len(classes), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_MISTAKES]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            share = format_share(int(wrong[row, column]), int(in_truth[row]))
            lines.append(f"{classes[row]} taken for {classes[column]}: {share}")
    if confusion[:, -1].any():
        share = format_share(int(confusion[:, -1].sum()), int(confusion.sum()))
        lines.append(
            f"undecided, as two classes were equally likely, which counts as wrong: {share}"
        )
    return lines


def conventions(scored: Scored) -> list[str]:
    """How the measures count a class that the truth does not hold; nothing where it holds all."""
    absent = [
        name for number, name in enumerate(scored.classes) if not (scored.truth == number).any()
    ]
    if not absent:
        return []
    return [
        f"No image in the truth: {', '.join(absent)}. As in the organisers' scorer, a ratio of "
        f"nothing to nothing is 1, so the sensitivity of such a class is 1 and raises the macro "
        f"mean; it has no AUC and no average precision, no recall, and no part in the balanced "
        f"accuracy."
    ]


def confident_mistakes(
    table: pd.DataFrame, scored: Scored, read: Callable[[str], np.ndarray]
) -> list[Picture]:
    """The wrong decisions of the largest probability."""
    decided, sure = scored.probability.argmax(axis=1), scored.probability.max(axis=1)
    wrong = np.flatnonzero(decided != scored.truth)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:GALLERY]
    return [
        parts.picture(
            table.index[row],
            f"truth {scored.classes[scored.truth[row]]}, said {scored.classes[decided[row]]} "
            f"with {sure[row]:.3f}",
            figures.outline(read(table.index[row]), None, None),
        )
        for row in worst
    ]
