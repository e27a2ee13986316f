"""The challenge's measures of attribute masks (Task 2; isic-challenge-scoring 5.6.0).

Enters: for many image ids functions that give the truth and the prediction of each attribute at
original size, uint8 (H, W) or bool. Leaves: a table of pixel counts, and from it scores 0..1 of the
whole set with 95 % intervals, or of the difference of two predictions.

An image has most attributes nowhere, so the organisers score a set and not each image: pixels are
counted as shares of their image, which makes images of any size weigh the same, the shares are
added over all images, and the Jaccard index is taken once. They do so for each attribute, and for
all of them added (`micro_jaccard`), by which they rank. A ratio of nothing to nothing is 1.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation.bootstrap import interval
from evaluation.mask_scoring import foreground

COUNTS = ("tp", "fp", "fn", "tn")  # columns of a table of counts: <attribute>_<one of these>
MEASURES = ("jaccard", "dice")
RANKED_BY = "micro_jaccard"  # what the organisers call overall
# image id, height, width -> {attribute: predicted mask uint8 {0, 255} of that size}
MasksFor = Callable[[str, int, int], Mapping[str, np.ndarray]]


def count_pixels(truth: np.ndarray, prediction: np.ndarray) -> dict[str, int]:
    """Count the pixels of one attribute in one image.

    Args:
        truth: (H, W), bool, or uint8 0..255 of which values above 128 are the attribute. A {0, 1}
            uint8 mask is therefore all background: hand over `mask > 0`.
        prediction: the same, of the same size.

    Returns:
        tp (in both), fp (in the prediction only), fn (in the truth only) and tn (in neither).

    Raises:
        ValueError: wrong type or sizes that differ.
    """
    truth, prediction = foreground(truth, "truth"), foreground(prediction, "prediction")
    if truth.shape != prediction.shape or truth.size == 0:
        raise ValueError(
            f"truth and prediction must have one size, not {truth.shape} and {prediction.shape}"
        )
    both = np.count_nonzero(truth & prediction)
    false, missed = np.count_nonzero(prediction) - both, np.count_nonzero(truth) - both
    counts = (both, false, missed, truth.size - both - false - missed)
    return {name: int(count) for name, count in zip(COUNTS, counts, strict=True)}


def count_table(
    image_ids: Sequence[str],
    truth_of: Callable[[str], Mapping[str, np.ndarray]],
    masks_for: MasksFor,
    attributes: Sequence[str],
    described: str | None = None,
) -> pd.DataFrame:
    """Count the pixels of every attribute in every image, in threads.

    Only some images are in memory at a time.

    Args:
        image_ids: N images.
        truth_of: image id -> {attribute: bool (H, W)}, all of one size.
        masks_for: see MasksFor.
        attributes: A names.
        described: a progress bar with this text; None shows none.

    Returns:
        DataFrame of int indexed by image, in the given order, with a column <attribute>_<count> for
        each of COUNTS.

    Raises:
        ValueError, naming the image: an attribute is missing, or sizes differ.
    """

    def count(image_id: str) -> dict[str, int]:
        truth = truth_of(image_id)
        _check_names(truth, attributes, f"{image_id}: the truth")
        masks = masks_for(image_id, *truth[attributes[0]].shape)
        _check_names(masks, attributes, f"{image_id}: the prediction")
        row = {}
        for name in attributes:
            try:
                counts = count_pixels(truth[name], masks[name] > 0)
            except ValueError as error:
                raise ValueError(f"{image_id}, {name}: {error}") from error
            row |= {f"{name}_{kind}": counts[kind] for kind in COUNTS}
        return row

    with ThreadPoolExecutor() as threads:
        rows = threads.map(count, image_ids)
        bar = {"desc": described, "unit": "image", "disable": described is None}
        done = list(tqdm(rows, total=len(image_ids), **bar))
    return pd.DataFrame(done, index=pd.Index(image_ids, name="image"))


def _check_names(masks: Mapping[str, np.ndarray], attributes: Sequence[str], what: str) -> None:
    missing = [name for name in attributes if name not in masks]
    if missing:
        raise ValueError(f"{what} has no mask of {', '.join(missing)}")


def score_attributes(table: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Score a set of images, with intervals over resamples of its images.

    Args:
        table: from count_table, N images and A attributes.
        weights: from bootstrap.resample, (B, N).

    Returns:
        DataFrame with columns value, low, high, indexed by measure: `<attribute>_jaccard` of each
        attribute, `<attribute>_dice` of each, then `jaccard` and `dice`, their means over the
        attributes, then `micro_jaccard` and `micro_dice`, those of all attributes added. What
        exists neither in the truth nor in the prediction of a set or resample scores 1.
    """
    names, ones = attributes_of(table), np.ones((1, len(table)))
    shares = _shares(table, names)
    return _table(_measure(shares, ones)[0], _measure(shares, weights), names)


def attribute_difference(
    table_a: pd.DataFrame, table_b: pd.DataFrame, weights: np.ndarray
) -> pd.DataFrame:
    """Scores of `b` minus those of `a` over the same resamples.

    Args:
        table_a: from count_table.
        table_b: of the same images in any order (joined by id) and the same attributes.
        weights: from bootstrap.resample, (B, N), columns in the order of `a`.

    Returns:
        As score_attributes.

    Raises:
        ValueError: other images, other attributes, or another truth.
    """
    names = attributes_of(table_a)
    if set(table_a.index) != set(table_b.index) or set(names) != set(attributes_of(table_b)):
        raise ValueError("both must be scored on the same images and attributes")
    table_b = table_b.loc[table_a.index]
    for name in names:
        differ = _in_truth(table_a, name) != _in_truth(table_b, name)
        if differ.any():
            raise ValueError(f"{differ.idxmax()}, {name}: the two have another truth")
    shares_a, shares_b = _shares(table_a, names), _shares(table_b, names)
    value, many = (
        _measure(shares_b, rows) - _measure(shares_a, rows)
        for rows in (np.ones((1, len(table_a))), weights)
    )
    return _table(value[0], many, names)


def attributes_of(table: pd.DataFrame) -> list[str]:
    """The attributes of a table of counts, in its order."""
    return [name.removesuffix("_tp") for name in table.columns if name.endswith("_tp")]


def _in_truth(table: pd.DataFrame, name: str) -> pd.Series:
    """Pixels of an attribute in the truth, int (N,)."""
    return table[f"{name}_tp"] + table[f"{name}_fn"]


def _shares(table: pd.DataFrame, attributes: Sequence[str]) -> np.ndarray:
    """Counts as shares of their image, float (N, A, 3): tp, fp, fn."""
    columns = [f"{name}_{kind}" for name in attributes for kind in COUNTS]
    counts = table[columns].to_numpy(dtype=float).reshape(len(table), -1, len(COUNTS))
    return counts[..., :3] / counts.sum(axis=2, keepdims=True)


def _measure(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Measures of each resample, (B, 2 * A + 4), in the order of _names."""
    _, count, kinds = shares.shape
    sums = (weights @ shares.reshape(len(shares), -1)).reshape(-1, count, kinds)
    of_each = _indices(sums)
    means = [values.mean(axis=1, keepdims=True) for values in of_each]
    return np.concatenate([*of_each, *means, *_indices(sums.sum(axis=1, keepdims=True))], axis=1)


def _indices(sums: np.ndarray) -> list[np.ndarray]:
    """Jaccard index and Dice coefficient, (B, A) each, of sums (B, A, 3)."""
    both, wrong = sums[..., 0], sums[..., 1] + sums[..., 2]
    return [_ratio(both, both + wrong), _ratio(2 * both, 2 * both + wrong)]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 for nothing of nothing."""
    return np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0)


def _names(attributes: Sequence[str]) -> list[str]:
    of_each = [f"{name}_{measure}" for measure in MEASURES for name in attributes]
    return [*of_each, *MEASURES, *(f"micro_{measure}" for measure in MEASURES)]


def _table(value: np.ndarray, resampled: np.ndarray, attributes: Sequence[str]) -> pd.DataFrame:
    low, high = interval(resampled)
    return pd.DataFrame({"value": value, "low": low, "high": high}, index=_names(attributes))
