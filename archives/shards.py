"""Which process makes which parts of the answers for an archive.

Enters: the folder of all results, the name of one of them, an archive, `i/n`. Leaves: Parts that
are begun, once for all processes, and claimed, by one process each.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from archives.listing import check_same, read_listing, write_listing
from archives.parts import Parts
from deploy.archive import Archive
from misc_utils import provenance
from misc_utils.errors import UserError
from misc_utils.files import is_locked, locked

LISTING = "listing.parquet"
WAYS = "Choose another --name, or replace it with --overwrite (without --shard)."


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the work, numbered from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def parts(self, total: int) -> range:
        """Its parts of `total`: shares follow one another and differ by one part at most."""
        return range((self.number - 1) * total // self.count, self.number * total // self.count)


def parse_shard(text: str | None) -> Shard:
    """`2/8` as a Shard, None as the only one; UserError for anything else."""
    if text is None:
        return Shard(1, 1)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return Shard(int(found[1]), int(found[2]))
    raise UserError(f"--shard {text}: expected i/n with i from 1 to n, such as 1/8 to 8/8.")


def begin(
    submissions: Path,
    name: str,
    archive: Archive,
    made_by: dict,
    shards: int,
    overwrite: bool = False,
) -> Parts:
    """The parts of the results `name`; whoever comes first lists the archive, others wait.

    Args:
        submissions: the folder of all results.
        name: of the folder.
        archive: what is answered for; it must be as it was when it was listed.
        made_by: see provenance.check_maker; the listing is added. Its settings hold part_size, mask
            and masks.
        shards: into how many the work is divided this time; noted for the merge.
        overwrite: delete what is there.

    Raises:
        UserError: other settings, nets or images made what is there, or it is overwritten while
            processes are at work.
    """
    folder = submissions / name
    with _one_at_a_time(submissions, name):
        if overwrite:
            _check_idle(submissions, name)
            provenance.remove(submissions, name)
        record, file = provenance.record_of(submissions, name), folder / LISTING
        noted = {}
        if record.exists():
            noted = provenance.read_record(record)
            said = noted["made_by"].get("listing", {})
            provenance.check_maker(submissions, name, made_by | {"listing": said}, WAYS)
        is_new = not file.exists()
        if is_new:
            folder.mkdir(parents=True, exist_ok=True)
            write_listing(file, archive, made_by["settings"]["part_size"])
        listing = read_listing(file)
        made_by = made_by | {"listing": {"images": listing.images, "sha256": listing.sha256}}
        if record.exists():
            provenance.check_maker(submissions, name, made_by, WAYS)
        if noted.get("summary", {}).get("shards") != shards:
            complete = bool(noted) and noted["complete"]
            summary = noted.get("summary", {}) | {"shards": shards}
            provenance.write_record(submissions, name, made_by, complete, summary)
    if not is_new:
        check_same(listing, archive)
    return Parts(folder, listing, maker_of(made_by), made_by["settings"]["masks"])


def find_begun(submissions: Path, name: str) -> tuple[Parts, dict, int]:
    """The parts of results that were begun, what makes them, and into how many shards.

    UserError where there are none.
    """
    record = provenance.record_of(submissions, name)
    if not record.exists():
        raise UserError(f"{record}: there is no such file. Name what predict_archive.py wrote.")
    noted = provenance.read_record(record)
    made_by, shards = noted["made_by"], noted["summary"].get("shards")
    if shards is None or "listing" not in made_by:
        raise UserError(f"{record}: no record of an archive. Name what predict_archive.py wrote.")
    listing = read_listing(submissions / name / LISTING)
    if listing.sha256 != made_by["listing"]["sha256"]:
        raise UserError(
            f"{listing.file}: not the listing that {record} names. Delete it and repeat the "
            f"command of predict_archive.py: the archive is listed again."
        )
    parts = Parts(submissions / name, listing, maker_of(made_by), made_by["settings"]["masks"])
    return parts, made_by, shards


def reopen(parts: Parts) -> None:
    """Say that the results are not complete, as parts of them are about to be made."""
    submissions, name = parts.folder.parent, parts.folder.name
    noted = provenance.read_record(provenance.record_of(submissions, name))
    if noted["complete"]:
        summary = {"shards": noted["summary"]["shards"]}
        provenance.write_record(submissions, name, noted["made_by"], False, summary)


def maker_of(made_by: dict) -> str:
    """Fingerprint of what makes parts."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


@contextmanager
def claimed(parts: Parts, shard: Shard) -> Iterator[range]:
    """Only this process makes the parts of a shard in the block; UserError if it cannot."""
    submissions, name = parts.folder.parent, parts.folder.name
    numbers = shard.parts(parts.listing.parts)
    with ExitStack() as stack:
        if numbers:
            with _one_at_a_time(submissions, name):
                for first, last in _in_work(submissions, name):
                    if first <= numbers[-1] and numbers[0] <= last:
                        raise UserError(
                            f"{parts.folder}: another process makes the parts {first} to {last}, "
                            f"and shard {shard} is the parts {numbers[0]} to {numbers[-1]}. Wait "
                            f"until it ends, then repeat the command."
                        )
                lock = f"{name}_parts-{numbers[0]}-{numbers[-1]}"
                stack.enter_context(locked(submissions, lock))
            parts.file(0).parent.mkdir(parents=True, exist_ok=True)
            parts.remove_partials(numbers)
        yield numbers


def check_idle(submissions: Path, name: str) -> None:
    """UserError while a process makes parts of the results `name`."""
    with _one_at_a_time(submissions, name):
        _check_idle(submissions, name)


def _check_idle(submissions: Path, name: str) -> None:
    if at_work := _in_work(submissions, name):
        first, last = at_work[0]
        raise UserError(
            f"{submissions / name}: a process makes the parts {first} to {last} of it. Wait until "
            f"it ends, then repeat the command."
        )


def _in_work(submissions: Path, name: str) -> list[tuple[int, int]]:
    """First and last part of each shard that a process makes now."""
    files = sorted((submissions / ".locks").glob(f"{name}_parts-*-*.lock"))
    ends = [file.stem.split("-")[-2:] for file in files if is_locked(submissions, file.stem)]
    return [(int(first), int(last)) for first, last in ends]


def _one_at_a_time(submissions: Path, name: str) -> AbstractContextManager:
    said = f"{name}: waiting for a process that lists its images"
    return locked(submissions, f"{name}_claim", said)
