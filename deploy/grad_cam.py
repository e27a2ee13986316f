"""Grad-CAM in closed form (Selvaraju et al., arXiv 1610.02391): where a classifier looked.

The head of our classifiers is average pooling, a dense layer with relu and a dense layer of logits,
so the gradient of a logit by the last feature map is two matrix products. Enters: feature maps and
what was pooled of them, weights of the head. Leaves: maps 0..1 at the size of the feature map.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Head:
    """Weights of the two dense layers behind the pooling; F features, M metadata, U units."""

    hidden_kernel: np.ndarray  # float32 (F + M, U)
    hidden_bias: np.ndarray  # float32 (U,)
    logits_kernel: np.ndarray  # float32 (U, C)

    def gradient(self, pooled: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Of the logit of a class by each pooled feature.

        Args:
            pooled: what enters the hidden layer, float32 (B, F + M).
            classes: of which logit, int (B,).

        Returns:
            float32 (B, F + M).
        """
        active = pooled @ self.hidden_kernel + self.hidden_bias > 0  # (B, U)
        return (active * self.logits_kernel[:, classes].T) @ self.hidden_kernel.T


def look(head: Head, features: np.ndarray, pooled: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Where the logit of a class would grow with the features.

    Args:
        head: of the classifier.
        features: the last feature map, float32 (B, h, w, F).
        pooled: what enters the hidden layer, float32 (B, F + M): the mean of the map over its
            places, then metadata.
        classes: of which logit, int (B,).

    Returns:
        float32 (B, h, w), each map divided by its largest value; all 0 where nothing speaks for
        the class.
    """
    _, height, width, count = features.shape
    weight = head.gradient(pooled, classes)[:, :count] / (height * width)
    maps = np.maximum(np.einsum("bhwf,bf->bhw", features, weight), 0)
    largest = maps.max(axis=(1, 2), keepdims=True)
    return (maps / np.where(largest > 0, largest, 1)).astype(np.float32)
