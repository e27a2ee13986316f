"""One random affine map per sample, applied to image and mask together.

Enters: uint8 image (S, S, 3), uint8 mask (S, S, C) or None, a numpy Generator. Leaves: the same
shapes and dtypes. The image is interpolated linearly, the mask takes the nearest pixel; beyond the
border the picture is mirrored.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Ranges the random map is drawn from."""

    flip: bool = False  # left-right and up-down, each with probability 1/2
    rotation: float = 0.0  # degrees, uniform in [-rotation, rotation]
    shift: float = 0.0  # share of the side, uniform in [-shift, shift], each way
    zoom: float = 0.0  # scale uniform in [1 - zoom, 1 + zoom]
    light: float = 0.0  # contrast and brightness per sample, each by up to this share


AUGMENTATIONS = {
    "none": Augmentation(),
    "affine": Augmentation(flip=True, rotation=180.0, shift=0.1),
    "affine_light": Augmentation(flip=True, rotation=180.0, shift=0.1, zoom=0.1, light=0.1),
}


def draw_map(rules: Augmentation, size: int, random: np.random.Generator) -> np.ndarray:
    """Affine map float64 (2, 3) from output to input pixels (x, y) of a square of side `size`."""
    angle = np.deg2rad(random.uniform(-rules.rotation, rules.rotation))
    scale = random.uniform(1 - rules.zoom, 1 + rules.zoom)
    flips = np.where(random.random(2) < 0.5, -1.0, 1.0) if rules.flip else np.ones(2)
    shift = random.uniform(-rules.shift, rules.shift, 2) * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn * flips / scale  # columns: flip first, then turn and scale
    centre = np.full(2, (size - 1) / 2)
    return np.column_stack([linear, centre + shift - linear @ centre])


def augment(
    image: np.ndarray, mask: np.ndarray | None, rules: Augmentation, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """One augmented sample, with the same map for image and mask; the arguments are not changed.

    Args:
        image: uint8 (S, S, 3).
        mask: uint8 (S, S, C), or None.
        rules: a row of AUGMENTATIONS.
        random: where the map is drawn from.

    Returns:
        the new image and mask; the arguments themselves where `rules` is the row "none".
    """
    if rules == AUGMENTATIONS["none"]:
        return image, mask
    size = image.shape[0]
    inverse = draw_map(rules, size, random)
    linear, nearest = (
        flag | cv2.WARP_INVERSE_MAP for flag in (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    )
    image = cv2.warpAffine(
        image, inverse, (size, size), flags=linear, borderMode=cv2.BORDER_REFLECT
    )
    if rules.light:
        contrast, brightness = 1 + random.uniform(-rules.light, rules.light, 2)
        mean = float(image.mean())
        image = cv2.convertScaleAbs(image, alpha=contrast, beta=mean * (brightness - contrast))
    if mask is not None:
        mask = cv2.warpAffine(
            mask, inverse, (size, size), flags=nearest, borderMode=cv2.BORDER_REFLECT
        ).reshape(mask.shape)  # OpenCV drops the axis of a single channel
    return image, mask
