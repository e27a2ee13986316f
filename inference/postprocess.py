"""Logits or probability of lesion -> mask at original size.

Enters: logits float (h, w, 1) or probability float (h, w) in 0..1, at the net's size. Leaves: masks
uint8 (H, W) in {0, 255}. No argument is ever changed in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from misc_utils.errors import UserError

SMOOTHING_SIZE = 224  # the size of map that PostProcessing.smoothing is measured on


@dataclass(frozen=True)
class PostProcessing:
    """How a probability becomes a mask.

    Attributes:
        smoothing: sigma of the Gaussian laid over the probability, in pixels of a map 224 pixels
            wide: on a map of 448 twice as many are used, so that it means the same for every net
            (1.0 is about 1/224 of the image's side). 0 smooths nothing.
        threshold: lesion is where the probability at original size is greater, 0 < threshold < 1.
        fill_holes: background that the lesion encloses becomes lesion; it is enclosed when no path
            of pixels sharing a side leads from it out of the image.
        component: "largest" keeps the part with most pixels, holes filled (of equal ones the one
            met first row by row), "all" every part. Pixels that share a corner belong together.
    """

    smoothing: float = 1.0
    threshold: float = 0.5
    fill_holes: bool = True
    component: Literal["largest", "all"] = "largest"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < SMOOTHING_SIZE:
            raise UserError(
                f"smoothing is a sigma of 0..{SMOOTHING_SIZE} pixels, not {self.smoothing}"
            )
        if not 0 < self.threshold < 1:
            raise UserError(f"threshold lies between 0 and 1, not at {self.threshold}")
        if self.component not in ("largest", "all"):
            raise UserError(f"component is 'largest' or 'all', not {self.component!r}")


# By task: an image has one lesion, without holes, but an attribute in any number of places
DEFAULT_RULES = {1: PostProcessing(), 2: PostProcessing(fill_holes=False, component="all")}


def lesion_mask(
    probability: np.ndarray, height: int, width: int, rules: PostProcessing
) -> np.ndarray:
    """Smooth, resize the probability, cut it at the threshold, fill holes, choose the component.

    Args:
        probability: float (h, w) in 0..1, of any size.
        height: of the original image, in pixels.
        width: of the original image, in pixels.
        rules: see PostProcessing.

    Returns:
        uint8 (height, width) in {0, 255}; empty where nothing passes the threshold.

    Raises:
        ValueError: another shape, or values outside 0..1 (logits, nan).
    """
    probability = np.asarray(probability)
    if probability.ndim != 2 or probability.size == 0:
        raise ValueError(f"a probability map (h, w) is expected, not {probability.shape}")
    if not (probability.min() >= 0 and probability.max() <= 1):  # so written, nan fails too
        raise ValueError(
            f"probability must lie in 0..1, not in {probability.min()}..{probability.max()}"
        )
    smooth = _smooth(np.ascontiguousarray(probability, dtype=np.float32), rules.smoothing)
    whole = cv2.resize(smooth, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)
    # OpenCV takes a single pixel and a number for two numbers
    threshold = rules.threshold if whole.size > 1 else np.full_like(whole, rules.threshold)
    mask = cv2.compare(whole, threshold, cv2.CMP_GT)
    if rules.component == "all":
        return _fill_holes(mask) if rules.fill_holes else mask
    return _largest_filled(mask) if rules.fill_holes else _largest_component(mask)


def _smooth(probability: np.ndarray, smoothing: float) -> np.ndarray:
    if smoothing == 0:
        return probability
    vertical, horizontal = (smoothing * side / SMOOTHING_SIZE for side in probability.shape)
    return cv2.GaussianBlur(
        probability, (0, 0), sigmaX=horizontal, sigmaY=vertical, borderType=cv2.BORDER_REFLECT
    )


def _outlines(mask: np.ndarray) -> Sequence[np.ndarray]:
    """Outer outlines of the parts that lie in no hole of another, int32 (n, 1, 2) of (x, y)."""
    return cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    # Outer outlines drawn full: 20 times faster than scipy.ndimage.binary_fill_holes on 3072x2304
    # pixels, and the same to the pixel.
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, _outlines(mask), -1, color=255, thickness=cv2.FILLED)
    return filled


def _largest_filled(mask: np.ndarray) -> np.ndarray:
    # By outlines too: labelling every pixel takes five times as long as all else of `lesion_mask`.
    largest, best = np.zeros_like(mask), (0, 0, 0)
    boxed = [(cv2.boundingRect(outline), outline) for outline in _outlines(mask)]
    kept = None
    boxed.sort(key=lambda one: one[0][2] * one[0][3], reverse=True)  # by area of the box
    for (left, top, width, height), outline in boxed:
        if width * height < best[0]:
            break  # this part and all after it are smaller than the best one
        part = np.zeros((height, width), np.uint8)
        cv2.drawContours(part, [outline], -1, 255, cv2.FILLED, offset=(-left, -top))
        first = left + int(part[0].argmax())  # its first pixel in reading order is (top, first)
        rank = (cv2.countNonZero(part), -top, -first)
        if rank > best:
            best, kept = rank, (slice(top, top + height), slice(left, left + width), part)
    if kept:
        rows, columns, part = kept
        largest[rows, columns] = part
    return largest


def _largest_component(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:  # label 0 is the background
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = 1 + np.flatnonzero(areas == areas.max())
    # OpenCV promises no order of its labels: of equal parts the first in reading order is kept.
    chosen = largest[0] if len(largest) == 1 else labels[np.isin(labels, largest)][0]
    return np.where(labels == chosen, np.uint8(255), np.uint8(0))


def mask_of(
    logits: np.ndarray, height: int, width: int, rules: PostProcessing, channel: int = 0
) -> np.ndarray:
    """A channel of logits (S, S, C) -> mask uint8 {0, 255} of `height` x `width` pixels."""
    return lesion_mask(_sigmoid(np.asarray(logits[..., channel])), height, width, rules)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of very small logits: 1 / (1 + inf) is the right 0
        return 1 / (1 + np.exp(-logits.astype(np.float32)))
