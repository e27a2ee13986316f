"""One random affine map per sample, applied to image and mask together; two samples mixed.

Enters: uint8 image (S, S, 3), uint8 mask (S, S, C) or None, a numpy Generator. Leaves: the same
shapes and dtypes. The image is interpolated linearly, the mask takes the nearest pixel; beyond the
border the picture is mirrored.
"""

from collections.abc import Callable
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
    colour: float = 0.0  # red, green and blue, each by up to this share
    cutout: float = 0.0  # a square of up to this share of the side takes the mean colour


AUGMENTATIONS = {
    "none": Augmentation(),
    "affine": Augmentation(flip=True, rotation=180.0, shift=0.1),
    "affine_light": Augmentation(flip=True, rotation=180.0, shift=0.1, zoom=0.1, light=0.1),
    "strong": Augmentation(flip=True, rotation=180.0, shift=0.1, zoom=0.25, light=0.2, colour=0.1),
    "strong_cutout": Augmentation(
        flip=True, rotation=180.0, shift=0.1, zoom=0.25, light=0.2, colour=0.1, cutout=0.4
    ),
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
    if rules.colour:
        gains = 1 + random.uniform(-rules.colour, rules.colour, 3)
        image = cv2.multiply(image, (*gains, 1.0))  # rounded, at most 255
    if rules.cutout:
        image = cut_out(image, rules.cutout, random)
    if mask is not None:
        mask = cv2.warpAffine(
            mask, inverse, (size, size), flags=nearest, borderMode=cv2.BORDER_REFLECT
        ).reshape(mask.shape)  # OpenCV drops the axis of a single channel
    return image, mask


def cut_out(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """The image (S, S, 3) with a square in its mean colour: Cutout, arXiv 1708.04552.

    Its side is uniform in [0, share * S], its centre anywhere in the image.
    """
    size = image.shape[0]
    half = random.uniform(0, share) * size / 2
    (top, bottom), (left, right) = (
        (round(max(centre - half, 0)), round(min(centre + half, size)))
        for centre in random.uniform(0, size, 2)
    )
    image = image.copy()
    image[top:bottom, left:right] = np.rint(image.mean(axis=(0, 1)))
    return image


@dataclass(frozen=True)
class Pairs:
    """Which sample of a batch of B each is mixed with."""

    other: np.ndarray  # int (B,)
    share: np.ndarray  # float32 (B, 1), that each keeps of itself

    def mix(self, values: np.ndarray) -> np.ndarray:
        """What is known of each sample, float32 (B, K), mixed as the images are."""
        return self.share * values + (1 - self.share) * values[self.other]


# uint8 images (B, S, S, 3) -> the same, mixed in pairs
Mix = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Pairs]]


def _mixup(images: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, Pairs]:
    """Each image faded into another, by a share from Beta(0.2, 0.2)."""
    share = random.beta(0.2, 0.2, len(images))
    share = np.maximum(share, 1 - share).astype(np.float32)  # each image is still mostly itself
    other = random.permutation(len(images))
    mixed = np.empty_like(images)
    for i, j in enumerate(other):
        mixed[i] = cv2.addWeighted(images[i], share[i], images[j], 1 - share[i], 0)
    return mixed, Pairs(other, share[:, None])


def _cutmix(images: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, Pairs]:
    """Into every second image on average, a box of another is pasted; shares by area."""
    size = images.shape[1]
    other = random.permutation(len(images))
    mixed, weight = images.copy(), np.ones((len(images), 1), np.float32)
    for i, j in enumerate(other):
        half = np.sqrt(1 - random.uniform(0, 1)) * size / 2  # its area is uniform
        y, x = random.uniform(0, size, 2)
        if random.random() < 0.5:
            continue
        top, bottom = round(max(y - half, 0)), round(min(y + half, size))
        left, right = round(max(x - half, 0)), round(min(x + half, size))
        mixed[i, top:bottom, left:right] = images[j, top:bottom, left:right]
        weight[i] = 1 - (bottom - top) * (right - left) / size**2
    return mixed, Pairs(other, weight)


MIXES: dict[str, Mix | None] = {
    "none": None,
    "mixup": _mixup,  # arXiv 1710.09412
    "cutmix": _cutmix,  # arXiv 1905.04899
}
