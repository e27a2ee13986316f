"""The listing of an archive: which images it has, in parts, and whether they are still the same.

Enters: an Archive, the size of a part. Leaves: `listing.parquet`, written once, with a row per
image in the archive's order and a row group per part; a fingerprint over all rows. Only one part is
in memory at a time, and eight bytes of every name while it is written.
"""

import array
import hashlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from datasets.pictures import SUFFIXES
from deploy.archive import ABSENT, Archive, Entry
from misc_utils.errors import UserError
from misc_utils.files import partial_file
from misc_utils.messages import listed, printable

NAMES = [field.name for field in fields(Entry)]
SCHEMA = pa.schema(zip(NAMES, (pa.binary(), *[pa.int64()] * 3), strict=True))
ELSE = "Put it back as it was, or begin again under another --name."


@dataclass(frozen=True)
class Listing:
    """A listing that was written."""

    file: Path
    part_size: int  # images of a part; the last may have fewer
    images: int
    sha256: str  # over all rows
    version: str | None  # of the archive, see Archive.version

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.images // self.part_size)

    def size(self, number: int) -> int:
        """How many images part `number` has."""
        return min(self.part_size, self.images - number * self.part_size)

    def part(self, number: int) -> list[Entry]:
        """The images of part `number`, counted from 0."""
        return next(self._groups(range(number, number + 1)))

    def entries(self) -> Iterator[Entry]:
        """All images."""
        for group in self._groups(range(self.parts)):
            yield from group

    def _groups(self, numbers: range) -> Iterator[list[Entry]]:
        try:
            with pq.ParquetFile(self.file, page_checksum_verification=True) as opened:
                for number in numbers:
                    columns = opened.read_row_group(number).to_pydict()
                    rows = zip(*(columns[name] for name in NAMES), strict=True)
                    yield [Entry(*row) for row in rows]
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.file, error) from None


def write_listing(file: Path, archive: Archive, part_size: int) -> Listing:
    """List an archive; UserError when it holds no image, or two of one name."""
    hashes, digest, images = array.array("Q"), hashlib.sha256(), 0
    with partial_file(file) as partial:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd", write_page_checksum=True) as to:
            entries = tqdm(
                archive.entries(), f"listing {printable(archive.path.name)}", unit="image"
            )
            left = map(astuple, entries)
            while rows := list(islice(left, part_size)):
                for row in rows:
                    digest.update(_line(row))
                    name = _told_apart_by(Entry(*row)).encode()
                    name = hashlib.blake2b(name, digest_size=8).digest()
                    hashes.append(int.from_bytes(name))
                images += len(rows)
                columns = map(list, zip(*rows, strict=True))
                to.write_table(pa.table(list(columns), SCHEMA))
            to.add_key_value_metadata(
                {
                    "part_size": str(part_size),
                    "sha256": digest.hexdigest(),
                    "version": archive.version() or "",
                }
            )
        if not images:
            raise UserError(
                f"{archive.path}: no image in it. Expected names ending in {', '.join(SUFFIXES)}."
            )
        _check_names(archive, hashes)
    return read_listing(file)


def read_listing(file: Path) -> Listing:
    """The listing that is there; UserError for any other file."""
    try:
        with pq.ParquetFile(file) as opened:
            about = {k.decode(): v.decode() for k, v in opened.metadata.metadata.items()}
            return Listing(
                file,
                int(about["part_size"]),
                opened.metadata.num_rows,
                about["sha256"],
                about["version"] or None,
            )
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _damaged(file, error) from None


def check_same(listing: Listing, archive: Archive) -> None:
    """UserError, naming the first difference, unless the archive holds the same images still."""
    version = archive.version()
    if version is not None and version == listing.version:
        return
    said = f"comparing {printable(archive.path.name)}"
    now = tqdm(archive.entries(), said, listing.images, unit="image")
    for there, here in zip_longest(listing.entries(), now):
        if there == here:
            continue
        if there is None or here is None or there.path != here.path:
            names = [printable(one.name) if one else "the end" for one in (there, here)]
            what = f"where {names[0]} was listed, there is now {names[1]}"
        elif here.size == ABSENT:
            what = f"{printable(here.name)} is not there any more"
        else:
            what = f"{printable(here.name)} is another file than when it was listed"
        raise UserError(f"{archive.path}: the archive has changed: {what}. {ELSE}")


def _line(row: tuple) -> bytes:
    return b"%b\0%d %d %d\n" % row


def _told_apart_by(entry: Entry) -> str:
    """What no other image may have: `./a.png` and `a.png` are one file where they are unpacked."""
    return entry.name.removeprefix("./")


def _check_names(archive: Archive, hashes: array.array) -> None:
    """UserError naming images whose name another one has as well."""
    ordered = np.sort(np.frombuffer(hashes, np.uint64))
    if not (ordered[1:] == ordered[:-1]).any():
        return
    seen: set[str] = set()
    twice: list[str] = []
    for entry in archive.entries():
        if (name := _told_apart_by(entry)) in seen:
            twice.append(name)
        seen.add(name)
    if twice:
        raise UserError(
            f"{archive.path}: these names stand for more than one image: {listed(twice)}. Rows are "
            f"told apart by them: take out or rename the others."
        )


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file}: cannot be read as the listing of an archive ({error}). Delete it and repeat the "
        f"command: the archive is listed again."
    )
