"""An evaluation or a comparison as one HTML file to open offline, print or mail.

Enters: scores with intervals as tables, a row per image, pictures uint8 RGB, histories, facts.
Leaves: one HTML file, whole or not at all, that needs no other file, no network, no JavaScript.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.challenge import JACCARD_THRESHOLD
from misc_utils.files import write_text
from reports import class_figures, score_figures
from reports import report_parts as parts
from reports.pages import embed, format_interval, format_score, format_share, readable, render
from reports.report_parts import Section, Shown, Table, Tile

__all__ = [
    "Shown",
    "embed",
    "write_classification_report",
    "write_comparison_report",
    "write_segmentation_report",
]

MOST_FACTS = 6  # a list of more is folded


def write_segmentation_report(
    file: Path,
    title: str,
    about: Mapping[str, Mapping[str, object]],
    scores: pd.DataFrame,
    images: pd.DataFrame,
    galleries: Mapping[str, Sequence[Shown]],
    histories: Mapping[str, pd.DataFrame],
    columns: Mapping[str, pd.DataFrame] | None = None,
    limits: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a Task 1 evaluation.

    Args:
        file: the HTML file to write; its folder must be there.
        title: heading of the page.
        about: named lists of facts: settings, data and folds, what it was made with.
        scores: index: measures; columns value, low, high (nan where there is no interval).
        images: index: image ids; at least one row. Columns jaccard, threshold_jaccard, dice, 0..1,
            and lesion_share: area of the true lesion by that of the image; others are shown too.
        galleries: {name: pictures with outlines}, such as the worst.
        histories: {run name: a row per epoch}, as Keras's CSVLogger writes it.
        columns: {name: scores}: further columns of the table of scores.
        limits: sentences that say what was not tested.
        notes: sentences to read with the scores.

    Raises:
        ValueError: a table lacks a column, or there is no image.
    """
    parts.check_columns(images, ("jaccard", "threshold_jaccard", "dice", "lesion_share"), "images")
    below = int((images["jaccard"] < JACCARD_THRESHOLD).sum())
    sections = [
        parts.scores_section(scores, columns, notes),
        *parts.limits_section(limits),
        _distribution_section(images, below),
        *parts.gallery_section(galleries, outlined=True),
        *parts.training_section(histories),
        Section("Every image", tables=[parts.images_table(images)]),
        *parts.about_section(about),
    ]
    share = f"{100 * below / len(images):.1f} %"
    more = f"{below:,} of {len(images):,}"
    tiles = [*parts.tiles(scores), Tile(f"images below {JACCARD_THRESHOLD}", share, more)]
    _write(file, title, f"Lesion boundaries (Task 1) in {len(images):,} images", tiles, sections)


def write_classification_report(
    file: Path,
    title: str,
    about: Mapping[str, Mapping[str, object]],
    overall: pd.DataFrame,
    per_class: pd.DataFrame,
    confusion: np.ndarray,
    classes: Sequence[str],
    truth: np.ndarray,
    probability: np.ndarray,
    galleries: Mapping[str, Sequence[Shown]],
    histories: Mapping[str, pd.DataFrame],
    columns: Mapping[str, pd.DataFrame] | None = None,
    calibrated: np.ndarray | None = None,
    limits: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a Task 3 evaluation.

    Args:
        file: the HTML file to write; its folder must be there.
        title: heading of the page.
        about: named lists of facts.
        overall: index: measures; columns value, low, high (nan where there is no interval).
        per_class: index: (class name, measure); the same columns.
        confusion: (C, C + 1) counts, rows true, columns decided, the last undecided.
        classes: C names.
        truth: int (N,), 0..C-1.
        probability: (N, C), 0..1.
        galleries: {name: pictures}, such as confident mistakes.
        histories: {run name: a row per epoch}.
        columns: {name: scores}: further columns of the table of overall scores.
        calibrated: (N, C): drawn as a second line of the reliability diagram.
        limits: sentences that say what was not tested.
        notes: sentences to read with the scores.

    Raises:
        ValueError: a table lacks a column, or the shapes do not belong together.
    """
    truth, probability, confusion = map(np.asarray, (truth, probability, confusion))
    shapes = {table.shape for table in (probability, calibrated) if table is not None}
    if shapes != {(len(truth), len(classes))} or not len(truth):
        raise ValueError(f"{shapes} are no tables of {len(truth)} images, {len(classes)} classes")
    counts = dict(zip(classes, np.bincount(truth, minlength=len(classes)), strict=True))
    confused = class_figures.draw_confusion(confusion, classes)
    alt = "Confusion matrix: rows are true classes, columns decided ones"
    sections = [
        parts.scores_section(overall, columns, notes),
        *parts.limits_section(limits),
        Section("By class", tables=[parts.two_way_table(per_class, counts)]),
        Section(
            "Confusion",
            text=["The most frequent mistakes:"],
            points=parts.mistakes(confusion, classes),
            charts=[parts.chart(confused, "", alt, wide=True)],
        ),
        _curves_section(truth, probability, calibrated, classes),
        *parts.gallery_section(galleries),
        *parts.training_section(histories),
        *parts.about_section(about),
    ]
    subtitle = f"Diagnoses (Task 3) of {len(truth):,} images"
    _write(file, title, subtitle, parts.tiles(overall), sections)


def write_comparison_report(
    file: Path,
    title: str,
    about: Mapping[str, Mapping[str, object]],
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame] | None = None,
    limits: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write how several runs or ensembles compare on the same images.

    Args:
        file: the HTML file to write; its folder must be there.
        title: heading of the page.
        about: named lists of facts.
        scores: index: (run name, measure); columns value, low, high (nan: no interval).
        differences: index: (pair, such as `b - a`, measure); the same columns. May be empty.
        histories: {run name: a row per epoch}.
        limits: sentences that say what was not tested.
        notes: sentences to read with the scores.

    Raises:
        ValueError: a table lacks a column, or there is no score.
    """
    table = parts.two_way_table(scores)
    runs = len(table.rows)
    sections = [
        Section("Scores", tables=[table], notes=[parts.INTERVAL, *notes], charts=_forests(scores)),
        *_differences_section(differences),
        *parts.limits_section(limits),
        *parts.training_section(histories),
        *parts.about_section(about),
    ]
    _write(file, title, f"{runs:,} systems compared on the same images", [], sections)


def _distribution_section(images: pd.DataFrame, below: int) -> Section:
    """How the Jaccard index is spread over the images, and over the sizes of lesions."""
    jaccard, share = (images[name].to_numpy(float) for name in ("jaccard", "lesion_share"))
    count = format_share(below, len(images))
    text = [
        f"{count} lie below {JACCARD_THRESHOLD}; the threshold Jaccard counts each as 0. "
        f"The median is {format_score(float(np.median(jaccard)))}."
    ]
    if (share <= 0).any():
        text.append(
            f"{(share <= 0).sum():,} without lesion in the truth have no size to be drawn at."
        )
    charts = [
        parts.chart(
            score_figures.draw_jaccard_histogram(jaccard),
            "How many images have which Jaccard index",
            f"Histogram of the Jaccard index; {count} below {JACCARD_THRESHOLD}",
        ),
        parts.chart(
            score_figures.draw_jaccard_by_size(jaccard, share),
            "Jaccard index by size of the lesion",
            "Jaccard index of each image against the lesion's share of it, with running median",
        ),
    ]
    return Section("Distribution", text=text, charts=charts)


def _curves_section(
    truth: np.ndarray,
    probability: np.ndarray,
    calibrated: np.ndarray | None,
    classes: Sequence[str],
) -> Section:
    """ROC of each class, and how far the probabilities can be believed."""
    absent = [name for number, name in enumerate(classes) if not (truth == number).any()]
    text = []
    if absent:
        text = [f"No image in the truth, thus no ROC curve: {', '.join(absent)}."]
    charts = [
        parts.chart(
            class_figures.draw_roc(truth, probability, classes),
            "ROC: each class against all others",
            "ROC curve of each class, its area in the legend",
        ),
        parts.chart(
            class_figures.draw_reliability(truth, probability, calibrated),
            "Reliability: confidence against accuracy",
            "Share of right decisions at each confidence, 15 bins; below, how many images each has",
        ),
    ]
    return Section("ROC and calibration", text=text, charts=charts)


def _differences_section(differences: pd.DataFrame) -> list[Section]:
    """Paired differences in tables, in words and as charts; nothing if there is none."""
    if not len(differences):
        return []
    tables = []
    for pair in dict.fromkeys(differences.index.get_level_values(0)):
        some = differences.xs(pair, level=0)[["value", "low", "high"]]
        rows = [
            [readable(measure), format_interval(value, low, high), _in_words(low, high)]
            for measure, value, low, high in some.itertuples()
        ]
        tables.append(Table(["", "difference", "its interval"], rows, title=str(pair)))
    text = ["Each pair on the same images: the first less the second."]
    return [Section("Differences", text, tables, charts=_forests(differences, zero=True))]


def _forests(table: pd.DataFrame, zero: bool = False) -> list[parts.Chart]:
    """A forest plot for each measure of a table indexed by (name, measure)."""
    charts = []
    for measure in dict.fromkeys(table.index.get_level_values(1)):
        some = table.xs(measure, level=1)
        what = "Differences" if zero else "Scores"
        alt = f"{what} in {readable(measure)} with their intervals; the numbers are in the table"
        png = score_figures.draw_forest(some, zero)
        charts.append(parts.chart(png, readable(measure), alt))
    return charts


def _in_words(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return "none"
    if low <= 0 <= high:
        return "holds 0: no difference shown"
    return "above 0" if low > 0 else "below 0"


def _write(
    file: Path, title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]
) -> None:
    content = {"tiles": tiles, "sections": sections, "most_facts": MOST_FACTS}
    write_text(Path(file), render("report.html.j2", title=title, subtitle=subtitle, **content))
