"""All that a training needs to resume after its last whole epoch, in one file.

Enters: the variables of net and optimiser, and how far training has come. Leaves:
`<run>_state.npz`, whole or not at all, without pickled objects.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from misc_utils.errors import UserError
from misc_utils.files import partial_file


@dataclass
class Progress:
    """How far a training has come."""

    history: list[dict[str, float]] = field(default_factory=list)  # a row per whole epoch
    best: float | None = None  # of the monitored measure
    best_epoch: int = -1  # 0 is the first
    plateau: dict[str, float] = field(default_factory=dict)  # counters of the learning rate's fall
    seconds: float = 0.0  # of training, of all processes together

    @property
    def epochs(self) -> int:
        """Whole epochs that are done."""
        return len(self.history)

    @property
    def columns(self) -> dict[str, list[float]]:
        """The history by measure, a number for each whole epoch."""
        return {name: [row[name] for row in self.history] for name in self.scores}

    @property
    def scores(self) -> dict[str, float]:
        """The measures of the best epoch, those on held-out batches with `val_` before them."""
        return self.history[self.best_epoch]

    def better_by(self, measure: str) -> str:
        """A line about the epoch that is better by `measure`, a score, than the best; else ""."""
        values = self.columns[measure]
        if max(values) <= self.scores[measure]:
            return ""
        return (
            f"  by {measure.removeprefix('val_').replace('_', ' ')} epoch "
            f"{values.index(max(values)) + 1} was better: {max(values):.3f}; --monitor {measure} "
            f"keeps that one\n"
        )


def save_state(file: Path, variables: Sequence[keras.Variable], progress: Progress) -> None:
    """Write the values of the variables and the progress."""
    values = {f"variable_{i}": variable.numpy() for i, variable in enumerate(variables)}
    text = np.array(json.dumps(asdict(progress)))
    with partial_file(file) as partial, partial.open("wb") as opened:
        np.savez(opened, progress=text, **values)


def load_state(file: Path, variables: Sequence[keras.Variable]) -> Progress:
    """Set the variables to the values of before; UserError when the file does not fit or is cut."""
    try:
        with np.load(file, allow_pickle=False) as content:
            progress = Progress(**json.loads(str(content["progress"])))
            values = [content[f"variable_{i}"] for i in range(len(content.files) - 1)]
        shapes = [value.shape for value in values]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise ValueError("it holds other arrays than this net and optimiser have")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file}: cannot be read as the state of this training ({error}). Restore it, choose "
            f"another --version, or --overwrite to delete the run and train from scratch."
        ) from None
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return progress
