"""A class table as pages to leaf through: each image with its crop and its probabilities.

Enters: rows in any number and order, pictures uint8 RGB (H, W, 3), probabilities (C,) 0..1.
Leaves: `index.html`, `page_002.html`, ... in a folder, each complete in itself: no other file but
the pages it links to, no network, no JavaScript. One page at a time is held in memory.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from markupsafe import Markup

from misc_utils.files import told_of, write_text
from reports.pages import embed, format_score, format_share, render

THUMBNAIL = 160  # longest side of a picture, in pixels
QUALITY = 72  # of its JPEG
UNDECIDED = "undecided"  # the largest probability stands twice
CARDS = Markup("<!-- cards -->")  # where they come in a page; no escaped name looks like this
PAGE = re.compile(r"page_\d{3,}\.html")


@dataclass(frozen=True, eq=False)
class Row:
    """An image of the table.

    Attributes:
        image_id: stands above the picture.
        picture: uint8 RGB (H, W, 3); shown 160 pixels large, so it may be handed over small.
        crop: the same, of the part that was classified; None: not shown.
        probability: (C,), 0..1.
        truth: name of the true class; None: not known.
    """

    image_id: str
    picture: np.ndarray
    crop: np.ndarray | None
    probability: np.ndarray
    truth: str | None = None


@dataclass(frozen=True)
class Bar:
    """A probability; one of the class decided for is marked."""

    name: str
    value: str
    percent: float
    decided: bool


@dataclass(frozen=True)
class Card:
    """What a page says of an image; `right` is None where the truth is not known."""

    image_id: str
    picture: str
    crop: str
    decided: str
    truth: str
    right: bool | None
    bars: Sequence[Bar]


def write_pages(
    folder: Path, rows: Iterable[Row], classes: Sequence[str], title: str, per_page: int = 200
) -> Path:
    """Write the pages of a class table, and take away those an earlier, longer table left.

    Args:
        folder: gets the pages; made if need be. Its `page_<number>.html` are ours.
        rows: taken one by one, shown in this order.
        classes: C names.
        title: heading of the pages.
        per_page: images on a page.

    Returns:
        The first page, `index.html`, written last.

    Raises:
        ValueError: a row does not have C probabilities 0..1, or per_page is not positive.
    """
    if per_page < 1:
        raise ValueError(f"per_page must be 1 or more, not {per_page}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    decided, right = Counter(), Counter()
    with tempfile.TemporaryDirectory(prefix="partial_", dir=folder) as partial:
        parts = _write_parts(Path(partial), rows, classes, per_page, decided, right)
        count = max(len(parts), 1)
        names = ["index.html", *(f"page_{number:03d}.html" for number in range(2, count + 1))]
        shared = {"title": title, "names": names, "summary": _summary(decided, right, classes)}
        for place in reversed(range(count)):
            page = render("browse.html.j2", place=place, cards=CARDS, **shared)
            cards = parts[place].read_text(encoding="utf-8") if parts else ""
            write_text(folder / names[place], page.replace(CARDS, cards))
    for old in list(folder.iterdir()):
        if PAGE.fullmatch(old.name) and old.name not in names:
            old.unlink()
    return folder / names[0]


def _write_parts(
    partial: Path,
    rows: Iterable[Row],
    classes: Sequence[str],
    per_page: int,
    decided: Counter,
    right: Counter,
) -> list[Path]:
    """The cards of each page as a file; adds to the counts of decisions and of right ones."""
    parts = []
    rows = iter(rows)
    for first in rows:
        # one after another: what a template is handed may live on until the next garbage collection
        cards = _cards(chain([first], islice(rows, per_page - 1)), classes, decided, right)
        parts.append(partial / f"{len(parts)}.html")
        with told_of(parts[-1]):
            parts[-1].write_text(render("cards.html.j2", cards=cards), encoding="utf-8", newline="")
    return parts


def _cards(
    rows: Iterable[Row], classes: Sequence[str], decided: Counter, right: Counter
) -> Iterator[Card]:
    for row in rows:
        probability = np.asarray(row.probability, dtype=float)
        if (
            probability.shape != (len(classes),)
            or not ((0 <= probability) & (probability <= 1)).all()
        ):
            raise ValueError(f"{row.image_id}: {len(classes)} probabilities 0..1 expected")
        largest = probability == probability.max()
        name = classes[int(probability.argmax())] if largest.sum() == 1 else UNDECIDED
        bars = [
            Bar(one, format_score(value), round(100 * value, 1), bool(is_largest))
            for one, value, is_largest in zip(classes, probability, largest, strict=True)
        ]
        is_right = None if row.truth is None else name == row.truth
        decided[name] += 1
        right[is_right] += 1
        yield Card(
            image_id=row.image_id,
            picture=embed(row.picture, THUMBNAIL, QUALITY),
            crop="" if row.crop is None else embed(row.crop, THUMBNAIL, QUALITY),
            decided=name,
            truth=row.truth or "",
            right=is_right,
            bars=bars,
        )


def _summary(decided: Counter, right: Counter, classes: Sequence[str]) -> list[str]:
    """How many images, of which decisions, how many of them right."""
    lines = [f"{decided.total():,} images in the order of the table"]
    counts = [f"{name} {decided[name]:,}" for name in (*classes, UNDECIDED) if decided[name]]
    if counts:
        lines.append("decided as " + ", ".join(counts))
    known = right[True] + right[False]
    if known:
        lines.append(f"right where the truth is known: {format_share(right[True], known)}")
    return lines
