"""Arrays of pictures of one size, built once from their sources and memory-mapped from then on.

Enters: (image id, file) pairs and a function that turns the bytes of a file into one row. Leaves:
`<name>.npy`, uint8 (N, size, size, channels), beside `<name>.json`, its manifest: image ids, height
and width of each source in pixels, bytes, time and SHA-256 of each source, size, format version.
When a source has changed, or the manifest is missing, the array is built again and a log line says
why. Several processes may load one array at once: one builds it, the others wait.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from misc_utils.errors import UserError
from misc_utils.files import explained, locked, new_array, partial_file, remove_partials, write_text

log = logging.getLogger(__name__)

FORMAT = 3  # of 1, pictures were not turned upright; of 2, colour profiles were not applied
COLUMNS = ("heights", "widths", "bytes", "times", "sha256")  # of a manifest, beside image_ids

# (image id, bytes of its file) -> (row uint8 (size, size, channels), source height, source width)
Reader = Callable[[str, bytes], tuple[np.ndarray, int, int]]


@dataclass(frozen=True)
class Cached:
    """A cached set of pictures; row i of `array` is the image `image_ids[i]`, ids are sorted."""

    image_ids: tuple[str, ...]
    array: np.ndarray  # uint8 (N, size, size, channels), memory-mapped, read only
    heights: np.ndarray  # int (N,), of the source in pixels
    widths: np.ndarray  # int (N,)
    fingerprint: str  # SHA-256 over ids and contents of the sources; the size does not enter

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """Row numbers int64 (n,) of `image_ids`, in their order; KeyError for an unknown id."""
        return np.array([self._row_of[image_id] for image_id in image_ids], dtype=np.int64)

    def size_of(self, image_id: str) -> tuple[int, int]:
        """Height and width of an image's source in pixels; KeyError for an unknown id."""
        row = self._row_of[image_id]
        return int(self.heights[row]), int(self.widths[row])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


def load_or_build(
    folder: Path,
    name: str,
    sources: Mapping[str, Path],
    read: Reader,
    shape: tuple[int, int, int],
    made_from: str = "",
) -> Cached:
    """The cached array of `sources`; it is built if it is missing or out of date.

    An array always holds all of `sources`: a limit on the images is applied to its rows.

    Args:
        folder: where the array and its manifest lie.
        name: stem of both files.
        sources: {image id: file}.
        read: see Reader; any OSError or ValueError marks the file as bad.
        shape: (size, size, channels) of one row.
        made_from: what else the rows depend on; with another text the array is built again.

    Raises:
        UserError naming every source that could not be read; then no array is written.
    """
    sources = dict(sorted(sources.items()))
    head = {"format": FORMAT, "shape": list(shape), "made_from": made_from}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = f"{folder / name}.npy: waiting for another process that is building it"
        with locked(folder, name, wait=waiting):
            return _load_or_build(folder, name, sources, read, head)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # a folder of another user cannot be locked, but a cache in it can be read if up to date
        cached = _load(folder, name, sources, head)[0]
        if cached is None:
            raise
        return cached


def _load_or_build(
    folder: Path, name: str, sources: dict[str, Path], read: Reader, head: dict
) -> Cached:
    cached, reason = _load(folder, name, sources, head)
    if cached is not None:
        return cached
    array_file, manifest_file = folder / f"{name}.npy", folder / f"{name}.json"
    log.info(
        "%s: building it from all %d files, %s. This is done once: later runs use it, whatever "
        "their --limit.",
        array_file,
        len(sources),
        reason,
    )
    remove_partials(folder, array_file.name, manifest_file.name)
    manifest_file.unlink(missing_ok=True)  # from here on the old array is not valid
    manifest = head | _build(array_file, sources, read, tuple(head["shape"]))
    write_text(manifest_file, json.dumps(manifest))
    return _cached(array_file, manifest)


def _load(
    folder: Path, name: str, sources: dict[str, Path], head: dict
) -> tuple[Cached | None, str]:
    """The array on the disk if it is up to date; else None and the reason."""
    array_file, manifest_file = folder / f"{name}.npy", folder / f"{name}.json"
    manifest = _load_manifest(manifest_file)
    reason = _stale(array_file, manifest, head, sources)
    if reason:
        return None, reason
    manifest = _refresh_times(manifest_file, manifest, sources)
    if manifest is None:
        return None, "the content of a source changed"
    return _cached(array_file, manifest), ""


def _cached(array_file: Path, manifest: dict) -> Cached:
    lines = zip(manifest["image_ids"], manifest["sha256"], strict=True)
    text = manifest["made_from"] + "\n".join(" ".join(line) for line in lines)
    return Cached(
        tuple(manifest["image_ids"]),
        np.load(array_file, mmap_mode="r", allow_pickle=False),
        np.array(manifest["heights"], dtype=np.int64),
        np.array(manifest["widths"], dtype=np.int64),
        hashlib.sha256(text.encode()).hexdigest(),
    )


def _load_manifest(file: Path) -> dict | None:
    """The manifest, or None if it is missing or damaged."""
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        lengths = {len(manifest[name]) for name in ("image_ids", *COLUMNS)}
        return manifest if len(lengths) == 1 else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _stale(array_file: Path, manifest: dict | None, head: dict, sources: dict) -> str | None:
    """Why the array cannot be used, or None; _refresh_times checks the sources themselves."""
    if not array_file.exists():
        return "as it does not exist yet"
    if manifest is None:
        return "as its manifest is missing or broken"
    if any(manifest.get(key) != value for key, value in head.items()):
        return "as it was made with other settings or another version"
    if manifest["image_ids"] != list(sources):
        old, new = set(manifest["image_ids"]), set(sources)
        return f"as {len(new - old)} images were added and {len(old - new)} removed"
    try:
        array = np.load(array_file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return "as the file is damaged"
    expected = (len(sources), *head["shape"])
    return None if array.shape == expected and array.dtype == np.uint8 else "as its shape is wrong"


def _refresh_times(file: Path, manifest: dict, sources: dict[str, Path]) -> dict | None:
    """The manifest with the current file times, or None if the content of a source has changed.

    A source is hashed again only if its time differs; another number of bytes is a change.
    """
    touched = False
    for row, source in enumerate(sources.values()):
        status = source.stat()
        if status.st_size != manifest["bytes"][row]:
            return None
        if status.st_mtime_ns != manifest["times"][row]:
            if hashlib.sha256(source.read_bytes()).hexdigest() != manifest["sha256"][row]:
                return None
            manifest["times"][row] = status.st_mtime_ns
            touched = True
    if touched and os.access(file.parent, os.W_OK):  # else they are hashed each time
        write_text(file, json.dumps(manifest))
    return manifest


def _build(array_file: Path, sources: dict[str, Path], read: Reader, shape: tuple) -> dict:
    """Write the array under a temporary name, then rename it; returns the manifest's columns."""
    columns = {name: [] for name in COLUMNS}
    wrong = []

    def read_source(item: tuple[int, tuple[str, Path]]) -> tuple:
        row, (image_id, file) = item
        try:
            status, content = file.stat(), file.read_bytes()
            array[row], height, width = read(image_id, content)
        except (OSError, ValueError) as error:
            return file, error
        digest = hashlib.sha256(content).hexdigest()
        return None, (height, width, len(content), status.st_mtime_ns, digest)

    with partial_file(array_file) as partial:
        array = new_array(partial, np.uint8, (len(sources), *shape))
        threads = ThreadPoolExecutor(max_workers=os.cpu_count())
        try:
            results = threads.map(read_source, enumerate(sources.items()))
            for file, result in tqdm(results, array_file.stem, len(sources), unit="image"):
                if file is not None:
                    wrong.append(f"  {explained(result, file) or f'{file}: {result}'}")
                else:
                    for column, value in zip(columns.values(), result, strict=True):
                        column.append(value)
        finally:
            threads.shutdown(cancel_futures=True)  # after an error or a signal: drop the queue
        if wrong:
            raise UserError(
                f"{len(wrong)} of {len(sources)} files cannot be used:\n" + "\n".join(wrong) + "\n"
                "Replace them by intact files, or take them out, with their masks and rows."
            )
        array.flush()
    return {"image_ids": list(sources), **columns}
