"""What a comparison of trainings or ensembles says: lines for the terminal, and its report.

Enters: scores and paired differences with their intervals. Leaves: text, and an HTML file.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from inference.ensemble import shortened
from inference.scope import Scope
from reports import charts, facts, parts
from reports.pages import format_interval, readable
from reports.parts import Chart, Frame, Section, Table

PAIRED = (
    "Differences are paired: the same images, and the same resamples of them, for both. An "
    "interval that holds zero leaves open which is better."
)


def text(scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Both tables as lines; a difference whose interval crosses zero is called undecided."""
    lines = []
    for (name, measure), row in scores.iterrows():
        lines.append(f"{name}: {measure.replace('_', ' ')} {facts.interval_text(row)}")
    for (pair, measure), row in differences.iterrows():
        decided = "" if row.low > 0 or row.high < 0 else ", undecided"
        lines.append(
            f"{pair}: {measure.replace('_', ' ')} {facts.interval_text(row, '+')}{decided}"
        )
    return "\n".join(lines)


def report_file(folder: Path, scopes: Sequence[Scope]) -> Path:
    """Where `write` writes."""
    names = [scope.ensemble.name for scope in scopes]
    return folder / f"{shortened('_against_'.join(names) + '_tta' * scopes[0].tta)}.html"


def write(
    folder: Path,
    scopes: Sequence[Scope],
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    count: int,
) -> Path:
    """Write the report of what `count` images say into `folder`, named after all compared."""
    folder.mkdir(parents=True, exist_ok=True)
    file = report_file(folder, scopes)
    about, histories = {}, {}
    for scope in scopes:
        label = "+".join(scope.ensemble.labels)
        for part, values in facts.about(scope, None, count).items():
            about[f"{label}: {part.lower()}"] = values
        histories |= facts.histories(scope.ensemble)
    labels = " against ".join("+".join(scope.ensemble.labels) for scope in scopes)
    frame = Frame(
        title=f"Task {scopes[0].ensemble.task}: {labels}",
        about=about,
        histories=histories,
        limits=facts.limits(scopes[0]),
        notes=[PAIRED],
    )
    write_page(file, frame, scores, differences)
    return file


def write_page(file: Path, frame: Frame, scores: pd.DataFrame, differences: pd.DataFrame) -> None:
    """Write the page.

    Args:
        file: the HTML file.
        frame: title, facts and notes.
        scores: index: (name, measure); columns value, low, high (nan: no interval).
        differences: index: (pair, such as `b - a`, measure); the same columns. May be empty.
    """
    table = parts.two_way_table(scores)
    notes = [parts.INTERVAL, *frame.notes]
    sections = [
        Section("Scores", tables=[table], notes=notes, charts=_forests(scores, "Scores")),
        _differences_section(differences),
    ]
    subtitle = f"{len(table.rows):,} systems compared on the same images"
    parts.write_page(file, frame, subtitle, [], sections)


def _differences_section(differences: pd.DataFrame) -> Section:
    """Paired differences in tables, in words and as charts."""
    tables, text = [], []
    for pair in dict.fromkeys(differences.index.get_level_values(0)):
        text = ["Each pair on the same images: the first less the second."]
        of_pair = differences.xs(pair, level=0)[["value", "low", "high"]]
        rows = [
            [readable(measure), format_interval(value, low, high), _in_words(low, high)]
            for measure, value, low, high in of_pair.itertuples()
        ]
        tables.append(Table(["", "difference", "its interval"], rows, title=str(pair)))
    return Section("Differences", text, tables, charts=_forests(differences, "Differences"))


def _forests(table: pd.DataFrame, what: str) -> list[Chart]:
    """A forest plot for each measure of a table indexed by (name, measure)."""
    drawn = []
    for measure in dict.fromkeys(table.index.get_level_values(1)):
        png = charts.draw_forest(table.xs(measure, level=1), what == "Differences")
        alt = f"{what} in {readable(measure)} with their intervals; the numbers are in the table"
        drawn.append(parts.chart(png, readable(measure), alt))
    return drawn


def _in_words(low: float, high: float) -> str:
    if math.isnan(low) or math.isnan(high):
        return "none"
    if low <= 0 <= high:
        return "holds 0: no difference shown"
    return "above 0" if low > 0 else "below 0"
