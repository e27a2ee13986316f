"""EfficientNet-Lite0: an EfficientNet without squeeze-and-excitation, 3.4 million weights.

ReLU6 throughout, as for phones.

The network of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
(arXiv 1905.11946 for the family), which keras.applications lacks. It is called as its networks are.
"""

from typing import Any

import keras
from keras import layers

# repeats, kernel, stride of the first, expansion, filters
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_FILTERS, TOP_FILTERS = 32, 1280
EPSILON = 1e-3

Tensor = Any


def EfficientNetLite0(  # noqa: N802  named and called as the networks of keras.applications
    *,
    include_top: bool = False,
    weights: None = None,
    input_tensor: Tensor | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> keras.Model:
    """The network without top: pixels 0..255 (B, S, S, 3) -> (B, S/32, S/32, 1280).

    It scales its input itself, to (x - 127) / 128. Keras has no weights of it, and it has no top
    here: ValueError where either is asked for.
    """
    if include_top or weights is not None:
        raise ValueError("EfficientNetLite0 comes without top, and without weights to download")
    image = keras.Input(input_shape, name="pixels") if input_tensor is None else input_tensor
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="scale")(image)
    x = _convolve(x, STEM_FILTERS, 3, 2, "stem")
    number = 0
    for repeats, kernel, stride, expansion, filters in STAGES:
        for repeat in range(repeats):
            first = repeat == 0
            x = _block(x, kernel, stride if first else 1, expansion, filters, f"block{number}")
            number += 1
    x = _convolve(x, TOP_FILTERS, 1, 1, "top")
    inputs = image if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _block(x: Tensor, kernel: int, stride: int, expansion: int, filters: int, name: str) -> Tensor:
    """Inverted bottleneck (arXiv 1801.04381): expand, depthwise, project; a sum if shapes allow."""
    inputs, expanded = x, x.shape[-1] * expansion
    if expansion > 1:
        x = _convolve(x, expanded, 1, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = _normalise(x, f"{name}_depthwise")
    x = layers.ReLU(6, name=f"{name}_depthwise_relu")(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalise(x, f"{name}_project")
    if stride == 1 and inputs.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _convolve(x: Tensor, filters: int, kernel: int, stride: int, name: str) -> Tensor:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6, name=f"{name}_relu")(_normalise(x, name))


def _normalise(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
