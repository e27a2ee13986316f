"""Age, sex and body site of each image as numbers that a net takes beside the image.

Enters: a table with a row per image, columns age (years, NaN where missing), sex, site ("" where
missing). Leaves: float32 (N, M): age / 100, sex, one column per site, and a flag for each that is
missing, so that a missing value is not taken for a small one.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SEXES = ("female", "male")
# Share of the images whose metadata are left out, all of them, each time they are trained on: the
# net must not lean on them. Gessert et al. 2020 (arXiv 1910.03910), section 2.4, do the same.
LEFT_OUT = 0.1


def list_sites(table: pd.DataFrame) -> tuple[str, ...]:
    """The body sites of a table in sorted order; those of the training images, for all others."""
    return tuple(sorted({*table["site"]} - {""}))


def encode(table: pd.DataFrame, sites: Sequence[str]) -> np.ndarray:
    """Numbers of each row, float32 (N, width(sites)); a site that is not listed counts as missing.

    Columns: age, age missing, female, male, sex missing, each site, site missing.
    """
    age = table["age"].to_numpy(float)
    columns = [np.nan_to_num(age) / 100, np.isnan(age)]
    for name, values in (("sex", SEXES), ("site", sites)):
        cells = table[name].to_numpy(object)
        known = [cells == value for value in values]
        columns += [*known, ~np.any([*known, np.zeros(len(cells), bool)], axis=0)]
    return np.stack(columns, axis=1).astype(np.float32)


def width(sites: Sequence[str]) -> int:
    """Numbers of an image."""
    return len(SEXES) + len(sites) + 4


def nothing_known(numbers: int) -> np.ndarray:
    """The numbers of an image of which nothing is known, float32 (M,): each flag is set."""
    values = np.zeros(numbers, np.float32)
    values[[1, 2 + len(SEXES), numbers - 1]] = 1
    return values


def leave_out(metadata: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy of rows (n, M) in which those of some images, LEFT_OUT of them, say nothing."""
    kept = metadata.copy()
    kept[random.random(len(kept)) < LEFT_OUT] = nothing_known(metadata.shape[1])
    return kept
