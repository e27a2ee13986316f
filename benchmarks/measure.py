"""Two sides measured in turn, and what a table says of them.

Enters: two functions that each measure their side once. Leaves: a Row, its ratio with an interval,
a line of text, a JSON file.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Target:
    """What a ratio is asked to be."""

    sign: Literal[">=", "<="]
    bound: float

    def met_by(self, interval: tuple[float, float]) -> bool:
        """Whether the better end of an interval reaches the bound: these machines are noisy."""
        low, high = interval
        return high >= self.bound if self.sign == ">=" else low <= self.bound

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One line of the table; measurement i of both sides was made one after the other."""

    what: str
    reference_name: str
    unit: str  # of both sides
    ours: Sequence[float]
    reference: Sequence[float]
    target: Target | None  # None: told for comparison
    kind: Literal["reference / ours", "ours / reference"]  # which way the ratio is taken
    note: str = ""
    sound: bool = True  # whether what the note tells is as it must be

    @property
    def ratios(self) -> np.ndarray:
        """Ratio of each pair of measurements."""
        ours, reference = np.asarray(self.ours, float), np.asarray(self.reference, float)
        return reference / ours if self.kind == "reference / ours" else ours / reference

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the median ratio: percentiles over resampled pairs."""
        ratios = self.ratios
        drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
        return float(low), float(high)

    @property
    def met(self) -> bool | None:
        """Whether the target is met and the note is sound; None without a target."""
        return None if self.target is None else self.target.met_by(self.interval) and self.sound

    def line(self) -> str:
        """The row of a Markdown table."""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        low, high = self.interval
        cells = (
            f"{self.what}{f' ({self.note})' if self.note else ''}",
            _with_spread(self.ours, self.unit),
            f"{self.reference_name}: {_with_spread(self.reference, self.unit)}",
            f"{_short(np.median(self.ratios))} ({_short(low)} to {_short(high)})",
            f"{self.target or ''} {verdict}".strip(),
        )
        return f"| {' | '.join(cells)} |"

    def content(self) -> dict:
        """What the JSON file holds of the row."""
        return {
            "what": self.what,
            "reference": self.reference_name,
            "unit": self.unit,
            "ours": list(map(float, self.ours)),
            "reference_measured": list(map(float, self.reference)),
            "kind": self.kind,
            "ratio": float(np.median(self.ratios)),
            "interval_95": self.interval,
            "target": str(self.target) if self.target else None,
            "met": self.met,
            "note": self.note,
        }


HEAD = "| what | ours | reference | ratio | target |\n|---|---|---|---|---|"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _with_spread(values: Sequence[float], unit: str) -> str:
    low, high = min(values), max(values)
    return f"{_short(np.median(values))} {unit} ({_short(low)} to {_short(high)})"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of a call, all threads of this process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(
    ours: Callable[[], float],
    reference: Callable[[], float],
    repetitions: int,
    warm_up: bool = True,
) -> tuple[list[float], list[float]]:
    """Measurements of both sides, one after the other, after one of each that does not count.

    Which side goes first alternates, so that neither always finds the warmer machine. Without
    `warm_up` all count: for sides that start anew each time.
    """
    if warm_up:
        ours(), reference()
    pairs = []
    for number in range(repetitions):
        if number % 2:
            second = reference()
            pairs.append((ours(), second))
        else:
            pairs.append((ours(), reference()))
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def machine() -> dict:
    """The machine, for the JSON file."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].split(":")[1].strip() if names else model
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def write_rows(file: Path, rows: Sequence[Row], facts: dict) -> None:
    """All rows so far, as JSON; written anew after each, so that none is lost."""
    content = {"machine": machine(), **facts, "rows": [row.content() for row in rows]}
    partial = file.with_name(f"partial_{os.getpid()}_{file.name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, file)
