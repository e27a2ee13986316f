"""Nets that answer for an image: their logits, and what a classifier's say is explained by.

Enters: trained runs. Leaves: MaskNet and ClassNet, which take uint8 RGB (B, S, S, 3) whatever runs
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploy.grad_cam import Head
from deploy.unlikeness import Reference

if TYPE_CHECKING:  # nets of a bundle need none of them
    import keras

    from training.run_folder import Run

TAKES = "RGB uint8 (batch, side, side, 3); scaling is part of each net"
# uint8 (B, S, S, 3) -> logits float32 (B, S, S, 1)
Segment = Callable[[np.ndarray], np.ndarray]
# uint8 (B, S, S, 3) -> logits (B, C), what enters the hidden layer (B, F + M), its map (B, h, w, F)
Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Cut:
    """How a lesion is cut out along its mask, see seg_predict.py."""

    crop_margin: float = 0.0  # around its bounding box, as a share of its longer side
    edge_radius: float = 0.05  # of the view feather: width of the fade, as such a share


@dataclass(frozen=True, eq=False)
class MaskNet:
    """A net that finds the lesion."""

    name: str  # of its run
    segment: Segment
    image_size: int  # S in pixels
    steps: tuple[str, ...] = ()  # of preprocessing
    weight: float = 1.0  # in the mean over nets
    model: keras.Model | None = None  # what segments; None: something other than Keras


@dataclass(frozen=True, eq=False)
class ClassNet:
    """A net that tells the class."""

    name: str  # of its run
    member: int  # of the ensemble that it belongs to
    classify: Classify
    image_size: int  # S in pixels
    head: Head
    steps: tuple[str, ...] = ()  # of preprocessing
    lesion_view: str = "whole"  # what it sees: whole, box, crop or feather
    box_margin: float = 0.0  # of the view box
    cut: Cut = Cut()  # how the lesions were cut that it was trained on
    reference: Reference | None = None  # its training images; None: not known here
    sites: tuple[str, ...] | None = None  # body sites that it knows; None: it takes no metadata
    model: keras.Model | None = None  # what classifies; None: something other than Keras


def load_mask_net(run: Run, weight: float) -> MaskNet:
    """The net of a run; UserError when its weights do not fit."""
    from inference.prediction import load_model
    from models.trained import logits_of

    model = logits_of(load_model(run))

    def segment(batch: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_on_batch(batch), dtype=np.float32)

    return MaskNet(run.name, segment, run.image_size, run.steps, weight, model)


def load_class_net(run: Run, member: int, reference: Reference | None, cut: Cut) -> ClassNet:
    """The net of a run; UserError when its weights do not fit.

    `cut` is how the lesions that it was trained on were cut. A net that takes age, sex and site is
    told that none of them is known.
    """
    import keras

    from datasets import metadata
    from inference.prediction import load_model

    model = load_model(run)
    hidden, pool, last = (model.get_layer(name) for name in ("fc1", "average_pool", "logits"))
    explained = keras.Model(model.inputs, [last.output, hidden.input, pool.input])
    nothing = None if run.sites is None else metadata.nothing_known(metadata.width(run.sites))

    def classify(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        taken = batch if nothing is None else (batch, np.repeat(nothing[None], len(batch), axis=0))
        outputs = explained.predict_on_batch(taken)
        logits, pooled, features = (np.asarray(part, dtype=np.float32) for part in outputs)
        return logits, pooled, features

    head = Head(*(np.asarray(w, np.float32) for w in (hidden.kernel, hidden.bias, last.kernel)))
    settings = run.settings
    return ClassNet(
        run.name,
        member,
        classify,
        run.image_size,
        head,
        run.steps,
        settings["lesion_view"],
        settings["box_margin"],
        cut,
        reference,
        run.sites,
        explained,
    )
