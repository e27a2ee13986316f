"""What the organisers' scorer asks of a table of classes.

Enters: a CSV file with a column of ids and one per class, or its rows (N, C) with their ids; the
ids expected. Leaves: every reason for which the scorer would refuse the file; the rows it asks for.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.challenge import UNRELEASED
from misc_utils.errors import UserError
from misc_utils.files import write_text
from misc_utils.messages import counted


def check_classes_file(
    path: Path, columns: Sequence[str], expected_ids: Sequence[str], shown: Path | None = None
) -> None:
    """Raise UserError, listing every reason, if the organisers' scorer would refuse this table.

    It wants `columns`, of which the first holds ids; each of `expected_ids` once and no other;
    values in 0..1 and each column of floats, in which `0` alone for every row is an integer.
    `shown` is named instead of a temporary `path`.
    """
    import pandas as pd

    try:
        id_column, *classes = columns
        table = pd.read_csv(path, header=0, index_col=False, dtype={id_column: str})
    except (OSError, ValueError) as error:
        raise UserError(f"{shown or path}: cannot be read as a table ({error}).") from None
    wanted, there = {*columns}, set(table.columns)
    found = {"columns missing": wanted - there, "columns not wanted": there - wanted}
    if wanted == there:
        ids = table[id_column].astype(str).str.replace(r"\.jpg$", "", case=False, regex=True)
        values = table[list(classes)]
        numbers = values.select_dtypes("number")
        within = (numbers >= 0) & (numbers <= 1)  # not for NaN
        found = {
            "images missing": set(expected_ids) - set(ids),
            "images not wanted": set(ids) - set(expected_ids),
            "images twice": set(ids[ids.duplicated()]),
            "columns not of floats": set(values.columns[values.dtypes != np.float64]),
            "values not in 0..1 (or none)": set(ids[~within.all(axis=1)]),
        }
    reasons = [f"  {what}: {counted(which)}" for what, which in found.items() if which]
    if table.empty:
        reasons.insert(0, "  no rows")
    if reasons:
        text = "\n".join(reasons)
        raise UserError(f"{shown or path}: the organisers' scorer would refuse this table:\n{text}")


def add_missing_image(
    image_ids: Sequence[str], probability: np.ndarray, expected_ids: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Ids and rows (N, C), with the row the organisers want although they released no image of it.

    When ISIC_0035068 alone of `expected_ids` is missing, it is added at the end with the mean of
    the others; its weight in the score is 0. With nothing missing, both come back as they are.

    Raises UserError when other images are missing.
    """
    missing = set(expected_ids) - set(image_ids)
    if not missing:
        return list(image_ids), probability
    if missing != {UNRELEASED} or not len(image_ids):
        raise UserError(
            f"No prediction for {counted(missing)}, which the table of the truth lists. Put these "
            f"images into data/, and both of the same set."
        )
    mean = probability.mean(axis=0, keepdims=True)
    return [*image_ids, UNRELEASED], np.concatenate([probability, mean])


def write_json(
    file: Path, image_ids: Sequence[str], probability: np.ndarray, classes: Sequence[str]
) -> None:
    """The same table for programs: `classes`, and for each image its class and probabilities.

    `probability` is float (N, C); the class is that of the largest value, null where two are equal.
    """
    rows = []
    for image_id, row in zip(image_ids, probability, strict=True):
        largest = np.flatnonzero(row == row.max())
        decided = classes[largest[0]] if len(largest) == 1 else None
        each = {name: float(value) for name, value in zip(classes, row, strict=True)}
        rows.append({"image": image_id, "class": decided, "probability": each})
    content = {"classes": list(classes), "images": rows}
    write_text(file, json.dumps(content, indent=1, allow_nan=False) + "\n")
