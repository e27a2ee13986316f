"""Nets -> logits, each image by nets that did not train on it.

Enters: uint8 images (N, S, S, 3), the nets of some folds, the split each was trained with. Leaves:
logits float32, (S, S, 1) of a mask or (C,) log-probabilities of the classes, averaged over nets and
views.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import pandas as pd
from scipy.special import log_softmax

from misc_utils import tta


def logits_of(model: keras.Model) -> keras.Model:
    """The same net, ending at its layer `logits`."""
    return keras.Model(model.input, model.get_layer("logits").output)


def predict_logits(
    nets: Sequence[keras.Model], images: np.ndarray, rows: np.ndarray, batch_size: int, views: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean logits over nets and views, batch by batch, so that memory does not grow with N.

    Args:
        nets: each ends at its logits, (B, S, S, 1) or (B, C).
        images: uint8 (N, S, S, 3), may be memory-mapped.
        rows: which of them, int (n,).
        batch_size: images per step; the last batch is filled up, so that nothing compiles twice.
        views: 1, or 8 for all flips and quarter turns.

    Yields:
        rows int (b,) and logits float32 (b, S, S, 1) or (b, C); class logits are normalised first,
        so that their mean is one of log-probabilities.
    """
    batch_size = max(min(batch_size, len(rows)), 1)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        batch = np.asarray(images[chosen])
        filled = np.concatenate([batch, np.repeat(batch[:1], batch_size - len(batch), axis=0)])
        total: np.ndarray | float = 0.0
        for k in range(views):
            seen = np.ascontiguousarray(tta.view(filled, k))
            for net in nets:
                logits = np.asarray(net.predict_on_batch(seen), dtype=np.float32)
                total += tta.undo(logits, k) if logits.ndim == 4 else log_softmax(logits, axis=-1)
        yield chosen, (total / (views * len(nets)))[: len(chosen)]


def assign_nets(
    image_ids: Sequence[str],
    splits: Mapping[int, pd.DataFrame],
    lesions: Mapping[str, str] | None = None,
) -> tuple[dict[tuple[int, ...], list[str]], list[str]]:
    """Which nets may predict which image: those that trained neither on it nor on its lesion.

    Args:
        image_ids: the images to predict.
        splits: {fold k held out: folds.csv of that net}.
        lesions: {image id: lesion id}, where known.

    Returns:
        {folds whose nets predict: image ids}, and the ids that every net was trained on.
    """
    lesions = lesions or {}
    seen_by = {}
    for k, folds in splits.items():
        trained = folds.loc[folds["fold"] != k]
        seen_by[k] = set(trained["image"]) | set(trained.get("lesion", ()))
    groups: dict[tuple[int, ...], list[str]] = {}
    for image_id in image_ids:
        keys = {image_id, lesions.get(image_id, image_id)}
        nets = tuple(k for k, seen in seen_by.items() if not keys & seen)
        groups.setdefault(nets, []).append(image_id)
    left_out = groups.pop((), [])
    return groups, left_out


def provenance(settings: dict, runs: Sequence, groups: Mapping[tuple[int, ...], list[str]]) -> dict:
    """What made a submission: settings, runs with the SHA-256 of their weights, images by nets.

    `runs` are misc_utils.run_folder.Run; `groups` is what assign_nets gives. Settings that cannot
    change the result are left out.
    """
    kept = {k: v for k, v in settings.items() if k not in ("overwrite", "batch_size")}
    weights = {run.name: hashlib.sha256(run.weights.read_bytes()).hexdigest() for run in runs}
    nets = {"folds " + " ".join(map(str, k_folds)): ids for k_folds, ids in groups.items()}
    return {"settings": kept, "weights": weights, "images_by_nets": nets}
