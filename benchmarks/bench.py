"""Measure the speed of every step against what it is compared with, on this machine.

python3 benchmarks/bench.py
python3 benchmarks/bench.py --parts preprocessing start

Prints a table and writes it as JSON, row by row. Each row measures both sides in turn; a target is
met when the better end of the 95 % interval of the ratio reaches it. Compare rows of one run only:
machines differ, and so does the same machine from hour to hour.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

from measure import HEAD, Row, write_rows
from misc_utils import command_line

PARTS = {
    "start": ("scripts", "start"),
    "preprocessing": ("pictures", "preprocessing"),
    "threads": ("pictures", "threads"),
    "augmentation": ("pictures", "augmentation"),
    "postprocessing": ("pictures", "postprocessing"),
    "fit": ("nets", "fit"),
    "folds": ("nets", "folds"),
    "torch": ("nets", "torch"),
    "predict": ("scripts", "predict"),
    "memory": ("scripts", "memory"),
    "scale": ("growth", "scale"),
}


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    parts: tuple[Literal[*PARTS], ...] = tuple(PARTS)  # which to measure
    repetitions: int = 7  # measurements of each side
    out: Path = paths.repository / "benchmarks" / "results.json"  # the table as JSON


def main(settings: Settings) -> list[Row]:
    import importlib
    import logging
    import os

    os.environ["TQDM_DISABLE"] = "1"  # the table is progress enough
    logging.getLogger("datasets").setLevel(logging.WARNING)
    rows, took, started = [], {}, time.monotonic()
    print(HEAD, flush=True)
    for part in settings.parts:
        module, function = PARTS[part]
        start = time.monotonic()
        for row in getattr(importlib.import_module(module), function)(settings.repetitions):
            rows.append(row)
            print(row.line(), flush=True)
            took[part] = round(time.monotonic() - start)
            write_rows(settings.out, rows, {"date": time.strftime("%Y-%m-%d"), "seconds": took})
    missed = [row.what for row in rows if row.met is False]
    minutes = (time.monotonic() - started) / 60
    print(f"\n{len(rows)} rows in {minutes:.1f} minutes, written to {settings.out}.")
    print(f"missed: {'; '.join(missed)}" if missed else "every target is met")
    return rows


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
