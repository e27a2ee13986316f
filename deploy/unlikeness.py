"""How unlike the training images an image is, by the features of a classifier.

Enters: pooled features of images, those of the training images, kept with their run. Leaves: a
distance 0..2 and whether it is beyond what 95 of 100 held-out images have. Deep nearest neighbours
(Sun et al., arXiv 2204.06507): it says that an image is unlike those the net was trained on, never
that the answer is wrong.
"""

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
SHARE = 95  # per cent of the held-out images that are nearer than the threshold


@dataclass(frozen=True, eq=False)
class Reference:
    """The training images of one net."""

    features: np.ndarray  # float16 (N, F), each of length 1
    threshold: float  # distance that SHARE per cent of the held-out images do not exceed

    def distance(self, features: np.ndarray) -> np.ndarray:
        """One less the mean cosine to the nearest training images, float32 (n,) of (n, F)."""
        return distances(normalised(features), self.features)


def normalised(features: np.ndarray) -> np.ndarray:
    """Features float (n, F) as float16 of length 1; those of length 0 stay 0."""
    length = np.linalg.norm(features.astype(np.float32), axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float16)


def distances(features: np.ndarray, among: np.ndarray) -> np.ndarray:
    """One less the mean of the NEIGHBOURS largest cosines, float32 (n,).

    Both are normalised, (n, F) and (N, F), N > 0; with fewer than NEIGHBOURS all of them count.
    """
    cosines = features.astype(np.float32) @ among.astype(np.float32).T
    nearest = min(NEIGHBOURS, len(among))
    largest = -np.partition(-cosines, nearest - 1, axis=1)[:, :nearest]
    return 1 - largest.mean(axis=1)


def refer(trained: np.ndarray, held_out: np.ndarray) -> Reference:
    """The reference of a net: features of the images it was trained on and of those held out.

    Both float (n, F), n > 0. No held-out image shows a lesion that was trained on, so the threshold
    is that of new lesions.
    """
    features = normalised(trained)
    threshold = np.percentile(distances(normalised(held_out), features), SHARE)
    return Reference(features, float(threshold))
