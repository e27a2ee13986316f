"""Trained nets, built from the settings of a run and loaded with its weights.

Enters: the settings a run was trained with, its weight file. Leaves: a keras.Model in the run's
precision: `auto` depends on the device used now; runs without that setting used float32.
"""

from collections.abc import Mapping
from pathlib import Path

import keras

from datasets.challenge import CLASSES
from models.classifier import build_classifier
from models.precision import use_precision
from models.unet import build_segmenter
from models.weights import load_weights


def logits_of(model: keras.Model) -> keras.Model:
    """The same net, ending at its layer `logits`."""
    return keras.Model(model.input, model.get_layer("logits").output)


def load_segmenter(settings: Mapping, file: Path) -> keras.Model:
    """The U-Net of a Task 1 run; UserError when `file` is of another architecture or damaged."""
    use_precision(settings.get("precision", "float32"))
    model = build_segmenter(
        settings["backbone"],
        image_size=settings["image_size"],
        weights="none",
        up=settings["up"],
        batch_norm=settings["batch_norm"],
    )
    load_weights(model, file)
    return model


def load_classifier(settings: Mapping, file: Path, num_classes: int = len(CLASSES)) -> keras.Model:
    """The classifier of a Task 3 run; UserError when `file` is of another net or damaged."""
    use_precision(settings.get("precision", "float32"))
    model = build_classifier(
        settings["backbone"],
        image_size=settings["image_size"],
        weights="none",
        num_classes=num_classes,
        dropout=settings["dropout"],
        regularizer=settings["regularizer"],
    )
    load_weights(model, file)
    return model
