"""Parts of messages: lists of names, and the ids in which two collections differ.

Enters: names and image ids. Leaves: text for a message, or a UserError.
"""

from collections.abc import Iterable

from misc_utils.errors import UserError


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
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{len(names)}: {', '.join(names[:10])}{more}"


def _printable(item: object) -> str:
    """As text that any terminal can print: names of files may hold bytes that are not text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(item))
