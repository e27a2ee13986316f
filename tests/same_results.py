"""What a root holds after scripts ran, in a form that tells whether two roots hold the same."""

import json
from pathlib import Path

import h5py
import numpy as np

from misc_utils import files

# of JSON files: when, how long, by which code and process
PASSING = ("seconds", "written", "resumed", "git_commit", "times", "process")


def contents(folder: Path) -> dict[str, object]:
    """Content of every file below a folder by its path; arrays by their bytes, locks left out.

    Links are not followed.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not file.is_symlink() and ".locks" not in name.parts:
            found[str(name)] = READERS.get(file.suffix, Path.read_bytes)(file)
    return found


def differences(expected: dict[str, object], found: dict[str, object]) -> tuple[list, list]:
    """Paths that are lost, and paths whose content differs or that nobody expects."""
    lost = sorted(expected.keys() - found.keys())
    more = found.keys() - expected.keys()
    return lost, sorted(more | {n for n in expected.keys() & found if expected[n] != found[n]})


def _read_json(file: Path) -> object:
    content = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        content = {key: part for key, part in content.items() if key not in PASSING}
    return content


def _read_tensors(file: Path) -> dict[str, bytes]:
    found = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with h5py.File(file) as opened:
        opened.visititems(visit)
    return found


def _read_state(file: Path) -> dict[str, object]:
    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    # of a training; features of images have none
    progress = json.loads(str(arrays.pop("progress", "{}")))
    progress.pop("seconds", None)
    return {name: array.tobytes() for name, array in arrays.items()} | {"progress": progress}


READERS = {".json": _read_json, ".h5": _read_tensors, ".npz": _read_state}
assert files.PARTIAL.startswith(".")  # rglob finds them, so that none goes unseen
