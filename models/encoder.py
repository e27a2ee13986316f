"""The encoder: image -> feature maps of every level, as one flat graph.

In: uint8 RGB 0..255 (B,S,S,3); it is cast to float32 and scaled as the network's family wants it.
Out: symbolic tensors of the skips, of the bottom and of the network's full output.
"""

import importlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from misc_utils.errors import UserError
from misc_utils.messages import command
from models.backbones import KERAS, Backbone, check_image_size, names_file, weights_in_force
from models.backbones import backbone as backbone_row
from models.weights import load_weights

logger = logging.getLogger(__name__)

WEIGHTS = ("imagenet", "none")
# Keras's 0.99 needs hundreds of steps before validation sees the true mean and variance
BATCH_NORM_MOMENTUM = 0.9

Tensor = Any


class Encoder(NamedTuple):
    """Symbolic tensors of one encoder; `level` i has S / 2**i pixels a side, or nearly."""

    input: Tensor  # uint8 (B, S, S, 3)
    skips: list[tuple[int, Tensor]]  # (level, feature map), finest first
    bottom: Tensor  # coarsest feature map
    bottom_level: int
    output: Tensor  # full output without top, for a classifier (VGG: after the last pooling)


def build_encoder(
    backbone: str, image_size: int, weights: str, pretrained_dir: Path | None
) -> Encoder:
    """Build the encoder of a row of BACKBONES for square images of `image_size` pixels.

    `weights` "imagenet" reads `<pretrained_dir>/<backbone>_notop.weights.h5`, or lets Keras
    download the weights if there is no such file; "none" starts from random values, and so does
    a file of one's own, which belongs to the whole net (see training.start). UserError: unknown row
    or weights, a size that is not a multiple of 32 or too small, ImageNet weights that cannot be
    found or downloaded.
    """
    row = backbone_row(backbone)
    check_image_size(backbone, image_size)
    _check_name(weights)
    image = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    # to float32 first, as on uint8 the preprocess_input of some networks overflows
    pixels = keras.layers.Rescaling(1.0, dtype="float32", name="to_float32")(image)
    if row.application is None:
        network = keras.Model(image, _own_blocks(row, pixels))
    else:
        network = _application(row, image_size, pixels, weights, pretrained_dir)
    outputs = {operation.name: operation.output for operation in network.operations}
    return Encoder(
        input=image,
        skips=[(level, outputs[name]) for level, name in row.skips],
        bottom=outputs[row.bottom[1]],
        bottom_level=row.bottom[0],
        output=network.output,
    )


def check_weights(
    backbone: str, image_size: int, weights: str, pretrained_dir: Path | None
) -> None:
    """UserError unless the weights that a net is to start from are there.

    Without a file they are downloaded now, and kept by Keras: better before hours of other work.
    """
    _check_name(weights)
    if names_file(weights) and not Path(weights).is_file():
        raise UserError(f"--weights {weights}: there is no such file.")
    file = weight_file(backbone_row(backbone), pretrained_dir)
    if weights_in_force(backbone, weights) == "imagenet" and not file.is_file():
        build_encoder(backbone, image_size, weights, pretrained_dir)


def _check_name(weights: str) -> None:
    if weights not in WEIGHTS and not names_file(weights):
        raise UserError(
            f"Unknown weights {weights!r}: choose one of {', '.join(WEIGHTS)}, or name a file that "
            f"ends in .weights.h5."
        )


def constructor(row: Backbone) -> Callable[..., keras.Model]:
    """What builds the network of a row that has an `application`."""
    return getattr(importlib.import_module(row.module), row.application)


def weight_file(row: Backbone, pretrained_dir: Path | None) -> Path:
    """Where the ImageNet weights of a row are looked for first."""
    return (pretrained_dir or Path("<pretrained_dir>")) / f"{row.name}_notop.weights.h5"


def _own_blocks(row: Backbone, pixels: Tensor) -> Tensor:
    """Blocks of two 3x3 convolutions, batch normalisation and relu, with pooling in between."""
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="scale")(pixels)
    for level, filters in enumerate(row.filters):
        if level:
            x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
        for i in (1, 2):
            x = keras.layers.Conv2D(
                filters, 3, padding="same", use_bias=False, name=f"encoder{level}_conv{i}"
            )(x)
            x = keras.layers.BatchNormalization(
                momentum=BATCH_NORM_MOMENTUM, name=f"encoder{level}_norm{i}"
            )(x)
            x = keras.layers.ReLU(name=f"encoder{level}_relu{i}")(x)
    return x


def _application(
    row: Backbone, image_size: int, pixels: Tensor, weights: str, pretrained_dir: Path | None
) -> keras.Model:
    """Network of the row on the image, after the scaling it expects."""
    scaled = pixels
    if row.preprocess is not None:
        scaled = getattr(keras.applications, row.preprocess).preprocess_input(pixels)
    path = weight_file(row, pretrained_dir)
    from_file = weights == "imagenet" and pretrained_dir is not None and path.is_file()
    download = weights == "imagenet" and not from_file
    construct = constructor(row)
    arguments = {
        "include_top": False,
        "input_tensor": scaled,
        "input_shape": (image_size, image_size, 3),
    }
    if download and row.module != KERAS:
        raise UserError(_no_weights(row, path, "Keras has none to download"))
    if download:
        logger.info("no weight file %s: asking Keras for its ImageNet weights", path)
        try:
            network = construct(weights="imagenet", **arguments)
        except Exception as error:  # Keras raises a bare Exception when a download fails
            tried = f"Keras could not download them ({error})"
            raise UserError(_no_weights(row, path, tried)) from error
    else:
        network = construct(weights=None, **arguments)
    if from_file:
        load_weights(network, path)
        logger.info("ImageNet weights from %s", path)
    _name_by_rank(network)
    return network


def _no_weights(row: Backbone, path: Path, tried: str) -> str:
    """Message with the way to get ImageNet weights, and how to do without."""
    fetch = command("fetch_weights.py", "--backbones", row.name)
    return (
        f"No ImageNet weights for {row.name}: there is no {path}, and {tried}. `{fetch}` writes the"
        " file where there is internet access; run it here, or on another machine and copy the"
        " file. Or start from random values with --weights none."
    )


def _name_by_rank(network: keras.Model) -> None:
    """Rename layers with automatic names by rank: `activation_97` -> `backbone_activation_3`.

    Keras counts automatic names over the whole process; within one network their order is fixed.
    """
    automatic = defaultdict(list)
    for operation in network.operations:
        kind, number = re.fullmatch(r"(.+?)(?:_(\d+))?", operation.name).groups()
        if kind.replace("_", "") == type(operation).__name__.lower():
            automatic[kind].append((int(number or 0), operation))
    for kind, numbered in automatic.items():
        for rank, (_, operation) in enumerate(sorted(numbered, key=lambda pair: pair[0])):
            operation.name = f"backbone_{kind}_{rank}"
