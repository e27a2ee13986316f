"""Parts of messages: lists of names, and the ids in which two collections differ.

Enters: names and image ids. Leaves: text for a message, or a UserError.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from misc_utils.errors import UserError

Row = TypeVar("Row")
RUNS = Path(__file__).resolve().parents[1] / "runs"


def command(script: str, *flags: object) -> str:
    """A command for a message that works when pasted: this Python, this root, this code.

    Args:
        script: name of a file in runs/.
        flags: words of the command line, in order.
    """
    typed = shutil.which("python3")
    same = typed is not None and os.path.samefile(Path(typed).parent, Path(sys.executable).parent)
    file = RUNS / script
    words = [
        "python3" if same else sys.executable,
        str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file),
        *map(str, flags),
    ]
    root = os.environ.get("ISIC_ROOT")
    return (f"ISIC_ROOT={shlex.quote(root)} " if root else "") + shlex.join(words)


def choose(table: Mapping[str, Row], name: str, what: str) -> Row:
    """Row `name` of a table; UserError listing the rows if there is none."""
    if name not in table:
        raise UserError(f"Unknown {what} {name!r}: choose one of {', '.join(table)}.")
    return table[name]


def check_same_ids(
    what: str, expected: Iterable[str], found: Iterable[str], images: Path, entry: str
) -> None:
    """Raise UserError, naming ids and what to do, unless two collections hold the same image ids.

    Args:
        what: the file or folder that holds `found`.
        expected: ids of the images.
        found: ids of what belongs to them.
        images: the folder of the images.
        entry: what `what` holds for an image: "row", "mask".
    """
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    parts, ways = [], []
    if missing:
        parts.append(f"lacks {listed(missing)}")
        strange = [image_id for image_id in missing if not image_id.upper().startswith("ISIC_")]
        ways.append(f"Add each missing {entry}, or take the image out of {images}.")
        if strange:
            ways.append(f"Not named as in the release, so probably strays: {listed(strange)}.")
    if unknown:
        parts.append(f"has {listed(unknown)}, for which there is no image")
        ways.append(f"Take each {entry} too many out, or put its image into {images}.")
    if parts:
        raise UserError(f"{what} {' and '.join(parts)}. {' '.join(ways)}")


def listed(items: list, most: int = 20) -> str:
    """Items as text for a message: all of them, or the first `most` and a count of the rest."""
    shown = ", ".join(map(printable, items[:most]))
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def counted(names: Iterable[str]) -> str:
    """How many names, and the first ten of them in order."""
    names = sorted(names)
    return f"{len(names)}: {listed(names, 10)}"


def printable(item: object) -> str:
    """As text that any terminal can print: names of files may hold bytes that are not text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(item))


def lacking(packages: Sequence[str], requirements: str = "") -> str:
    """Which optional packages are not there, and what installs them; empty where all are.

    `requirements` is a file of the repository; without it the packages themselves are named.
    """
    missing = [name for name in packages if find_spec(name) is None]
    what = ("-r", RUNS.parent / requirements) if requirements else missing
    return f"{', '.join(missing)} must be installed: {pip_install(*what)}" if missing else ""


def pip_install(*words: object) -> str:
    """A command for a message that installs packages for this Python, whatever its path."""
    return shlex.join([sys.executable, "-m", "pip", "install", *map(str, words)])
