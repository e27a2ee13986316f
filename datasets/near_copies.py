"""Photographs that are nearly the same: rescaled, recompressed, turned, mirrored, cropped a little.

Enters: cached images uint8 (N, S, S, 3). Leaves: pairs of image ids with their similarity, as a
table, and read again from its file.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.cache import Cached
from datasets.tasks import prefix
from misc_utils.errors import UserError
from misc_utils.files import write_text
from misc_utils.messages import command, counted

log = logging.getLogger(__name__)

SIDE = 32  # of the grey picture that is compared, in pixels
DETAIL = 1.3  # sigma of the Gaussian whose smooth part is taken away, in those pixels
STRONGEST = 5.0  # a detail counts as this many medians at most: the edge of a strip is no likeness
BLOCK = 256  # images compared with all others at once
COLUMNS = ["image", "other", "similarity"]
SCRIPT = "find_near_copies.py"


def describe(images: np.ndarray) -> np.ndarray:
    """What is compared of images uint8 (N, S, S, 3): float32 (N, SIDE * SIDE), of length 1.

    Grey, shrunk, less its own blur: what is left are edges and texture, while lesions on skin are
    all alike in their smooth part. A picture without any detail is all zeros.
    """
    rows = np.zeros((len(images), SIDE * SIDE), np.float32)
    for row, image in zip(rows, images, strict=True):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        detail = small - cv2.GaussianBlur(small, (0, 0), DETAIL)
        limit = STRONGEST * float(np.median(np.abs(detail)))
        detail = np.clip(detail, -limit, limit)
        length = np.linalg.norm(detail)
        if length > 1e-3:
            row[:] = detail.ravel() / length
    return rows


def find_near_copies(images: Cached, least: float) -> pd.DataFrame:
    """Pairs of images that are similar in one of eight views (flips and quarter turns).

    Args:
        images: N images.
        least: similarity from which a pair is listed: the correlation of their details, -1..1.

    Returns:
        Columns image, other (a later id), similarity; the most similar pair first.
    """
    ids = images.image_ids
    pairs = [(ids[i], ids[j], value) for i, j, value in _similar(describe(images.array), least)]
    table = pd.DataFrame(pairs, columns=COLUMNS)
    return table.sort_values(["similarity", *COLUMNS[:2]], ascending=[False, True, True])


def _similar(described: np.ndarray, least: float) -> Iterator[tuple[int, int, float]]:
    """Rows i < j with the largest correlation over the views of i."""
    squares = described.reshape(-1, SIDE, SIDE)
    for start in tqdm(range(0, len(described), BLOCK), desc="compare", unit="block"):
        block = squares[start : start + BLOCK]
        best = np.full((len(block), len(described) - start), -1.0, np.float32)
        for k in range(8):
            view = np.rot90(block[:, :, ::-1] if k >= 4 else block, k % 4, axes=(1, 2))
            np.maximum(best, view.reshape(len(block), -1) @ described[start:].T, out=best)
        for i, j in np.argwhere(best >= least):
            if j > i:
                yield start + int(i), start + int(j), float(best[i, j])


def table_file(data_dir: Path, cache_name: str, task: int) -> Path:
    """Where the pairs of the training images of a task are listed, see Dataset.cache_name."""
    return data_dir / f"{prefix(cache_name)}near_copies_task{task}_training.csv"


def write_near_copies(file: Path, table: pd.DataFrame) -> None:
    """Write the table; to be looked through: pairs that are taken out of it are not grouped."""
    write_text(file, table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def read_near_copies(
    file: Path, image_ids: Collection[str], task: int, told: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Pairs of the images of a data set, which the flags `told` name.

    Pairs of images that are not there are left out, with a warning. UserError where there is no
    such table, it has other columns, or none of its pairs is of these images.
    """
    find = command(SCRIPT, "--task", task, *told)
    if not file.exists():
        raise UserError(f"{file} does not exist. Find near copies first: {find}")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        pairs = list(table[COLUMNS[:2]].itertuples(index=False, name=None))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{file}: cannot be read as a table of near copies ({error}). The columns image and "
            f"other are expected. Find them again: {find}"
        ) from None
    there = set(image_ids)
    gone = [f"{one} = {other}" for one, other in pairs if not {one, other} <= there]
    if gone and len(gone) == len(pairs):
        raise UserError(
            f"{file}: none of its {len(pairs)} pairs is of images that are there, such as "
            f"{gone[0]}. Find them again: {find}"
        )
    if gone:
        log.warning("%s: pairs of images that are not there, left out: %s", file, counted(gone))
    return [pair for pair in pairs if there.issuperset(pair)]
