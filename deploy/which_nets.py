"""The nets that the settings of a script name: trainings, or a bundle, which needs no Keras."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from deploy.predictor import Predictor
from inference.tta import VIEWS
from misc_utils.errors import UserError


def find_nets(
    root: Path, settings: Any
) -> tuple[Any, Callable[[], dict[str, Any]], Callable[[], Predictor]]:
    """A load.Trained or a bundle.Bundle, what its answers depend on, and what loads it.

    The second is a function that gives what provenance.check_maker is asked with the settings; the
    third one gives a Predictor.

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

        @cache
        def load_nets() -> Predictor:
            return load.load_predictor(root, trained, views=views, batch_size=settings.batch_size)

        def depends_on() -> dict[str, Any]:
            if load.lacks_references(trained):
                load_nets()  # makes them, so that they are there the next time as well
            return load.depends_on(root, trained, views)

        return trained, depends_on, load_nets
    from deploy.bundle import load_bundle, read_bundle

    if settings.segmenter or settings.classifier:
        raise UserError("--bundle holds the nets that answer: leave out --segmenter, --classifier.")
    bundle = read_bundle(Path(os.path.expanduser(settings.bundle)), *halves)
    made_by = {"weights": dict(bundle.weight_hashes), "bundle": bundle.sha256}
    return bundle, lambda: made_by, lambda: load_bundle(bundle, views)
