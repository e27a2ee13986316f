"""Trained nets, built from the settings of a run and loaded with its weights.

Enters: the settings a run was trained with, its weight file. Leaves: a keras.Model in the run's
precision: `auto` depends on the device used now; runs without that setting used float32.
"""

from collections.abc import Mapping
from pathlib import Path

import keras

from models.classifier import build_classifier
from models.precision import use_precision
from models.unet import FINEST_FILTERS, build_segmenter
from models.weights import load_weights


def logits_of(model: keras.Model) -> keras.Model:
    """The same net, ending at its layer `logits`."""
    return keras.Model(model.input, model.get_layer("logits").output)


def load_segmenter(settings: Mapping, file: Path, channels: int = 1) -> keras.Model:
    """The U-Net of a run; UserError when `file` is of another architecture or damaged."""
    use_precision(settings.get("precision", "float32"))
    model = build_segmenter(
        settings["backbone"],
        image_size=settings["image_size"],
        weights="none",
        up=settings["up"],
        batch_norm=settings["batch_norm"],
        decoder_filters=settings.get(
            "decoder_filters", FINEST_FILTERS
        ),  # earlier runs have no such
        channels=channels,
    )
    load_weights(model, file)
    return model


def load_classifier(
    settings: Mapping, file: Path, num_classes: int = 7, num_metadata: int = 0
) -> keras.Model:
    """The classifier of a run; UserError when `file` is of another net or damaged.

    `num_metadata` is the number of values beside the image, 0 where it takes the image alone.
    """
    use_precision(settings.get("precision", "float32"))
    model = build_classifier(
        settings["backbone"],
        image_size=settings["image_size"],
        weights="none",
        num_classes=num_classes,
        num_metadata=num_metadata,
        dropout=settings["dropout"],
        regularizer=settings["regularizer"],
    )
    load_weights(model, file)
    return model
