"""Colours, noise and dots that lesions and skin are painted with.

Enters: a random generator, shapes and sizes in pixels. Leaves: colours, float32 RGB 0..1, and
fields, float32 (H, W).
"""

import cv2
import numpy as np


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A colour named by numbers 0..255."""
    return np.array((red, green, blue), np.float32) / 255


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Colours (..., 3) between two, `share` (...) of the second one."""
    return first + (second - first) * np.asarray(share, np.float32)[..., None]


def above(field: np.ndarray, level: float, softness: float) -> np.ndarray:
    """1 where a field is above a level, 0 below, a ramp `softness` wide between."""
    return np.clip((field - level) / softness + 0.5, 0, 1).astype(np.float32)


def lines(field: np.ndarray, width: float) -> np.ndarray:
    """1 on the zero lines of a field, falling off on both sides."""
    return np.exp(-((field / width) ** 2))


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise, mean 0 and deviation about 1, with blobs `cell` pixels wide; float32."""
    height, width = (int(side / cell) + 4 for side in shape)
    coarse = rng.standard_normal((height, width), np.float32)
    size = (int(width * cell) + 1, int(height * cell) + 1)
    fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    top, left = (int(cell * rng.uniform(0.5, 2)) for _ in range(2))
    return 1.3 * fine[top : top + shape[0], left : left + shape[1]]


def dots(rng: np.random.Generator, shape: tuple[int, int], count: int, radius: float) -> np.ndarray:
    """1 in discs around `count` random points of the middle part, soft edges; float32."""
    points = np.full(shape, 255, np.uint8)
    rows, columns = (rng.uniform(0.2, 0.8, (2, count)) * np.array([shape]).T).astype(int)
    points[rows, columns] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L2, 3)
    return above(-distance, -radius, 0.4 * radius)


def grown(field: np.ndarray, reach: float) -> np.ndarray:
    """The largest value of a field within `reach` pixels of each pixel."""
    side = 2 * round(reach) + 1
    return cv2.dilate(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
