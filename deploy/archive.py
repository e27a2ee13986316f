"""Archives of many images: a folder, a tar, a zip archive, or a table of paths.

Enters: the path of one. Leaves: an entry for each image, always in the same order, and the bytes of
those that are wanted. Nothing is unpacked to the disk. Of a zip archive the table of contents is
held in memory, half a kilobyte an image; else no more than one folder's names.
"""

import bz2
import csv
import errno
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from datasets.pictures import SUFFIXES
from misc_utils.errors import UserError
from misc_utils.files import explained
from misc_utils.messages import listed

OPENERS = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LARGEST = 500_000_000  # bytes of one image
DAMAGES = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(UnicodeDecodeError, NotImplementedError),  # a zip archive's names, its version
)
UNREACHABLE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
# EIO: a bad sector; EINVAL: a place that cannot be, in a damaged zip archive
OF_ONE_IMAGE = (errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL)
ABSENT = -1  # the size of an entry that has no bytes of its own
NAMED = 10  # of the files that are left out


@dataclass(frozen=True)
class Entry:
    """An image of an archive, and what would differ if it were another one."""

    path: bytes  # as the archive has it, in the bytes of the file system
    size: int  # bytes; ABSENT: there is no such file, or a tar holds a link there
    stamp: int  # when it was changed, in s since 1970; of a zip archive its CRC
    position: int = 0  # of its bytes in an unpacked tar; its number in a zip archive

    @property
    def name(self) -> str:
        """The path as text."""
        return as_text(self.path)


@dataclass(frozen=True)
class Picture:
    """An image, for ask."""

    name: str  # of its results
    shown: str  # its path as the user knows it
    read: Callable[[], bytes]  # OSError or ValueError where its bytes cannot be had


def as_text(path: bytes | str | Path) -> str:
    """A path as text that can be printed and stored: bytes that are no UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_image(path: Path) -> bool:
    """Whether a path inside a folder or archive is taken for an image, by its name."""
    return not _is_hidden(path) and path.suffix.lower() in SUFFIXES


def _is_hidden(path: Path) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in path.parts)


class Archive(Protocol):
    """What folders, tars, zip archives and tables have in common."""

    path: Path
    shown_in: Path  # what stands before the name of an image where its path is shown
    left_out: int  # files of other endings that nobody hid, as far as they were listed
    left_names: list[str]  # the first NAMED of them
    at_random: bool  # whether any image can be read without those before it

    def entries(self) -> Iterator[Entry]:
        """Each image, in an order that is the same each time."""

    def contents(self, entries: Sequence[Entry]) -> Iterator[Callable[[], bytes]]:
        """What reads each of these entries, which are in order."""

    def version(self) -> str | None:
        """Equal where every image is the same; None: only its entries tell."""


def open_archive(path: Path, column: str) -> Archive:
    """The archive at a path, told by its ending; `column` holds the paths of a table.

    UserError where there is nothing of that kind.
    """
    name = path.name.lower()
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder. Correct the path.")
    if name.endswith(".zip"):
        return _Zip(path)
    if name.endswith((".csv", ".parquet")):
        return _Table(path, column)
    if name.endswith((".tar", ".tgz")) or ".tar." in name:
        return _Tar(path)
    raise UserError(
        f"{path}: expected a folder, or a file ending in .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, "
        f".zip, .csv or .parquet."
    )


def pictures(archive: Archive, entries: Sequence[Entry]) -> Iterator[Picture]:
    """The images of these entries, which are in order."""
    for entry, read in zip(entries, archive.contents(entries), strict=True):
        shown = os.path.join(as_text(archive.shown_in), entry.name)
        yield Picture(entry.name, shown, read)


class _Container:
    """What the kinds of archives share: which of their files are images."""

    def __init__(self, path: Path, shown_in: Path) -> None:
        self.path, self.shown_in = path, shown_in
        self._begin()

    def _begin(self) -> None:
        """Of what is left out, none is counted yet."""
        self.left_out, self.left_names = 0, []

    def _takes(self, name: str) -> bool:
        """Whether a file is an image, by its name; one that is not is counted unless hidden."""
        if is_image(Path(name)):
            return True
        if not _is_hidden(Path(name)):
            self.left_out += 1
            if len(self.left_names) < NAMED:
                self.left_names.append(name)
        return False


class _Files(_Container):
    """Images that are files: of a folder, or named by a table."""

    at_random = True

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.folder = os.fsencode(folder)

    def contents(self, entries: Sequence[Entry]) -> Iterator[Callable[[], bytes]]:
        for entry in entries:
            yield partial(self._read, entry)

    def version(self) -> None:
        return None

    def _entry(self, path: bytes) -> Entry:
        """OSError where the disk does not answer; what is no file that can be read is ABSENT."""
        try:
            found = os.stat(os.path.join(self.folder, path))
        except ValueError:  # a NUL byte in the path
            return Entry(path, ABSENT, 0)
        except OSError as error:
            if error.errno not in UNREACHABLE:
                raise
            return Entry(path, ABSENT, 0)
        if not stat.S_ISREG(found.st_mode):
            return Entry(path, ABSENT, 0)
        return Entry(path, found.st_size, int(found.st_mtime))

    def _read(self, entry: Entry) -> bytes:
        file = Path(os.fsdecode(os.path.join(self.folder, entry.path)))
        try:
            now = self._entry(entry.path)
        except OSError as error:
            raise _of_the_disk(file, error) from None
        if now != entry:
            raise UserError(
                f"{file}: changed since the archive was listed. What was answered before holds for "
                f"the archive as it was: put the file back, or begin again under another --name."
            )
        if entry.size == ABSENT:
            raise ValueError("there is no such file, or it cannot be reached")
        _check_size(entry)
        with _told_apart(file):
            return file.read_bytes()


class _Folder(_Files):
    """Every image in a folder, at any depth; links to folders are followed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)

    def entries(self) -> Iterator[Entry]:
        self._begin()
        yield from self._inside(b"", ())

    def _inside(self, below: bytes, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
        folder = os.path.join(self.folder, below)
        status = os.stat(folder)
        here = status.st_dev, status.st_ino
        if here in above:
            raise UserError(
                f"{os.fsdecode(folder)}: this link leads back to a folder that it is in. Remove it."
            )
        try:
            with os.scandir(folder) as found:
                inside = sorted((one.name, _is_folder(one)) for one in found)
        except PermissionError:
            raise UserError(
                f"{as_text(folder)}: no permission to look into this folder. Change its "
                f"permissions, or name the folders and files that are wanted."
            ) from None
        for name, is_folder in inside:
            path = os.path.join(below, name)
            if is_folder:
                if not _is_hidden(Path(os.fsdecode(name))):
                    yield from self._inside(path, (*above, here))
            elif self._takes(os.fsdecode(path)):
                yield self._entry(path)


class _Table(_Files):
    """The files that a column of a table names, from the table's folder on."""

    def __init__(self, path: Path, column: str) -> None:
        super().__init__(path, path.parent)
        self.column = column
        for _ in self._paths():  # whether there is such a column
            break

    def entries(self) -> Iterator[Entry]:
        for number, text in enumerate(self._paths(), 1):
            if not text:
                raise UserError(
                    f"{self.path}: row {number} has nothing in the column {self.column!r}. Fill it "
                    f"in, or take the row out."
                )
            yield self._entry(os.fsencode(text))

    def _paths(self) -> Iterator[str | None]:
        import pyarrow as pa  # other archives can be read without it
        import pyarrow.parquet as pq

        try:
            if self.path.suffix.lower() == ".csv":
                with self.path.open(encoding="utf-8-sig", newline="") as opened:
                    rows = csv.DictReader(opened)
                    self._check_column(rows.fieldnames or ())
                    for row in rows:
                        yield row[self.column]
                return
            with pq.ParquetFile(self.path) as table:
                self._check_column(table.schema_arrow.names)
                for batch in table.iter_batches(batch_size=10_000, columns=[self.column]):
                    yield from batch.column(0).cast(pa.string()).to_pylist()
        except (ValueError, csv.Error, pa.ArrowException) as error:  # ValueError: not UTF-8
            raise UserError(f"{self.path}: cannot be read as a table ({error}).") from None

    def _check_column(self, columns: Sequence[str]) -> None:
        if self.column not in columns:
            raise UserError(
                f"{self.path}: there is no column {self.column!r}. Name the one that holds the "
                f"paths with --image-column: {listed(list(columns))}."
            )


class _Tar(_Container):
    """A tar, plain or compressed; a compressed one is read from its beginning on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)
        self.open = OPENERS.get(path.suffix.lower(), open)
        self.at_random = self.open is open
        self.stream = self.open(path, "rb")  # stays open: reading goes on where it was

    def entries(self) -> Iterator[Entry]:
        self._begin()
        with (
            _told_of(self.path),
            self.open(self.path, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member) as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members = []  # else all of them are kept
                if member.isdir():
                    continue
                if not self._takes(member.name):
                    continue
                size = member.size if member.isreg() else ABSENT
                path = os.fsencode(member.name)
                yield Entry(path, size, int(member.mtime), member.offset_data)
            while not self.at_random and stream.read(1 << 20):  # to the checksum at the end
                pass

    def contents(self, entries: Sequence[Entry]) -> Iterator[Callable[[], bytes]]:
        for entry in entries:
            if self.at_random:
                yield partial(self._read, entry)
            else:
                with _told_of(self.path):
                    self.stream.seek(entry.position)
                    content = self.stream.read(min(max(entry.size, 0), LARGEST + 1))
                yield partial(self._checked, entry, content)

    def version(self) -> str:
        return _version(self.path)

    def _read(self, entry: Entry) -> bytes:
        size = min(max(entry.size, 0), LARGEST + 1)
        with _told_apart(self.path):
            content = os.pread(self.stream.fileno(), size, entry.position)
        return self._checked(entry, content)

    def _checked(self, entry: Entry, content: bytes) -> bytes:
        if entry.size == ABSENT:
            raise ValueError("a link or a special file in the tar, no ordinary file")
        _check_size(entry)
        if len(content) < entry.size:
            raise UserError(f"{self.path}: shorter than when it was listed. Put the file back.")
        return content


class _Member(tarfile.TarInfo):
    """A damaged header is an error; tarfile takes it for the end of the tar."""

    @classmethod
    def frombuf(cls, *args) -> "_Member":
        try:
            return super().frombuf(*args)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(f"{error}: damaged or cut off") from None


class _Zip(_Container):
    """A zip archive."""

    at_random = True

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)
        with _told_of(path):
            self.zip = zipfile.ZipFile(path)

    def entries(self) -> Iterator[Entry]:
        self._begin()
        for number, info in enumerate(self.zip.infolist()):
            # is_dir() of 3.11 fails for a name that is damaged to nothing
            if not info.filename.endswith("/") and self._takes(info.filename):
                path = info.filename.encode("utf-8", "surrogateescape")
                yield Entry(path, info.file_size, info.CRC, number)

    def contents(self, entries: Sequence[Entry]) -> Iterator[Callable[[], bytes]]:
        for entry in entries:
            yield partial(self._read, entry)

    def version(self) -> str:
        return _version(self.path)

    def _read(self, entry: Entry) -> bytes:
        _check_size(entry)
        info = self.zip.infolist()[entry.position]
        try:
            with _told_apart(self.path), self.zip.open(info) as stream:
                return stream.read(entry.size)  # whatever a damaged one unpacks to
        except (*DAMAGES, RuntimeError) as error:
            raise ValueError(f"cannot be unpacked ({error})") from None


def _is_folder(found: os.DirEntry) -> bool:
    try:
        return found.is_dir()
    except OSError as error:
        if error.errno not in UNREACHABLE:
            raise
        return False  # such as a link to itself


def _version(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} bytes, changed at {int(status.st_mtime)}"


@contextmanager
def _told_apart(file: Path) -> Iterator[None]:
    """Errors in reading one image as ValueError; those that the next would have, as UserError."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in OF_ONE_IMAGE:
            raise ValueError(error.strerror or str(error)) from None
        raise _of_the_disk(file, error) from None


def _of_the_disk(file: Path, error: OSError) -> UserError:
    said = f"{file}: {error.strerror}. What was answered before stays: repeat the command."
    return UserError(explained(error, file) or said)


def _check_size(entry: Entry) -> None:
    if entry.size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 10**6} MB")


@contextmanager
def _told_of(file: Path) -> Iterator[None]:
    """Turn an error of a damaged archive in the block into a UserError that names the file."""
    try:
        yield
    except DAMAGES as error:
        if isinstance(error, OSError) and (message := explained(error, file)):
            raise UserError(message) from None
        raise UserError(
            f"{file}: cannot be read as an archive ({error}). Replace it by an intact file."
        ) from None
