"""Files that are there whole or not at all.

Enters: the name a file is to have. Leaves: a temporary name in the same folder while it is written.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def partial_file(file: Path) -> Iterator[Path]:
    """A temporary name beside `file`; becomes `file` if all goes well, and goes away if not."""
    partial = file.with_name(f"partial_{os.getpid()}_{file.name}")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file (UTF-8, lines end as in `text`), whole or not at all."""
    with partial_file(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
