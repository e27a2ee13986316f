"""All parts of the answers for an archive as one table, and a page that sums them up.

Enters: Parts. Leaves: `predictions.parquet`, on request `predictions.csv`, with a row per image in
the order of the listing, and `index.html`. Some ten thousand rows are in memory at a time.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.csv import CSVWriter
from tqdm import tqdm

from archives.parts import PROBABILITY, PartError, Parts, mask_name
from archives.shards import Shard
from datasets.pictures import read_image, read_mask
from deploy import answers
from deploy.archive import Archive, as_text, open_archive, pictures
from misc_utils.errors import UserError
from misc_utils.files import partial_file, write_text
from misc_utils.messages import listed
from reports.pages import embed, format_share, render

ROWS = 50_000  # of a row group of the table
SHOWN = 100  # of the images that were not answered
EXAMPLES = 12  # of each kind
SIDE = 240  # longest side of their pictures, in pixels
BINS = 20
# column: its title, and where its last bin begins to hold all that is larger
HISTOGRAMS = {
    "certainty": ("Probability of the class that was decided", 1.0),
    "agreement": ("Share of the networks that agree on the class", 1.0),
    "lesion_share": ("Share of the image that is lesion", 1.0),
    "unlikeness": ("Distance to the training images, in thresholds", 2.0),
}
REASONS = 200  # different ones that are counted; further ones are counted together


@dataclass(eq=False)
class Overview:
    """What the page says, gathered table by table."""

    images: int = 0
    reasons: Counter = field(default_factory=Counter)  # why images were not answered
    failed: list[tuple[str, str]] = field(default_factory=list)  # the first of them: path, reason
    classes: Counter = field(default_factory=Counter)
    unlike: int = 0
    with_unlikeness: int = 0
    without_lesion: int = 0
    histograms: dict[str, np.ndarray] = field(default_factory=dict)  # int (BINS,) by column
    uncertain: list[dict] = field(default_factory=list)  # EXAMPLES rows, the worst first
    most_unlike: list[dict] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many images were answered."""
        return self.images - self.reasons.total()

    def add(self, table: pa.Table) -> None:
        """Take in the rows that follow."""
        index = pa.array(np.arange(self.images, self.images + len(table)))
        self.images += len(table)
        bad = table.filter(pc.is_valid(table["reason"]))
        for path, reason in zip(bad["path"].to_pylist(), bad["reason"].to_pylist(), strict=True):
            known = reason in self.reasons or len(self.reasons) < REASONS
            self.reasons[reason if known else "other reasons"] += 1
            if len(self.failed) < SHOWN:
                self.failed.append((path, reason))
        table = table.append_column("index", index).filter(pc.is_null(table["reason"]))
        columns = set(table.column_names)
        if "class" in columns:
            shares = [name for name in table.column_names if name.startswith(PROBABILITY)]
            largest = pc.max_element_wise(*(table[name] for name in shares))
            table = table.append_column("certainty", largest)
            self.classes.update(table["class"].to_pylist())
            self.uncertain = _first(self.uncertain, table, "certainty", "ascending")
            distance = table["unlikeness"]
            self.with_unlikeness += len(distance) - distance.null_count
            self.unlike += pc.sum(table["unlike_training_images"]).as_py() or 0
            self.most_unlike = _first(self.most_unlike, table, "unlikeness", "descending")
        if "lesion_share" in columns:
            self.without_lesion += pc.sum(pc.equal(table["lesion_share"], 0)).as_py() or 0
        for name, (_, end) in HISTOGRAMS.items():
            if name in table.column_names and table[name].null_count < len(table):
                values = np.clip(table[name].drop_null().to_numpy(), 0, end)
                counts = np.histogram(values, BINS, (0, end))[0]
                self.histograms[name] = self.histograms.get(name, 0) + counts

    def summary(self) -> dict[str, int]:
        """Its counts, for the record and the terminal."""
        counts = {"images": self.images, "answered": self.answered}
        counts |= {"not_answered": self.reasons.total()}
        if "lesion_share" in self.histograms:
            counts["without_lesion"] = self.without_lesion
        if self.with_unlikeness:
            counts["unlike_the_training_images"] = self.unlike
        return counts


def merge(parts: Parts, shards: int, with_csv: bool) -> Overview:
    """Write the tables; what is in them.

    Raises UserError, naming parts and shards, unless every part is there, whole, and of the images
    that were listed, which have names of their own.
    """
    numbers = range(parts.listing.parts)
    if missing := [number for number in numbers if not parts.file(number).exists()]:
        raise UserError(_lacking(parts, shards, missing))
    overview = Overview()
    with ExitStack() as stack:
        writers = []
        for table in _tables(parts, shards):
            if not writers:
                files = [parts.folder / "predictions.parquet"]
                files += [parts.folder / "predictions.csv"] * with_csv
                for file in files:
                    partial = stack.enter_context(partial_file(file))
                    kind = CSVWriter if file.suffix == ".csv" else pq.ParquetWriter
                    writers.append(stack.enter_context(kind(partial, table.schema)))
            for writer in writers:
                writer.write_table(table)
            overview.add(table)
    return overview


def _tables(parts: Parts, shards: int) -> Iterator[pa.Table]:
    """All rows, some ten thousand at a time."""
    held, rows = [], 0
    for number in tqdm(range(parts.listing.parts), "merging", unit="part"):
        try:
            held.append(parts.read(number).replace_schema_metadata())
        except PartError as error:
            raise UserError(f"{error}. {_again(parts, shards, [number])}") from None
        rows += len(held[-1])
        if rows >= ROWS:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)


def _lacking(parts: Parts, shards: int, missing: Sequence[int]) -> str:
    images = sum(map(parts.listing.size, missing))
    return (
        f"{parts.folder}: {images} of {parts.listing.images} images are not answered yet; these "
        f"parts are missing: {listed(missing, 10)}. {_again(parts, shards, missing)}"
    )


def _again(parts: Parts, shards: int, missing: Sequence[int]) -> str:
    """What to repeat so that these parts are made."""
    if shards == 1:
        return "Repeat the command of predict_archive.py that began it."
    all_shards = [Shard(number, shards) for number in range(1, shards + 1)]
    wanted = [
        shard
        for shard in all_shards
        if not set(missing).isdisjoint(shard.parts(parts.listing.parts))
    ]
    flags = listed([f"--shard {shard}" for shard in wanted], 10)
    return f"Repeat the command of predict_archive.py that began it, with {flags}."


def _first(kept: list[dict], table: pa.Table, column: str, order: str) -> list[dict]:
    """The EXAMPLES rows that come first by a column; of equal ones those that were there before."""
    table = table.filter(pc.is_valid(table[column]))
    chosen = table.take(pc.sort_indices(table, [(column, order)])[:EXAMPLES])
    sign = 1 if order == "ascending" else -1
    both = kept + chosen.to_pylist()
    return sorted(both, key=lambda row: sign * row[column])[:EXAMPLES]


def write_report(parts: Parts, overview: Overview, made_by: dict) -> Path:
    """Write index.html, one file that needs no other; the file."""
    archive = _open(made_by["settings"])
    examples = []
    for title, rows in (
        ("Least certain", overview.uncertain),
        ("Most unlike the training images", overview.most_unlike),
    ):
        cards = [_card(parts, archive, row) for row in rows]
        if cards:
            examples.append((title, cards))
    content = {
        "title": f"Predictions of {parts.folder.name}",
        "archive": as_text(made_by["settings"]["archive"]),
        "nets": list(made_by["weights"]),
        "tiles": _tiles(overview),
        "classes": _bars(overview.classes.most_common()),
        "reasons": overview.reasons.most_common(),
        "failed": overview.failed,
        "more": overview.reasons.total() - len(overview.failed),
        "histograms": [_histogram(*pair) for pair in overview.histograms.items()],
        "examples": examples,
        "pictures": any(card["uri"] for _, cards in examples for card in cards),
        "use": answers.NOT_FOR_DIAGNOSIS,
    }
    file = parts.folder / "index.html"
    write_text(file, render("archive.html.j2", **content))
    return file


def _tiles(overview: Overview) -> list[tuple[str, str]]:
    tiles = [
        ("images", f"{overview.images:,}"),
        ("not answered", format_share(overview.reasons.total(), overview.images)),
    ]
    if "lesion_share" in overview.histograms:
        share = format_share(overview.without_lesion, overview.answered)
        tiles.append(("no lesion found", share))
    if overview.with_unlikeness:
        share = format_share(overview.unlike, overview.with_unlikeness)
        tiles.append(("unlike the training images", share))
    return tiles


def _bars(counts: Sequence[tuple[str, int]]) -> list[tuple[str, str, float]]:
    """Label, count as text, length of the bar in per cent."""
    largest = max((count for _, count in counts), default=0) or 1
    return [(label, f"{count:,}", round(100 * count / largest, 1)) for label, count in counts]


def _histogram(name: str, counts: np.ndarray) -> tuple[str, list]:
    title, end = HISTOGRAMS[name]
    edges = np.linspace(0, end, BINS + 1)
    labels = [f"{low:.2f} – {high:.2f}" for low, high in pairwise(edges)]
    if end != 1:
        labels[-1] = f"from {edges[-2]:.2f}"
    return title, _bars(list(zip(labels, map(int, counts), strict=True)))


def _open(settings: dict) -> Archive | None:
    """The archive, for pictures; None where it is gone, or cannot be read from anywhere."""
    try:
        archive = open_archive(Path(settings["archive"]), settings["image_column"])
    except (UserError, OSError):
        return None
    return archive if archive.at_random else None


def _card(parts: Parts, archive: Archive | None, row: dict) -> dict:
    said = f"{row['class']}, probability {row['certainty']:.3f}"
    if row["unlikeness"] is not None:
        said += f"; {row['unlikeness']:.2f} thresholds from the training images"
    return {"name": row["name"], "said": said, "uri": _picture(parts, archive, row)}


def _picture(parts: Parts, archive: Archive | None, row: dict) -> str:
    """An image with the outline of its lesion, as a data URI; empty where it cannot be had."""
    if archive is None:
        return ""
    number, place = divmod(row["index"], parts.listing.part_size)
    try:
        (picture,) = pictures(archive, [parts.listing.part(number)[place]])
        image, mask = read_image(picture.read())[0], None
        if parts.masks:
            with tarfile.open(parts.file(number, ".tar")) as tar:
                mask = read_mask(tar.extractfile(mask_name(row["name"])).read())
        return embed(answers.outlined(image, mask), SIDE)
    except (UserError, OSError, ValueError, KeyError):  # KeyError: earlier code named it otherwise
        return ""
