"""Parts of messages: lists of names, and the ids in which two collections differ.

Enters: names and image ids. Leaves: text for a message, or a UserError.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
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


def check_same_ids(what: str, expected: Iterable[str], found: Iterable[str], advice: str) -> None:
    """Raise UserError, naming ids, unless two collections hold the same image ids."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        parts = [f"lacks {listed(missing)}"] if missing else []
        parts += [f"has {listed(unknown)}, for which there is no image"] if unknown else []
        raise UserError(f"{what} {' and '.join(parts)}. {advice}")


def listed(items: list, most: int = 20) -> str:
    """Items as text for a message: all of them, or the first `most` and a count of the rest."""
    shown = ", ".join(map(_printable, items[:most]))
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def counted(names: Iterable[str]) -> str:
    """How many names, and the first ten of them in order."""
    names = sorted(names)
    return f"{len(names)}: {listed(names, 10)}"


def _printable(item: object) -> str:
    """As text that any terminal can print: names of files may hold bytes that are not text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(item))
