"""The challenge's measures of masks by the organisers' rules (isic-challenge-scoring 5.6.0).

Enters: a truth and a prediction at original size, uint8 (H, W) or bool; or for
many image ids functions that give both. Leaves: scores 0..1, of many images as a table.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.challenge import JACCARD_THRESHOLD

MASK_MEASURES = ("accuracy", "sensitivity", "specificity", "dice", "jaccard", "threshold_jaccard")
# image id, height, width -> predicted mask uint8 {0, 255} of that size
MaskFor = Callable[[str, int, int], np.ndarray]
FOREGROUND_ABOVE = 128  # a grey value must be greater, so that 128 itself is background


def score_mask(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Score one predicted mask (Task 1).

    Args:
        truth: (H, W), bool, or uint8 0..255 of which values above 128 are lesion. A {0, 1} uint8
            mask is therefore all background, as it is to the organisers: hand over `mask > 0`.
        prediction: the same, of the same size.

    Returns:
        accuracy, sensitivity, specificity, dice, jaccard and threshold_jaccard (the Jaccard index,
        0 where it is below 0.65), each 0..1. A ratio of nothing to nothing is 1: sensitivity
        without lesion, specificity without background, dice and jaccard of two empty masks.

    Raises:
        ValueError: wrong type or sizes that differ.
    """
    truth, prediction = foreground(truth, "truth"), foreground(prediction, "prediction")
    if truth.shape != prediction.shape or truth.size == 0:
        raise ValueError(
            f"truth and prediction must have one size, not {truth.shape} and {prediction.shape}"
        )
    in_truth, in_prediction = np.count_nonzero(truth), np.count_nonzero(prediction)
    both = np.count_nonzero(truth & prediction)
    either = in_truth + in_prediction - both
    neither = truth.size - either
    jaccard = _ratio(both, either)
    return {
        "accuracy": float((both + neither) / truth.size),
        "sensitivity": _ratio(both, in_truth),
        "specificity": _ratio(neither, truth.size - in_truth),
        "dice": _ratio(2 * both, in_truth + in_prediction),
        "jaccard": jaccard,
        "threshold_jaccard": jaccard if jaccard >= JACCARD_THRESHOLD else 0.0,
    }


def foreground(mask: np.ndarray, name: str) -> np.ndarray:
    """A mask as bool (H, W), of bool or of uint8 values above 128; ValueError for anything else."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"{name} must be uint8 or bool (H, W), not {mask.dtype} {mask.shape}")
    return mask if mask.dtype == np.bool_ else mask > FOREGROUND_ABOVE


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 1.0


def score_masks(
    image_ids: Sequence[str],
    truth_of: Callable[[str], np.ndarray],
    mask_for: Mapping[str, MaskFor],
    described: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Score the masks of every image by one or several rules, in threads.

    Each truth is read once, and only some are in memory at a time.

    Args:
        image_ids: N images.
        truth_of: image id -> bool (H, W).
        mask_for: {name of a rule: see MaskFor}.
        described: a progress bar with this text; None shows none.

    Returns:
        {name: DataFrame indexed by image, in the given order}: the measures of score_mask and
        `lesion_share`, the lesion's part of the image by its truth, 0..1.
    """

    def score(image_id: str) -> list[dict[str, float]]:
        truth = truth_of(image_id)
        share = {"lesion_share": float(truth.mean())}
        masks = (rule(image_id, *truth.shape) for rule in mask_for.values())
        return [score_mask(truth, mask > 0) | share for mask in masks]

    with ThreadPoolExecutor() as threads:
        rows = threads.map(score, image_ids)
        bar = {"desc": described, "unit": "image", "disable": described is None}
        done = list(tqdm(rows, total=len(image_ids), **bar))
    index = pd.Index(image_ids, name="image")
    return {
        name: pd.DataFrame(list(scores), index=index)
        for name, scores in zip(mask_for, zip(*done, strict=True), strict=True)
    }
