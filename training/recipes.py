"""Recipes: settings of a training script that were measured together, by name.

Leaves: for each script a table {name: {setting: value}}, which `--recipe` puts in place of the
script's own defaults; flags still win. What each reached, and in what time: docs/results.md.
From Python: `Settings(**SEGMENTATION["quick"], folds=(0,))`.
"""

from collections.abc import Mapping
from typing import Any

Recipe = Mapping[str, Any]

_LITE = {
    "backbone": "efficientnet_lite0",
    "augmentation": "affine_light",
    "learning_rate": 5e-4,
    "schedule": "cosine",
}
_DENSE = {
    "backbone": "densenet121",
    "image_size": 224,
    "augmentation": "affine_light",
    "schedule": "cosine",
}

# Task 1. Task 2 wants another loss: --loss auto
SEGMENTATION: Mapping[str, Recipe] = {
    "classic": {},
    "quick": _LITE
    | {
        "image_size": 128,
        "up": "upsample",
        "decoder_filters": 16,
        "loss": "binary_crossentropy_dice",
        "batch_size": 16,
        "epochs": 12,
    },
    "strong": _DENSE
    | {"loss": "binary_crossentropy_dice", "batch_size": 32, "epochs": 12, "learning_rate": 7e-4},
}

CLASSIFICATION: Mapping[str, Recipe] = {
    "classic": {},
    "quick": _LITE
    | {
        "lesion_view": "whole",
        "image_size": 160,
        "loss": "categorical_crossentropy",
        "class_weight": "balanced-sqrt",
        "batch_size": 32,
        "epochs": 10,
    },
    "strong": _DENSE
    | {
        "lesion_view": "whole",
        "loss": "categorical_crossentropy",
        "class_weight": "balanced-sqrt",
        "batch_size": 64,
        "epochs": 8,
        "learning_rate": 4e-4,
        "monitor": "val_balanced_accuracy",
    },
}
