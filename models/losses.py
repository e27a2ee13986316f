"""Tables of losses and of class weights.

In: the name of a row (readable without loading Keras). Out: a loss for `compile(loss=...)`, or
a weight for each class. Truth is float32: masks {0,1} (B,S,S,C), one-hot labels (B,C);
predictions are probabilities 0..1 of the same shape.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from misc_utils.messages import choose


def _with_nan(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The same loss of each pixel, (B, S, S), but NaN where the probability is NaN.

    PyTorch's cross-entropy raises an error on NaN, which would not say that the net diverged.
    """
    from keras import ops

    def with_nan(truth: Any, probability: Any) -> Any:
        broken = ops.isnan(probability)
        per_pixel = loss(truth, ops.where(broken, 0.5, probability))
        return ops.where(ops.any(broken, axis=-1), float("nan"), per_pixel)

    return with_nan


def _binary_crossentropy() -> Any:
    import keras

    return _with_nan(keras.losses.binary_crossentropy)


def _dice() -> Any:
    import keras

    return keras.losses.Dice(axis=(1, 2, 3), name="dice")  # one value per image, then their mean


def _binary_crossentropy_dice() -> Any:
    import keras

    crossentropy = _binary_crossentropy()

    def binary_crossentropy_dice(truth: Any, probability: Any) -> Any:
        """Sum of both losses, one value per image: (B,)."""
        per_pixel = crossentropy(truth, probability)  # (B, S, S)
        per_image = keras.losses.dice(truth, probability, axis=(1, 2, 3))  # (B,)
        return keras.ops.mean(per_pixel, axis=(1, 2)) + per_image

    return binary_crossentropy_dice


def _binary_crossentropy_jaccard() -> Any:
    from keras import ops

    crossentropy = _binary_crossentropy()

    def binary_crossentropy_jaccard(truth: Any, probability: Any) -> Any:
        """Cross-entropy of each image, and one less the soft Jaccard of the batch, (B,).

        The Jaccard index is that of all pixels of a channel in the batch together, then the mean
        over channels: most images show none of an attribute, and say nothing by themselves.
        """
        per_image = ops.mean(crossentropy(truth, probability), axis=(1, 2))
        both = ops.sum(truth * probability, axis=(0, 1, 2))
        either = ops.sum(truth + probability, axis=(0, 1, 2)) - both
        return per_image + 1.0 - ops.mean((both + 1.0) / (either + 1.0))

    return binary_crossentropy_jaccard


def _binary_crossentropy_lovasz() -> Any:
    from keras import ops

    crossentropy = _binary_crossentropy()

    def binary_crossentropy_lovasz(truth: Any, probability: Any) -> Any:
        """Cross-entropy of each image and the Lovasz extension of its Jaccard loss, (B,).

        Errors |truth - probability| of all pixels of an image, largest first, are weighted by what
        each adds to 1 - Jaccard when it joins the wrong pixels (Berman et al., arXiv 1705.08790).
        """
        size = truth.shape[1] * truth.shape[2] * truth.shape[3]
        wanted = ops.reshape(truth, (-1, size))
        errors = ops.abs(wanted - ops.reshape(probability, (-1, size)))
        order = ops.argsort(-errors, axis=-1)
        errors, wanted = (ops.take_along_axis(x, order, axis=-1) for x in (errors, wanted))
        lesion = ops.sum(wanted, axis=-1, keepdims=True)
        both = lesion - ops.cumsum(wanted, axis=-1)
        either = lesion + ops.cumsum(1.0 - wanted, axis=-1)
        jaccard = 1.0 - both / ops.maximum(either, 1.0)
        before = ops.pad(jaccard[:, :-1], ((0, 0), (1, 0)))
        lovasz = ops.sum(errors * ops.stop_gradient(jaccard - before), axis=-1)
        return ops.mean(crossentropy(truth, probability), axis=(1, 2)) + lovasz

    return binary_crossentropy_lovasz


def _binary_focal() -> Any:
    import keras

    return _with_nan(partial(keras.losses.binary_focal_crossentropy, gamma=2.0))


def _categorical_crossentropy(label_smoothing: float) -> Any:
    import keras

    return keras.losses.CategoricalCrossentropy(
        label_smoothing=label_smoothing, name="categorical_crossentropy"
    )


def _categorical_focal(label_smoothing: float) -> Any:
    import keras

    # alpha is one factor for all classes; classes are balanced by CLASS_WEIGHTS
    return keras.losses.CategoricalFocalCrossentropy(
        alpha=0.25, gamma=2.0, label_smoothing=label_smoothing, name="categorical_focal"
    )


SEGMENTATION_LOSSES: dict[str, Callable[[], Any]] = {
    "binary_crossentropy": _binary_crossentropy,
    "dice": _dice,
    "binary_crossentropy_dice": _binary_crossentropy_dice,
    "binary_crossentropy_jaccard": _binary_crossentropy_jaccard,
    "binary_crossentropy_lovasz": _binary_crossentropy_lovasz,
    "binary_focal": _binary_focal,  # Lin et al. 2017, arXiv 1708.02002
}

CLASSIFICATION_LOSSES: dict[str, Callable[[float], Any]] = {
    "categorical_crossentropy": _categorical_crossentropy,
    "categorical_focal": _categorical_focal,  # Lin et al. 2017, arXiv 1708.02002
}

# count of each class present -> weight of each, up to a common factor
CLASS_WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ones": lambda counts: np.ones(len(counts)),
    "balanced": lambda counts: 1.0 / counts,
    "balanced-sqrt": lambda counts: 1.0 / np.sqrt(counts),
}


def segmentation_loss(name: str) -> Any:
    """Loss of row `name` of SEGMENTATION_LOSSES; UserError if there is none."""
    return choose(SEGMENTATION_LOSSES, name, "segmentation loss")()


def classification_loss(name: str, label_smoothing: float = 0.0) -> Any:
    """Loss of row `name` of CLASSIFICATION_LOSSES; UserError if there is none.

    `label_smoothing` 0..1 of each label is spread over all classes.
    """
    return choose(CLASSIFICATION_LOSSES, name, "classification loss")(label_smoothing)


def class_weights(labels: np.ndarray, num_classes: int, how: str) -> np.ndarray:
    """Weight of each class in the loss, float64 (num_classes,).

    `labels` int (N,), N > 0, each 0..num_classes-1 (else ValueError); `how` a row of CLASS_WEIGHTS
    (else UserError). The mean weight over the samples is 1; a class without samples gets 1.0.
    """
    weigh = choose(CLASS_WEIGHTS, how, "class weights")
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must be (N,), N > 0, each 0..{num_classes - 1}")
    counts = np.bincount(labels, minlength=num_classes)
    present = np.flatnonzero(counts)
    raw = weigh(counts[present].astype(np.float64))
    scaled = raw * len(labels) / np.sum(raw * counts[present])
    weights = np.ones(num_classes)
    weights[present] = scaled
    return weights
