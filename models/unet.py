"""The segmenter: an encoder of models/backbones.py and a U-Net decoder (arXiv 1505.04597).

In: uint8 RGB 0..255 (B,S,S,3), S a multiple of 32. Out: float32 probability of each channel (the
lesion, or attributes) 0..1 (B,S,S,C), layer `probability`; the layer `logits` before it has the
same shape.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from misc_utils.messages import choose
from models.encoder import BATCH_NORM_MOMENTUM, build_encoder

Tensor = Any

FINEST_FILTERS = 32
MOST_TIMES = 16  # so many times the filters of the finest level a coarse one has


def _deconv(x: Tensor, filters: int, name: str) -> Tensor:
    """Transposed convolution; kernel and stride are both 2, so kernels do not overlap."""
    return layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_deconv")(x)


def _upsample(x: Tensor, filters: int, name: str) -> Tensor:
    """Bilinear; the 1x1 convolution commutes with it and goes first, at a quarter of the cost."""
    x = layers.Conv2D(filters, 1, name=f"{name}_conv")(x)
    return layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_upsample")(x)


def _subpixel(x: Tensor, filters: int, name: str) -> Tensor:
    """Convolution to four times the filters, rearranged to 2x2 pixels (arXiv 1609.05158)."""
    _, height, width, _ = x.shape
    x = layers.Conv2D(4 * filters, 3, padding="same", name=f"{name}_conv")(x)  # (B, H, W, 4F)
    x = layers.Reshape((height, width, 2, 2, filters), name=f"{name}_split")(x)
    x = layers.Permute((1, 3, 2, 4, 5), name=f"{name}_interleave")(x)  # (B, H, 2, W, 2, F)
    return layers.Reshape((2 * height, 2 * width, filters), name=f"{name}_merge")(x)


# (B, H, W, C), filters F, prefix of the layers' names -> (B, 2H, 2W, F)
UPS: dict[str, Callable[[Tensor, int, str], Tensor]] = {
    "deconv": _deconv,
    "upsample": _upsample,
    "subpixel": _subpixel,
}


def build_segmenter(
    backbone: str,
    *,
    image_size: int = 224,
    weights: str = "imagenet",
    pretrained_dir: Path | None = None,
    up: str = "deconv",
    batch_norm: bool = True,
    decoder_filters: int = FINEST_FILTERS,
    channels: int = 1,
) -> keras.Model:
    """Build the U-Net of a row of BACKBONES, not compiled.

    Level i of the decoder has image_size / 2**i pixels and `decoder_filters` * min(2**i, 16)
    filters. `up` is a row of UPS, `batch_norm` concerns the decoder alone, the rest as in
    `build_encoder`. Channels do not exclude one another: each has a sigmoid of its own.
    UserError: unknown row, impossible size, no weights.
    """
    enlarge = choose(UPS, up, "way up")
    encoder = build_encoder(backbone, image_size, weights, pretrained_dir)
    skips = dict(encoder.skips)
    x = _fit_size(encoder.bottom, image_size >> encoder.bottom_level, "bottom")
    for level in reversed(range(encoder.bottom_level)):
        filters = decoder_filters * min(2**level, MOST_TIMES)
        name = f"decoder{level}"
        x = enlarge(x, filters, f"{name}_up")
        if level in skips:
            skip = _fit_size(skips[level], image_size >> level, f"{name}_skip")
            skip = _compress(skip, filters, f"{name}_skip")
            x = layers.Concatenate(name=f"{name}_concatenate")([x, skip])
        for i in range(1, 3 if level in skips else 2):
            x = _convolve(x, filters, batch_norm, f"{name}_conv{i}")
    logits = layers.Conv2D(channels, 1, dtype="float32", name="logits")(x)
    probability = layers.Activation("sigmoid", dtype="float32", name="probability")(logits)
    return keras.Model(encoder.input, probability, name=f"{backbone}_segmenter")


def _fit_size(x: Tensor, size: int, name: str) -> Tensor:
    """Feature map resized bilinearly to (B, size, size, C) if it is not that already."""
    if x.shape[1] == size:
        return x
    return layers.Resizing(size, size, interpolation="bilinear", name=f"{name}_resize")(x)


def _compress(x: Tensor, filters: int, name: str) -> Tensor:
    """1x1 convolution + relu to `filters` channels if there are more."""
    if x.shape[-1] <= filters:
        return x
    return layers.Conv2D(filters, 1, activation="relu", name=f"{name}_compress")(x)


def _convolve(x: Tensor, filters: int, batch_norm: bool, name: str) -> Tensor:
    """3x3 convolution, batch normalisation if asked for, relu."""
    x = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm, name=name)(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
