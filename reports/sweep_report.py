"""A sweep: one page of its trainings, their scores, and links to their reports.

Enters: scores of each training with intervals, the state of each run. Leaves: an HTML file that
names other files by their place beside it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from misc_utils.files import write_text
from reports.pages import format_interval, format_score, readable, render

NUMBERED = "seed"  # trainings that differ in this alone are repetitions of one another


@dataclass(frozen=True)
class Row:
    """A training that was scored."""

    label: str  # backbone:version
    values: Mapping[str, str]  # of the grid
    scores: Mapping[str, tuple[float, float, float]]  # measure -> value, low, high
    report: Path
    tuned: str = ""  # what was chosen on held-out predictions

    @property
    def text(self) -> str:
        """Its scores in a line."""
        return ", ".join(
            f"{readable(measure)} {value:.3f} ({low:.3f} to {high:.3f})"
            for measure, (value, low, high) in self.scores.items()
        )


def write(
    file: Path,
    title: str,
    command: str,
    rows: Sequence[Row],
    states: Sequence[Sequence[str]],
    comparisons: Mapping[str, Path],
    problems: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        file: the HTML file.
        title: of the page.
        command: that made the sweep.
        rows: the trainings that were scored.
        states: of each run: name, state, epochs, more.
        comparisons: what is compared -> its report.
        problems: {run or training: why it has not finished}.
    """
    content = {
        "command": command,
        "values": list(rows[0].values) if rows else [],
        "measures": [readable(measure) for measure in rows[0].scores] if rows else [],
        "rows": [
            {
                "label": row.label,
                "values": list(row.values.values()),
                "scores": [format_interval(*score) for score in row.scores.values()],
                "tuned": row.tuned,
                "report": _beside(file, row.report),
            }
            for row in rows
        ],
        "repeated": repeated(rows),
        "states": states,
        "comparisons": {name: _beside(file, other) for name, other in comparisons.items()},
        "problems": problems,
    }
    write_text(file, render("sweep.html.j2", title=title, **content))


def _beside(file: Path, other: Path) -> str:
    """A link from one file to another."""
    return Path(os.path.relpath(other, file.parent)).as_posix()


def repeated(rows: Sequence[Row]) -> list[tuple[str, int, list[str]]]:
    """Of trainings that differ in the seed alone: the others' values, how many, mean and spread.

    The spread is the standard deviation of a sample. Unless they share a split_seed, the seed also
    draws the split, so that the spread of the images is part of it.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if NUMBERED in row.values:
            others = [f"{k} {v}" for k, v in row.values.items() if k != NUMBERED]
            groups.setdefault(", ".join(others) or "all", []).append(row)
    found = []
    for name, group in groups.items():
        if len(group) > 1:
            values = [[row.scores[m][0] for row in group] for m in group[0].scores]
            spreads = [f"{format_score(mean(v))} ± {format_score(stdev(v))}" for v in values]
            found.append((name, len(group), spreads))
    return found
