"""Keras metrics of each epoch, by the organisers' rules but at the size of the network's input.

In: truth and probability of a batch. Out: metrics for `compile(metrics=...)`, each one number per
epoch, 0..1. Segmentation takes {0,1} and 0..1 (B,S,S,C), classification one-hot and 0..1 (B,C).
"""

from typing import Any

import keras
from keras import ops

from datasets.challenge import JACCARD_THRESHOLD

PIXEL_THRESHOLD = 0.5

Tensor = Any


def _counts(truth: Tensor, probability: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True positive, false positive, false negative, true negative pixels per image, (B,) each."""
    true = ops.cast(truth, "float32") > 0.5
    predicted = ops.cast(probability, "float32") > PIXEL_THRESHOLD

    def count(pixels: Tensor) -> Tensor:
        return ops.sum(ops.cast(pixels, "float32"), axis=(1, 2, 3))

    not_true, not_predicted = ops.logical_not(true), ops.logical_not(predicted)
    return (
        count(ops.logical_and(true, predicted)),
        count(ops.logical_and(not_true, predicted)),
        count(ops.logical_and(true, not_predicted)),
        count(ops.logical_and(not_true, not_predicted)),
    )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Ratio of part to whole; 1 where whole is 0, as nothing was there to be found."""
    return ops.where(whole > 0, part / ops.maximum(whole, 1.0), ops.ones_like(whole))


def jaccard_per_image(truth: Tensor, probability: Tensor) -> Tensor:
    """Jaccard index of each mask, (B,); two empty masks give 1."""
    tp, fp, fn, _ = _counts(truth, probability)
    return _ratio(tp, tp + fp + fn)


def threshold_jaccard_per_image(truth: Tensor, probability: Tensor) -> Tensor:
    """Jaccard index of each mask, and 0 where it is below 0.65, (B,)."""
    jaccard = jaccard_per_image(truth, probability)
    return ops.where(jaccard < JACCARD_THRESHOLD, ops.zeros_like(jaccard), jaccard)


def sensitivity_per_image(truth: Tensor, probability: Tensor) -> Tensor:
    """Share of each lesion's pixels that were found, (B,); 1 without a lesion."""
    tp, _, fn, _ = _counts(truth, probability)
    return _ratio(tp, tp + fn)


def specificity_per_image(truth: Tensor, probability: Tensor) -> Tensor:
    """Share of each background's pixels predicted as background, (B,); 1 without a background."""
    _, fp, _, tn = _counts(truth, probability)
    return _ratio(tn, tn + fp)


class BalancedAccuracy(keras.metrics.Metric):
    """Mean recall over the classes seen since the last reset, exact over the whole epoch."""

    def __init__(self, num_classes: int, name: str = "balanced_accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.num_classes = num_classes
        self.confusion = self.add_weight(  # samples, [truth, prediction]
            shape=(num_classes, num_classes), initializer="zeros", name="confusion"
        )

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        """Count a batch: one-hot (B,C) and probabilities (B,C); all samples weigh the same."""
        truth = ops.one_hot(ops.argmax(y_true, axis=-1), self.num_classes, dtype="float32")
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), self.num_classes, dtype="float32")
        self.confusion.assign_add(ops.matmul(ops.transpose(truth), predicted))

    def result(self) -> Tensor:
        """Mean recall over the classes present; 0 before the first sample."""
        confusion = ops.convert_to_tensor(self.confusion)
        samples = ops.sum(confusion, axis=1)  # (C,)
        recall = ops.diagonal(confusion) / ops.maximum(samples, 1.0)
        present = ops.sum(ops.cast(samples > 0, "float32"))
        return ops.sum(recall) / ops.maximum(present, 1.0)


class SetJaccard(keras.metrics.Metric):
    """Jaccard index of each channel over all pixels of the epoch, then their mean.

    A channel that is empty in truth and prediction counts as 1.
    """

    def __init__(self, channels: int, name: str = "jaccard") -> None:
        super().__init__(name=name, dtype="float32")
        self.both = self.add_weight(shape=(channels,), initializer="zeros", name="both")
        self.either = self.add_weight(shape=(channels,), initializer="zeros", name="either")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        """Count a batch: masks {0,1} and probabilities, (B,S,S,C); all images weigh the same."""
        # in shares of a picture: a million pictures of pixels would exceed what float32 counts
        pixels = float(y_true.shape[1] * y_true.shape[2])
        true = ops.cast(y_true, "float32") > 0.5
        predicted = ops.cast(y_pred, "float32") > PIXEL_THRESHOLD
        both = ops.cast(ops.logical_and(true, predicted), "float32")
        either = ops.cast(ops.logical_or(true, predicted), "float32")
        self.both.assign_add(ops.sum(both, axis=(0, 1, 2)) / pixels)
        self.either.assign_add(ops.sum(either, axis=(0, 1, 2)) / pixels)

    def result(self) -> Tensor:
        """Mean over the channels; 1 before the first image."""
        both, either = ops.convert_to_tensor(self.both), ops.convert_to_tensor(self.either)
        ratio = ops.where(either > 0, both / ops.maximum(either, 1e-12), ops.ones_like(either))
        return ops.mean(ratio)


def segmentation_metrics(channels: int = 1) -> list[keras.metrics.Metric]:
    """New metrics: jaccard, threshold_jaccard, sensitivity, specificity, means over images.

    Of several channels jaccard alone, see SetJaccard: an image without an attribute has no score.
    """
    if channels > 1:
        return [SetJaccard(channels)]
    functions = {
        "jaccard": jaccard_per_image,
        "threshold_jaccard": threshold_jaccard_per_image,
        "sensitivity": sensitivity_per_image,
        "specificity": specificity_per_image,
    }
    return [
        keras.metrics.MeanMetricWrapper(function, name=name, dtype="float32")
        for name, function in functions.items()
    ]


def classification_metrics(num_classes: int) -> list[keras.metrics.Metric]:
    """New metrics accuracy and balanced_accuracy."""
    return [keras.metrics.CategoricalAccuracy(name="accuracy"), BalancedAccuracy(num_classes)]
