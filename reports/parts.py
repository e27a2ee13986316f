"""The parts that reports are made of: tables of text, charts, galleries, facts.

Enters: tables of scores, histories, pictures uint8 RGB (H, W, 3), facts. Leaves: a page of sections
that the template `report.html.j2` writes; all in them is plain text, which the template escapes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from misc_utils.files import write_text
from reports import charts
from reports.pages import (
    data_uri,
    embed,
    format_fact,
    format_measure,
    format_score,
    readable,
    render,
)

INTERVAL = "In brackets: the 95 % interval."
TILES = (
    "threshold_jaccard",
    "micro_jaccard",
    "jaccard",
    "dice",
    "auc",
    "balanced_accuracy",
    "accuracy",
    "macro_auc",
)
MOST_TILES = 3  # of these, the first that there are
MOST_ROWS = 300  # of the table of images
MOST_FACTS = 6  # a list of more is folded


@dataclass(frozen=True)
class Frame:
    """What every report has besides scores: facts by list, the course of each training by run."""

    title: str
    about: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    histories: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    limits: Sequence[str] = ()  # sentences that say what was not tested
    notes: Sequence[str] = ()  # sentences to read with the scores


class Table(NamedTuple):
    """Text in rows; the first column names the row. A folded one opens when it is clicked."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    folded: bool = False


class Picture(NamedTuple):
    """A picture as a data URI, and the same in words."""

    uri: str
    image_id: str
    caption: str


class Chart(NamedTuple):
    """A chart as a data URI; `alt` says what it shows. A wide one takes a row of its own."""

    uri: str
    alt: str
    title: str = ""
    wide: bool = False


class Tile(NamedTuple):
    """A number to see first."""

    name: str
    value: str
    more: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    points: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    galleries: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    outlined: bool = False  # the pictures bear outlines, to be explained
    warns: bool = False

    @property
    def anchor(self) -> str:
        """What a link within the page names."""
        return self.title.lower().replace(" ", "-")

    @property
    def is_empty(self) -> bool:
        """Whether there is only a heading."""
        content = (self.text, self.tables, self.notes, self.points, self.charts, self.facts)
        return not any(map(len, content)) and not self.galleries


def write_page(
    file: Path, frame: Frame, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]
) -> None:
    """Write a page that needs no other file, no network and no JavaScript; whole or not at all.

    The first of the sections is that of the scores; what the frame holds is put behind it and at
    the end, and sections without content are left out.
    """
    first, *others = sections
    limits = Section("What this was not tested on", points=frame.limits, warns=True)
    everything = [first, limits, *others, _training(frame.histories), _about(frame.about)]
    shown = [section for section in everything if not section.is_empty]
    content = {"subtitle": subtitle, "tiles": tiles, "sections": shown, "most_facts": MOST_FACTS}
    write_text(file, render("report.html.j2", title=frame.title, **content))


def check_columns(table: pd.DataFrame, wanted: Sequence[str], name: str) -> None:
    """Raise ValueError if a table is empty or lacks a column."""
    missing = [column for column in wanted if column not in table.columns]
    if missing or not len(table):
        raise ValueError(f"{name} need rows with {', '.join(wanted)}; missing: {missing or 'rows'}")


def picture(image_id: str, caption: str, pixels: np.ndarray) -> Picture:
    """A picture of a gallery, from uint8 RGB (H, W, 3)."""
    return Picture(embed(pixels), image_id, caption)


def chart(png: bytes, title: str, alt: str, wide: bool = False) -> Chart:
    """A drawn chart."""
    return Chart(data_uri(png, "image/png"), alt, title, wide)


def tiles(scores: pd.DataFrame) -> list[Tile]:
    """The scores to see first, of a table indexed by measure."""
    found = [name for name in TILES if name in scores.index][:MOST_TILES]
    made = []
    for name in found:
        value, low, high = scores.loc[name, ["value", "low", "high"]]
        more = "" if math.isnan(low + high) else f"({format_score(low)} – {format_score(high)})"
        made.append(Tile(readable(name), format_score(value), more))
    return made


def scores_section(
    scores: pd.DataFrame, columns: Mapping[str, pd.DataFrame] | None, notes: Sequence[str]
) -> Section:
    """Measures by rows; `scores`, unless `columns` hold them too, and `columns` side by side."""
    tables = dict(columns or {})
    if not any(table is scores for table in tables.values()):
        tables = {"score": scores} | tables
    for name, table in tables.items():
        check_columns(table, ("value", "low", "high"), f"scores ({name})")
    names = dict.fromkeys(measure for table in tables.values() for measure in table.index)
    rows = [
        [readable(measure), *(_cell(table, measure) for table in tables.values())]
        for measure in names
    ]
    return Section("Scores", tables=[Table(["", *tables], rows)], notes=[INTERVAL, *notes])


def two_way_table(table: pd.DataFrame, counts: Mapping[str, int] | None = None) -> Table:
    """Scores indexed by (name, measure): a row per name, a column per measure.

    `counts` {name: number of images} is a column of its own.
    """
    check_columns(table, ("value", "low", "high"), "scores")
    names = dict.fromkeys(table.index.get_level_values(0))
    measures = dict.fromkeys(table.index.get_level_values(1))
    rows = []
    for name in names:
        count = [] if counts is None else [f"{counts.get(name, 0):,}"]
        rows.append([str(name), *count, *(_cell(table, (name, one), one) for one in measures)])
    head = ["", *(["images"] if counts is not None else []), *map(readable, measures)]
    return Table(head, rows)


def _training(histories: Mapping[str, pd.DataFrame]) -> Section:
    """Curves over the epochs, and the best of them in words."""
    histories = {name: table for name, table in histories.items() if len(table)}
    measures, drawn = charts.curves_of(histories), []
    for measure in measures[: charts.MOST_CURVES]:
        alt = f"{readable(measure)} of each epoch, in training and on held-out images"
        png = charts.draw_training_curves(histories, [measure])
        drawn.append(chart(png, readable(measure), alt))
    shown = measures[:2]
    head = ["run", "epochs", *(f"best held-out {readable(measure)}" for measure in shown)]
    rows = [
        [name, f"{len(table):,}", *(_best(table, measure) for measure in shown)]
        for name, table in histories.items()
    ]
    return Section("Training", tables=[Table(head, rows)] if measures else [], charts=drawn)


def _about(about: Mapping[str, Mapping[str, object]]) -> Section:
    """Named lists of facts."""
    facts = {
        name: {str(key): format_fact(value) for key, value in values.items()}
        for name, values in about.items()
        if values
    }
    return Section("Settings and data", facts=facts)


def images_table(images: pd.DataFrame) -> Table:
    """A row per image, the worst Jaccard index first; no more than 300."""
    worst = images.sort_values("jaccard", kind="stable")[:MOST_ROWS]
    title = f"All {len(images):,}, worst first"
    if len(images) > len(worst):
        title = f"The worst {len(worst):,} of {len(images):,}"
    rows = [
        [str(image_id), *(_plain(name, value) for name, value in zip(worst, row, strict=True))]
        for image_id, row in zip(worst.index, worst.itertuples(index=False), strict=True)
    ]
    return Table(["image", *map(readable, worst.columns)], rows, title, folded=True)


def _cell(table: pd.DataFrame, key: object, measure: str | None = None) -> str:
    """Score and interval of a row; empty if there is none."""
    if key not in table.index:
        return ""
    value, low, high = (float(number) for number in table.loc[key, ["value", "low", "high"]])
    return format_measure(measure or str(key), value, low, high)


def _best(history: pd.DataFrame, measure: str) -> str:
    """`.297 in epoch 7`."""
    values = history.get(f"val_{measure}")
    if values is None or values.isna().all():
        return "none"
    place = values.idxmin() if measure.endswith("loss") else values.idxmax()
    epoch = charts.epochs_of(history)[place]
    return f"{format_score(float(values[place]))} in epoch {epoch:.0f}"


def _plain(name: str, value: object) -> str:
    """A cell of the table of images."""
    if name == "lesion_share" and not math.isnan(value):
        return f"{100 * value:.2f} %"
    if isinstance(value, (float, np.floating)):
        return format_score(float(value))
    return format_fact(value)
