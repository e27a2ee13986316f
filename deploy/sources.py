"""Images by any name: files, folders and zip archives, one after another.

Enters: paths as a user gives them. Leaves: a name for each image, unlike every other, and its
bytes, read when they are wanted.
"""

import logging
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.pictures import SUFFIXES
from misc_utils.errors import UserError
from misc_utils.messages import counted

log = logging.getLogger(__name__)

LARGEST = 500_000_000  # bytes of one image


@dataclass(frozen=True)
class Source:
    """One image."""

    name: str  # of its results: letters, digits, - and _ of its path
    shown: str  # its path as the user knows it
    file: Path
    entry: str = ""  # in the zip archive `file`

    def read(self) -> bytes:
        """Its bytes; OSError or ValueError where they cannot be had."""
        if not self.entry:
            if self.file.stat().st_size > LARGEST:
                raise ValueError(f"larger than {LARGEST // 10**6} MB")
            return self.file.read_bytes()
        try:
            with zipfile.ZipFile(self.file) as archive, archive.open(self.entry) as stream:
                content = stream.read(LARGEST + 1)  # whatever size the archive says it has
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"cannot be unpacked ({error})") from None
        if len(content) > LARGEST:
            raise ValueError(f"larger than {LARGEST // 10**6} MB")
        return content


def find_sources(paths: Sequence[str]) -> list[Source]:
    """The images in these files, folders and zip archives, in order of their paths.

    A file that is named is taken whatever its ending; in folders and archives those with an ending
    of SUFFIXES are, and a message says which are not. UserError: a path does not exist, an archive
    is damaged, or there is no image.
    """
    found: list[tuple[str, Path, str]] = []
    left: list[str] = []  # files that nobody hid, of other endings
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            found += [(str(file), file, "") for file in inside if is_image(file.relative_to(path))]
            left += [str(file) for file in inside if _is_other(file.relative_to(path))]
        elif path.suffix.lower() == ".zip" and path.is_file():
            inside = _entries(path)
            found += [(f"{path}/{name}", path, name) for name in inside if is_image(Path(name))]
            left += [f"{path}/{name}" for name in inside if _is_other(Path(name))]
        elif path.exists():
            found.append((str(path), path, ""))
        else:
            raise UserError(f"{path}: there is no such file or folder. Correct the path.")
    if not found:
        raise UserError(
            f"{', '.join(map(str, paths))}: no image in it. Expected files ending in "
            f"{', '.join(SUFFIXES)}."
        )
    if left:
        log.warning("left out, as their endings are not those of images: %s", counted(left))
    return list(_named(found))


def _entries(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return sorted(info.filename for info in opened.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: cannot be read as a zip archive ({error}).") from None


def is_image(path: Path) -> bool:
    """Whether a path inside a folder or archive is taken for an image, by its name."""
    return not _is_hidden(path) and path.suffix.lower() in SUFFIXES


def _is_other(path: Path) -> bool:
    return not _is_hidden(path) and path.suffix.lower() not in SUFFIXES


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _named(found: Sequence[tuple[str, Path, str]]) -> Iterator[Source]:
    """Short names; one that another image has already gets a number."""
    taken: set[str] = set()
    for shown, file, entry in dict.fromkeys(found):
        stem = re.sub(r"[^\w-]+", "_", Path(entry or file.name).stem).strip("_")[:80] or "image"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        yield Source(name, shown, file, entry)
