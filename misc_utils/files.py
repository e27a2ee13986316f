"""Files that are there whole or not at all, and work that one process at a time may do.

Enters: the name a file or piece of work is to have. Leaves: a temporary name in the same folder
while a file is written; locks in a folder `.locks`; what went wrong with a disk, in words.
"""

import contextlib
import errno
import glob
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from misc_utils.errors import UserError

log = logging.getLogger(__name__)

PARTIAL = ".partial_"  # how temporary names begin

AGAIN = "Then start the same command again: it goes on where it was (with --overwrite: anew)."
MENDS = {
    errno.ENOSPC: f"the disk is full. Free some space. {AGAIN}",
    errno.EDQUOT: f"your share of the disk is used up. Free some space. {AGAIN}",
    errno.EFBIG: f"files may not get that large here (see `ulimit -f`). {AGAIN}",
    errno.EACCES: "no permission. Change its rights, or let ISIC_ROOT name a folder of your own.",
    errno.EPERM: "not permitted. Change its rights, or let ISIC_ROOT name a folder of your own.",
    errno.EROFS: "the disk is read-only. Let ISIC_ROOT name a folder that can be written to.",
    errno.EIO: f"the disk answers with an error. Have it looked at. {AGAIN}",
    errno.ESTALE: f"the network disk went away. {AGAIN}",
    errno.ELOOP: "a symbolic link leads to itself. Make it lead to a file or folder.",
    errno.ENOTDIR: "a part of this path is a file and not a folder. Move it away.",
    errno.EISDIR: "is a folder, where a file is expected. Move it away.",
    errno.EEXIST: "is there, but not as a folder. Move it away, or mend the link that it is.",
    errno.ENAMETOOLONG: "the name is longer than the disk allows. Choose a shorter one.",
    errno.EMFILE: "too many files are open (see `ulimit -n`).",
}
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class InUseError(Exception):
    """Another process does the work at this moment."""


@contextmanager
def partial_file(file: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `file`; becomes `file` if all goes well, and goes away if not.

    Args:
        file: what is to be written; its folder is there.
        durable: the content is on the disk before the name is, so that not even a power failure
            leaves less than the whole. Off where something else checks the content later.

    Raises:
        UserError naming `file` when it cannot be written: no space, no permission ...
    """
    partial = file.with_name(f"{PARTIAL}{uuid.uuid4().hex[:12]}_{file.name}")
    if durable:
        remove_partials(file.parent, file.name, older_than=3600)
    try:
        with told_of(file):
            yield partial
            if durable:
                _sync(partial)
            os.replace(partial, file)
            if durable:
                _sync(file.parent)
    except FileNotFoundError as error:
        if PARTIAL not in os.fsdecode(error.filename or ""):
            raise
        raise UserError(
            f"{file}: another process deleted it, or its folder, while it was written. Start the "
            f"same command again when that one has ended."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def told_of(file: Path) -> Iterator[None]:
    """What goes wrong with the disk in the block is a UserError that names `file`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: HDF5's
        if said := explained(error, file):
            raise UserError(said) from None
        raise


def write_text(file: Path, text: str) -> None:
    """Write a text file (UTF-8, lines end as in `text`), whole or not at all."""
    with partial_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def new_array(file: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` file, mapped to be written to, whose space on the disk is taken at once.

    Without that, a disk that runs full would end the process on the spot (SIGBUS).
    """
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    take_room(file, file.stat().st_size)
    return array


def take_room(file: Path, size: int) -> None:
    """Make a file take `size` bytes on the disk; OSError when there is not that much room."""
    with file.open("ab") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)


def remove_partials(folder: Path, *names: str, older_than: float = 0) -> None:
    """Delete what killed processes left of these files, or of all; for who holds their lock.

    Without a lock, only what was not touched for `older_than` seconds can be nobody's.
    """
    for name in map(glob.escape, names or ("",)):
        for file in folder.glob(f"{PARTIAL}*{name and '_'}{name}"):
            with contextlib.suppress(FileNotFoundError):
                if not older_than or time.time() - file.stat().st_mtime > older_than:
                    file.unlink()


@contextmanager
def locked(folder: Path, name: str, wait: str = "") -> Iterator[None]:
    """Only one process at a time is in the block for `name` in `folder`; a kill frees it.

    Args:
        folder: gets a folder `.locks` that holds the lock.
        name: of the work.
        wait: what to log, once, while waiting for another process; "" raises at once.

    Raises:
        InUseError: another process is in the block.
    """
    file = folder / ".locks" / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, fallback_to_soft=False)  # a soft one would outlast a kill
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise InUseError(name) from None
            log.info(wait)
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this disk knows no locks; start one process at a time.", folder)
    try:
        yield
    finally:
        lock.release()


def explained(error: BaseException, file: Path | None = None) -> str | None:
    """A message that names the file and the mend; None for an error that is not the disk's.

    `file` stands in for the name that errors of writing lack, and for temporary names.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):  # HDF5's
        number = int(found[1])
    name = getattr(error, "filename", None)
    if file is not None and (name is None or PARTIAL in os.fsdecode(name)):
        name = file
    if number not in MENDS or name is None:
        return None
    return f"{os.fsdecode(name)}: {MENDS[number]}"


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; some network disks cannot sync folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
