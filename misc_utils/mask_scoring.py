"""Logit maps of many images -> masks at original size -> a table of their scores.

Enters: for each image id its logits float (S, S, 1) and its truth bool (H, W). Leaves: a row per
image of the challenge's measures, and the share of the image that is lesion by the truth.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from misc_utils.postprocess import PostProcessing, lesion_mask
from misc_utils.scoring import score_mask


def mask_of(logits: np.ndarray, height: int, width: int, rules: PostProcessing) -> np.ndarray:
    """Logits (S, S, 1) -> mask uint8 {0, 255} of `height` x `width` pixels."""
    return lesion_mask(expit(np.asarray(logits[..., 0], np.float32)), height, width, rules)


def score_maps(
    image_ids: Sequence[str],
    logits_of: Callable[[str], np.ndarray],
    truth_of: Callable[[str], np.ndarray],
    rules: PostProcessing,
    described: str | None = None,
) -> pd.DataFrame:
    """Score every image at the size of its truth, in threads; only some are in memory at a time.

    Args:
        image_ids: N images.
        logits_of: image id -> float (S, S, 1).
        truth_of: image id -> bool (H, W).
        rules: how a map becomes a mask.
        described: a progress bar with this text; None shows none.

    Returns:
        DataFrame indexed by image, in the given order: the measures of scoring.score_mask and
        `lesion_share`, the lesion's part of the image, 0..1.
    """

    def score(image_id: str) -> dict[str, float]:
        truth = truth_of(image_id)
        mask = mask_of(logits_of(image_id), *truth.shape, rules)
        return score_mask(truth, mask > 0) | {"lesion_share": float(truth.mean())}

    with ThreadPoolExecutor() as threads:
        rows = threads.map(score, image_ids)
        bar = {"desc": described, "unit": "image", "disable": described is None}
        done = list(tqdm(rows, total=len(image_ids), **bar))
    return pd.DataFrame(done, index=pd.Index(image_ids, name="image"))
