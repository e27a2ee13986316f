"""Files that are written whole or not at all, locks between processes, and errors of the disk.

Enters: the name of a file or of a piece of work. Leaves: a temporary name in the same folder while
a file is written; locks in a folder `.locks`; messages that say what is wrong with a disk.
"""

import contextlib
import errno
import glob
import hashlib
import logging
import os
import re
import shutil
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

AGAIN = "Then repeat the command: it resumes (with --overwrite it starts from scratch)."
FIXES = {  # what an error of the disk means, and what to do
    errno.ENOSPC: f"the disk is full. Free some space. {AGAIN}",
    errno.EDQUOT: f"your quota on this disk is used up. Free some space. {AGAIN}",
    errno.EFBIG: f"the file exceeds the largest size allowed here (see `ulimit -f`). {AGAIN}",
    errno.EACCES: "no permission. Change its permissions, or set ISIC_ROOT to a folder of yours.",
    errno.EPERM: "not permitted. Change its permissions, or set ISIC_ROOT to a folder of yours.",
    errno.EROFS: "the disk is read-only. Set ISIC_ROOT to a folder that can be written to.",
    errno.EIO: f"the disk reports an error. Have it checked. {AGAIN}",
    errno.ESTALE: f"the network disk was disconnected. Connect it. {AGAIN}",
    errno.ELOOP: "a symbolic link points to itself. Make it point to a file or folder.",
    errno.ENOTDIR: "a part of this path is a file, not a folder. Move that file away.",
    errno.EISDIR: "is a folder, but a file is expected. Move it away.",
    errno.EEXIST: "exists, but is not a folder. Move it away, or fix it if it is a symbolic link.",
    errno.ENAMETOOLONG: "the name is longer than the disk allows. Choose a shorter one.",
    errno.EMFILE: "too many files are open. Raise the limit (see `ulimit -n`).",
}
LOOK = 0.2  # seconds for which a lock is tried, as is_locked may hold it for a moment
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class InUseError(Exception):
    """Another process is doing the work now."""


@contextmanager
def partial_file(file: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `file`: renamed to `file` after the block, deleted on an exception.

    Args:
        file: the file to write; its folder exists.
        durable: wait until the content is on the disk before renaming, so that even a power failure
            leaves no partial file. False where something else checks the content later.

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
            f"{file}: another process deleted it, or its folder, while it was written. Repeat the "
            f"command when that process has ended."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def told_of(file: Path) -> Iterator[None]:
    """Turn an error of the disk in the block into a UserError that names `file`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: HDF5's
        if message := explained(error, file):
            raise UserError(message) from None
        raise


def write_text(file: Path, text: str) -> None:
    """Write a text file (UTF-8, line ends as in `text`), whole or not at all."""
    with partial_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def sha256(file: Path) -> str:
    """SHA-256 of the content of a file, as 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def new_array(file: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` file, memory-mapped for writing, whose space on the disk is reserved at once.

    Without that, the process would be killed (SIGBUS) when the disk runs full.
    """
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    take_room(file, file.stat().st_size)
    return array


def take_room(file: Path, size: int) -> None:
    """Reserve `size` bytes on the disk for a file; OSError when there is not enough space."""
    if not hasattr(os, "posix_fallocate"):  # macOS: whether there is room can only be asked
        if shutil.disk_usage(file.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return
    with file.open("ab") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)


def remove_partials(folder: Path, *names: str, older_than: float = 0) -> None:
    """Delete temporary files that killed processes left, of the files `names` or of all files.

    Call it while holding their lock. Without a lock, `older_than` seconds spare the files that
    another process may still be writing.
    """
    for name in map(glob.escape, names or ("",)):
        for file in folder.glob(f"{PARTIAL}*{name and '_'}{name}"):
            with contextlib.suppress(FileNotFoundError):
                if not older_than or time.time() - file.stat().st_mtime > older_than:
                    file.unlink()


@contextmanager
def locked(folder: Path, name: str, wait: str = "") -> Iterator[None]:
    """Only one process at a time runs the block for `name` in `folder`; a kill releases the lock.

    Args:
        folder: gets a folder `.locks` that holds the lock.
        name: of the work.
        wait: a line to log once when another process has to be waited for; "" raises instead.

    Raises:
        InUseError: another process runs the block, and `wait` is "".
    """
    file = folder / ".locks" / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, fallback_to_soft=False)  # a soft one would remain after a kill
    try:
        try:
            lock.acquire(timeout=LOOK)
        except Timeout:
            if not wait:
                raise InUseError(name) from None
            log.info(wait)
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this disk has no file locks; run one process at a time.", folder)
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path, name: str) -> bool:
    """Whether another process runs the block of `locked` now; takes the lock for a moment."""
    file = folder / ".locks" / f"{name}.lock"
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False


def explained(error: BaseException, file: Path | None = None) -> str | None:
    """A message with the file, what is wrong and how to fix it; None if it is no error of the disk.

    `file` is named where the error has no file name, as in writing, or a temporary one.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):  # HDF5's
        number = int(found[1])
    name = getattr(error, "filename", None)
    if file is not None and (name is None or PARTIAL in os.fsdecode(name)):
        name = file
    if number not in FIXES or name is None:
        return None
    return f"{os.fsdecode(name)}: {FIXES[number]}"


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
