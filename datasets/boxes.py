"""Bounding boxes of masks, and lesions cut out along them.

Enters: masks uint8 or bool (H, W), images uint8 (H, W, 3). Leaves: boxes in pixels, crops uint8.
No argument is changed in place.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from misc_utils.errors import UserError


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top .. top + height - 1, columns left .. left + width - 1."""

    top: int
    left: int
    height: int
    width: int


def bounding_box(mask: np.ndarray, margin: float = 0.0, edge_radius: float = 0.0) -> Box:
    """The smallest box around all pixels of a mask that are not 0, widened by a margin.

    Args:
        mask: uint8 or bool (H, W).
        margin: see `widen`.
        edge_radius: of `cut_lesion`; the margin is at least as wide, so that the fade fits in.

    Returns:
        the box; the whole image where the mask is empty.

    Raises:
        UserError: a negative margin.
    """
    mask = _as_bytes(mask)
    left, top, width, height = cv2.boundingRect(mask)
    tight = Box(top, left, height, width) if width else Box(0, 0, *mask.shape)
    _check_margin(margin)  # max() would hide a negative one
    return widen(tight, max(margin, edge_radius), *mask.shape)


def widen(box: Box, margin: float, height: int, width: int) -> Box:
    """A box with a margin on all four sides, as far as the image (height x width pixels) reaches.

    `margin` is a fraction of the box's longer side; the pixels it gives are rounded to the nearest
    number, halves to the even one, as boxes in caches were. UserError: it is negative or NaN.
    """
    _check_margin(margin)
    extra = round(margin * max(box.height, box.width))
    top, left = max(box.top - extra, 0), max(box.left - extra, 0)
    end_row = min(box.top + box.height + extra, height)
    end_column = min(box.left + box.width + extra, width)
    return Box(top, left, end_row - top, end_column - left)


def _check_margin(margin: float) -> None:
    if not margin >= 0:
        raise UserError(f"margin is a fraction of the box's longer side, at least 0, not {margin}")


def cut_box(image: np.ndarray, box: Box) -> np.ndarray:
    """A copy of the box of an image (H, W) or (H, W, C); ValueError unless it is inside."""
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
    """A box cut out of an image, black or fading to black around the lesion.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 or bool (H, W), not 0 where the lesion is.
        box: what to cut out, from `bounding_box` with the same edge_radius.
        edge_radius: distance from the lesion at which the image is black, as a share of the longer
            side of the lesion's tight bounding box, 0 to 1; 0: black from the lesion's border on.

    Returns:
        uint8 (box.height, box.width, 3); the unchanged whole image where the mask is empty.

    Raises:
        UserError: edge_radius does not lie in 0..1.
        ValueError: image and mask differ in size, or the box is not inside the image.
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
    """Half a cosine wave of the distance: 1 at 0, 1/2 at half the radius, 0 from `radius` on.

    Args:
        distance: float (...), at least 0, in pixels.
        radius: > 0, in pixels.

    Returns:
        float32 (...) in 0..1.
    """
    share = np.minimum(distance / np.float32(radius), 1)
    return (0.5 + 0.5 * np.cos(np.pi * share)).astype(np.float32)


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"a mask must be uint8 or bool (H, W), not {mask.dtype} {mask.shape}")
    return np.ascontiguousarray(mask).view(np.uint8)
