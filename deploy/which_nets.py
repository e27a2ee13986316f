"""The nets that the settings of a script name: trainings, or a bundle, which needs no Keras."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.predictor import Predictor
from inference.tta import VIEWS
from misc_utils.errors import UserError


def find_nets(root: Path, settings: Any) -> tuple[Any, Callable[[], Predictor]]:
    """A load.Trained or a bundle.Bundle, and a function that loads it as a Predictor.

    Args:
        root: of data/, model_data/ and submissions/.
        settings: segmenter, classifier, bundle, mask, classes, tta, batch_size and dataset are
            read from it.

    Raises:
        UserError: there are no such nets, or both trainings and a bundle are named.
    """
    views, halves = VIEWS if settings.tta else 1, (settings.mask, settings.classes)
    if settings.bundle is None:
        from deploy import load

        named = settings.segmenter, settings.classifier, settings.dataset
        trained = load.find_trained(root / "model_data", *named, *halves)
        return trained, lambda: load.load_predictor(
            root, trained, views=views, batch_size=settings.batch_size
        )
    from deploy.bundle import load_bundle, read_bundle

    if settings.segmenter or settings.classifier:
        raise UserError("--bundle holds the nets that answer: leave out --segmenter, --classifier.")
    bundle = read_bundle(Path(os.path.expanduser(settings.bundle)), *halves)
    return bundle, lambda: load_bundle(bundle, views)
