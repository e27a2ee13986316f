"""Test-time augmentation: the eight views of a square, and the way back.

Enters: batches (B, S, S) or (B, S, S, C) of any type. Leaves: the same shape and type, turned and
flipped; a view is always a new array.
"""

import numpy as np

VIEWS = (
    8  # 0 is the image itself, 1..3 turn it anticlockwise by 90 degrees each; 4..7 mirror it first
)


def view(images: np.ndarray, k: int) -> np.ndarray:
    """View k of square images (B, S, S, C); ValueError for other shapes or another k."""
    _check(images, k)
    flipped = images[:, :, ::-1] if k >= 4 else images
    return np.rot90(flipped, k % 4, axes=(1, 2)).copy()


def undo(maps: np.ndarray, k: int) -> np.ndarray:
    """The inverse of `view`: what a net said of the k-th view, laid over the image itself again.

    Takes (B, S, S) or (B, S, S, C); S and C need not be those of the images.
    """
    _check(maps, k)
    turned = np.rot90(maps, -(k % 4), axes=(1, 2))
    return (turned[:, :, ::-1] if k >= 4 else turned).copy()


def _check(batch: np.ndarray, k: int) -> None:
    if batch.ndim not in (3, 4) or batch.shape[1] != batch.shape[2]:
        raise ValueError(f"a batch of squares (B, S, S, C) is expected, not {batch.shape}")
    if not 0 <= k < VIEWS:
        raise ValueError(f"view {k} is not one of 0..{VIEWS - 1}")
