"""Answers for an archive in parts, each of which is there as a whole or not at all.

Enters: rows and masks, image by image. Leaves: for each part of the listing
`parts/part-000012.parquet`, a row per image, and where masks are wanted `parts/part-000012.tar` of
PNG files, whose SHA-256 the metadata of the first holds.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from archives.listing import Listing
from deploy import answers
from deploy.ask import Asked
from misc_utils.files import PARTIAL, partial_file, sha256

BOX = ("box_top", "box_left", "box_height", "box_width")
PROBABILITY = "probability_"  # before the name of a class
ELSEWHERE = {"": "%", ".": "%2E", "..": "%2E%2E"}  # parts of a path, and what stands for them


class PartError(Exception):
    """A part is not there, or not as it was written; says which of the two."""


@dataclass(frozen=True)
class Parts:
    """The parts of one folder of results."""

    folder: Path
    listing: Listing
    maker: str  # fingerprint of what makes them
    masks: bool  # whether there are masks

    def file(self, number: int, ending: str = ".parquet") -> Path:
        """Where part `number` is."""
        return self.folder / "parts" / f"part-{number:06}{ending}"

    def read(self, number: int) -> pa.Table:
        """The rows of a part; PartError unless it is there, whole, and of these images."""
        file = self.file(number)
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as opened:
                table = opened.read()
            about = table.schema.metadata or {}
            if about.get(b"maker", b"").decode() != self.maker:
                raise PartError(f"{file}: made by something different")
            if table["name"].to_pylist() != [entry.name for entry in self.listing.part(number)]:
                raise PartError(f"{file}: not of the images that were listed")
            if self.masks and sha256(self.file(number, ".tar")) != about[b"masks_sha256"].decode():
                raise PartError(f"{self.file(number, '.tar')}: damaged")
        except FileNotFoundError as error:
            raise PartError(f"{error.filename or file}: not there") from None
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise PartError(f"{file}: damaged ({error})") from None
        return table

    def is_whole(self, number: int) -> bool:
        """Whether a part needs no more work."""
        try:
            self.read(number)
        except PartError:
            return False
        return True

    def write(
        self, number: int, schema: pa.Schema, answered: Iterable[tuple[dict, bytes | None]]
    ) -> None:
        """Write a part: a row and, where there is one, a mask for each image, in order."""
        rows = []
        with self._tar(number) if self.masks else nullcontext() as tar:
            for row, mask in answered:
                rows.append(row)
                if tar is not None and mask is not None:
                    member = tarfile.TarInfo(mask_name(row["name"]))
                    member.size = len(mask)
                    tar.addfile(member, io.BytesIO(mask))
        about = {"maker": self.maker}
        if self.masks:
            about["masks_sha256"] = sha256(self.file(number, ".tar"))
        table = pa.Table.from_pylist(rows, schema.with_metadata(about))
        with partial_file(self.file(number)) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    @contextmanager
    def _tar(self, number: int) -> Iterator[tarfile.TarFile]:
        with (
            partial_file(self.file(number, ".tar")) as partial,
            tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar,
        ):
            yield tar

    def remove_partials(self, numbers: range) -> None:
        """Delete what a killed process left of these parts; call it while they are claimed."""
        ours = {self.file(number, end).name for number in numbers for end in (".parquet", ".tar")}
        for file in self.file(0).parent.glob(f"{PARTIAL}*"):
            if file.name.rpartition("_")[2] in ours:
                file.unlink(missing_ok=True)


def mask_name(name: str) -> str:
    """Of an image's mask in the tar of its part: another for each image, inside of any folder.

    Parts of a path that lead elsewhere are spelt out: `../a.png` is `%2E%2E/a.png.png`, and
    `/a.png` is `%/a.png.png`.
    """
    start = "./" if name.startswith("./") else ""  # as tars have it; it leads nowhere
    parts = name.removeprefix("./").split("/")
    return start + "/".join(map(_spelt_out, parts)) + ".png"


def _spelt_out(part: str) -> str:
    ordinary = f"%25{part[1:]}" if part.startswith("%") else part
    return ELSEWHERE.get(part, ordinary)


def schema_of(mask: bool, classes: Sequence[str]) -> pa.Schema:
    """The columns of a part, where masks are asked for and where classes are."""
    text, number, count = pa.string(), pa.float32(), pa.int32()
    columns = [("name", text), ("path", text), ("sha256", text), ("reason", text)]
    columns += [("height", count), ("width", count)]
    if mask:
        columns += [("lesion_share", number), *((name, count) for name in BOX)]
        columns += [("mask_agreement", number)]
    if classes:
        columns += [("class", text), *((f"{PROBABILITY}{name}", number) for name in classes)]
        columns += [("agreement", number), ("spread", number), ("unlikeness", number)]
        columns += [("unlike_training_images", pa.bool_())]
    return pa.schema(columns)


def row_of(masks: bool, asked: Asked) -> tuple[dict, bytes | None]:
    """The row of an image, and its mask as PNG where `masks` are wanted and there is one."""
    source, said = asked.source, asked.said
    about = {"path": source.shown, "sha256": asked.digest or None}
    if said is None:
        return {"name": source.name, "reason": asked.reason} | about, None
    row = answers.row_of(source.name, said) | about
    row |= dict(zip(BOX, row.pop("box", ()), strict=False))
    row |= {f"{PROBABILITY}{name}": one for name, one in row.pop("probability", {}).items()}
    mask = answers.encode(".png", said.mask) if masks and said.mask is not None else None
    return row, mask
