"""The classifier: an encoder of models/backbones.py, average pooling and two dense layers.

In: uint8 RGB 0..255 (B,S,S,3), S a multiple of 32; where wanted also float32 values of each image
(B,M), such as age and sex, which join the pooled features. Out: float32 probabilities (B,C), layer
`probability`, each row summing to 1; the layer `logits` before it has the same shape.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from misc_utils.messages import choose
from models.encoder import build_encoder

HIDDEN_UNITS = 128
METADATA_UNITS = 32

# penalty on the kernel of the hidden layer
REGULARIZERS: dict[str, Callable[[], Any]] = {
    "l1": lambda: keras.regularizers.L1(1e-4),
    "l2": lambda: keras.regularizers.L2(1e-3),
    "none": lambda: None,
}


def build_classifier(
    backbone: str,
    *,
    image_size: int = 224,
    weights: str = "imagenet",
    pretrained_dir: Path | None = None,
    num_classes: int = 7,
    num_metadata: int = 0,
    dropout: float = 0.0,
    regularizer: str = "l2",
) -> keras.Model:
    """Build the classifier on a row of BACKBONES, not compiled.

    `num_metadata` values beside the image, 0: the net takes the image alone, else [image,
    metadata]; `dropout` 0..1 before the hidden layer; `regularizer` is a row of REGULARIZERS, the
    rest as in `build_encoder`. UserError: unknown row, impossible size, no weights.
    """
    build_regularizer = choose(REGULARIZERS, regularizer, "regularizer")
    encoder = build_encoder(backbone, image_size, weights, pretrained_dir)
    x = layers.GlobalAveragePooling2D(name="average_pool")(encoder.output)  # (B, channels)
    inputs = encoder.input
    if num_metadata:
        metadata = keras.Input((num_metadata,), dtype="float32", name="metadata")
        known = layers.Dense(METADATA_UNITS, activation="relu", name="metadata_fc")(metadata)
        x = layers.Concatenate(name="metadata_concatenate")([x, known])
        inputs = [encoder.input, metadata]
    # with its own seed; without one, Keras on torch draws from a state that no variable holds
    seed = random.randrange(2**31) if dropout else None
    x = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    x = layers.Dense(
        HIDDEN_UNITS, activation="relu", kernel_regularizer=build_regularizer(), name="fc1"
    )(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    probability = layers.Softmax(dtype="float32", name="probability")(logits)
    return keras.Model(inputs, probability, name=f"{backbone}_classifier")
