"""Images by any name: files, folders and zip archives, one after another.

Enters: paths as a user gives them. Leaves: a name for each image, unlike every other, and its
bytes, read when they are wanted.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from datasets.pictures import SUFFIXES
from deploy.archive import LARGEST, Picture, as_text, open_archive
from misc_utils.errors import UserError
from misc_utils.messages import listed

log = logging.getLogger(__name__)

LONGEST = 80  # bytes of the name of an image's results, before a number
Found = tuple[str, Callable[[], bytes]]  # the path of an image as it is shown, what reads it


def find_sources(paths: Sequence[str]) -> list[Picture]:
    """The images in these files, folders and zip archives, in order of their paths.

    A file that is named is taken whatever its ending; in folders and archives those with an ending
    of SUFFIXES are, and a message says which are not. UserError: a path does not exist, an archive
    is damaged, a folder cannot be listed, or there is no image.
    """
    found: dict[tuple[Path, int], Found] = {}  # by file, and its number in a zip archive
    left_out, left_names = 0, []
    for text in paths:
        path = Path(os.path.expanduser(text))
        is_folder = path.is_dir()
        if is_folder or (path.suffix.lower() == ".zip" and path.is_file()):
            opened = open_archive(path, "")
            entries = list(opened.entries())
            for entry, read in zip(entries, opened.contents(entries), strict=True):
                if is_folder:
                    file = path / os.fsdecode(entry.path)
                    found[file, 0] = as_text(file), partial(_read_inside, file)
                else:
                    found[path, entry.position] = f"{as_text(path)}/{entry.name}", read
            left_out += opened.left_out
            left_names += [f"{path}/{name}" for name in opened.left_names]
        elif path.exists():
            found[path, 0] = as_text(path), partial(_read, path)
        else:
            raise UserError(f"{path}: there is no such file or folder. Correct the path.")
    if not paths:
        raise UserError("no images are named. Name files, folders or zip archives of images.")
    if not found:
        raise UserError(
            f"{', '.join(paths)}: no image in it. Expected files ending in {', '.join(SUFFIXES)}."
        )
    if left_out:
        shown, more = listed(left_names[:10]), left_out - min(len(left_names), 10)
        log.warning(
            "left out, as their endings are not those of images: %s: %s%s",
            *(left_out, shown, f" and {more} more" if more else ""),
        )
    return list(_named(found.values()))


def _read(file: Path) -> bytes:
    """The bytes of a file; OSError or ValueError where they cannot be had."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 10**6} MB")
    return file.read_bytes()


def _read_inside(file: Path) -> bytes:
    """The same for what a folder holds, which may be a pipe: reading it would never end."""
    if not file.is_file():
        raise ValueError("there is no such file, or it cannot be reached")
    return _read(file)


def _named(found: Iterator[Found]) -> Iterator[Picture]:
    """Short names; one that another image has already gets a number."""
    taken: set[str] = set()
    last: dict[str, int] = {}  # number that a stem had
    for shown, read in found:
        stem = re.sub(r"[^\w-]+", "_", Path(shown).stem).strip("_")
        # bytes, as disks count them; what is before and behind a name must find room too
        stem = stem.encode()[:LONGEST].decode(errors="ignore") or "image"
        name, number = stem, last.get(stem.casefold(), 1)
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        last[stem.casefold()] = number
        yield Picture(name, shown, read)
