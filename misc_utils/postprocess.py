"""Probability of lesion -> mask at original size -> bounding box -> cut-out.

Enters: probability float (h, w) in 0..1 at the net's size, images uint8 (H, W, 3). Leaves: masks
uint8 (H, W) in {0, 255}, boxes in pixels, cut-outs uint8. No argument is ever changed in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from errors import UserError

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


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top .. top + height - 1, columns left .. left + width - 1."""

    top: int
    left: int
    height: int
    width: int


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
    mask = cv2.compare(whole, rules.threshold, cv2.CMP_GT)
    if rules.component == "all":
        return _fill_holes(mask) if rules.fill_holes else mask
    return _largest_filled(mask) if rules.fill_holes else _largest_component(mask)


def bounding_box(mask: np.ndarray, margin: float = 0.0, edge_radius: float = 0.0) -> Box:
    """The smallest box around all pixels of a mask that are not 0, widened by a margin.

    Args:
        mask: uint8 or bool (H, W).
        margin: what is added on each of the four sides, as a fraction of the box's longer side
            (to the nearest pixel); the image's borders end it.
        edge_radius: of `cut_lesion`; the margin is at least as wide, so that the fade has room.

    Returns:
        the box; that of the whole image where the mask is empty.

    Raises:
        UserError: a negative margin.
    """
    mask = _as_bytes(mask)
    if not margin >= 0:
        raise UserError(f"margin is a fraction of the box's longer side, at least 0, not {margin}")
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return Box(0, 0, *mask.shape)
    extra = int(max(margin, edge_radius) * max(height, width) + 0.5)
    first_row, first_column = max(top - extra, 0), max(left - extra, 0)
    end_row = min(top + height + extra, mask.shape[0])
    end_column = min(left + width + extra, mask.shape[1])
    return Box(first_row, first_column, end_row - first_row, end_column - first_column)


def cut_box(image: np.ndarray, box: Box) -> np.ndarray:
    """The pixels of an image (H, W) or (H, W, C) in a box, copied; ValueError if it sticks out."""
    end_row, end_column = box.top + box.height, box.left + box.width
    inside = 0 <= box.top < end_row <= image.shape[0] and (
        0 <= box.left < end_column <= image.shape[1]
    )
    if not inside:
        raise ValueError(f"{box} is not inside an image of {image.shape[0]} x {image.shape[1]}")
    return image[box.top : end_row, box.left : end_column].copy()


def radius_of_edge(edge: Literal["hard", "feather"], edge_radius: float) -> float:
    """The radius to cut with: 0 for a hard edge; UserError unless it lies in 0..1."""
    if edge == "hard":
        return 0.0
    if not 0 <= edge_radius <= 1:
        raise UserError(
            f"edge_radius is a share of the lesion's longer side, 0 to 1, not {edge_radius}"
        )
    return float(edge_radius)


def cut_lesion(
    image: np.ndarray, mask: np.ndarray, box: Box, edge_radius: float = 0.0
) -> np.ndarray:
    """The box of an image times its mask: the lesion as it is, around it black, or a fade to it.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 or bool (H, W), lesion is what is not 0.
        box: where to cut, as `bounding_box` gives it for the same edge_radius.
        edge_radius: how far from the lesion the image has faded to black, as a share of the longer
            side of the lesion's own bounding box, 0 to 1; 0: black at once.

    Returns:
        uint8 (box.height, box.width, 3); the whole image as it is where the mask is empty.

    Raises:
        UserError: edge_radius does not lie in 0..1.
        ValueError: image and mask differ in size, or the box sticks out.
    """
    mask = _as_bytes(mask)
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image {image.shape} and mask {mask.shape} differ in size")
    radius = radius_of_edge("feather", edge_radius)
    lesion = bounding_box(mask)
    if not mask.any():
        return image.copy()
    cut, inside = cut_box(image, box), cut_box(mask, box)
    outside = (inside == 0).view(np.uint8)
    if radius == 0:
        cut[outside > 0] = 0
        return cut
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    weight = fade(distance, radius * max(lesion.height, lesion.width))
    return np.rint(cut * weight[..., None]).astype(np.uint8)


def fade(distance: np.ndarray, radius: float) -> np.ndarray:
    """Half a cosine wave over the distance: 1 at 0, 1/2 halfway, 0 from `radius` on.

    Args:
        distance: float (...), at least 0, in pixels.
        radius: > 0, in pixels.

    Returns:
        float32 (...) in 0..1.
    """
    share = np.minimum(distance / np.float32(radius), 1)
    return (0.5 + 0.5 * np.cos(np.pi * share)).astype(np.float32)


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
    for (left, top, width, height), outline in sorted(boxed, key=_box_area, reverse=True):
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


def _box_area(boxed: tuple[tuple[int, int, int, int], np.ndarray]) -> int:
    (_, _, width, height), _ = boxed
    return width * height


def _largest_component(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:  # label 0 is the background
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = 1 + np.flatnonzero(areas == areas.max())
    # OpenCV promises no order of its labels: of equal parts the first in reading order is kept.
    chosen = largest[0] if len(largest) == 1 else labels[np.isin(labels, largest)][0]
    return np.where(labels == chosen, np.uint8(255), np.uint8(0))


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"a mask must be uint8 or bool (H, W), not {mask.dtype} {mask.shape}")
    return np.ascontiguousarray(mask).view(np.uint8)
