"""Nets -> logits, each image by nets that did not train on it.

Enters: nets with the cached images each of them takes, uint8 (N, S, S, 3), and what each was
trained on. Leaves: logits float32, (S, S, 1) of a mask or (C,) log-probabilities of the classes,
averaged over nets and views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.special import log_softmax

from inference import tta

if TYPE_CHECKING:  # what is predicted already can be read without it
    import keras


@dataclass(frozen=True)
class Net:
    """A net that predicts, and the pictures it takes."""

    model: keras.Model  # ends at its logits, (B, S, S, 1) or (B, C)
    images: object  # datasets.cache.Cached: `array` uint8 (N, S, S, 3), `rows(image_ids)`
    weight: float = 1.0  # in the mean over nets


def logits_of(model: keras.Model) -> keras.Model:
    """The same net, ending at its layer `logits`."""
    import keras

    return keras.Model(model.input, model.get_layer("logits").output)


def predict_logits(
    nets: Sequence[Net],
    image_ids: Sequence[str],
    batch_size: int,
    views: int,
    done: Collection[str] = (),
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Mean logits over nets and views, batch by batch, so that memory does not grow with N.

    Args:
        nets: each predicts every image.
        image_ids: which images, n of them.
        batch_size: images per step, at most; all steps have equally many, of the last some may be
            made up, so that a call compiles one shape.
        views: 1, or 8 for all flips and quarter turns.
        done: images that are not asked for; the batches stay the same without them, so that the
            logits of the others are the same to the last bit.

    Yields:
        b image ids, and logits float32 (b, S, S, 1), S the largest of the nets' sizes, or (b, C);
        class logits are normalised first, so that their mean is one of log-probabilities.
    """
    image_ids = list(image_ids)
    steps = max(-(-len(image_ids) // batch_size), 1)
    batch_size = max(-(-len(image_ids) // steps), 1)  # all alike, and hardly any to be filled up
    for start in range(0, len(image_ids), batch_size):
        chosen = image_ids[start : start + batch_size]
        left = [image_id for image_id in chosen if image_id not in done]
        if not left:
            continue
        means = [_mean_over_views(net, chosen, batch_size, views) for net in nets]
        logits = mean_logits(means, [net.weight for net in nets])
        yield left, logits[[image_id not in done for image_id in chosen]]


def _mean_over_views(net: Net, image_ids: Sequence[str], batch_size: int, views: int) -> np.ndarray:
    batch = np.asarray(net.images.array[net.images.rows(image_ids)])
    filled = np.concatenate([batch, np.repeat(batch[:1], batch_size - len(batch), axis=0)])
    total: np.ndarray | float = 0.0
    for k in range(views):
        seen = np.ascontiguousarray(tta.view(filled, k))
        logits = np.asarray(net.model.predict_on_batch(seen), dtype=np.float32)
        total += tta.undo(logits, k) if logits.ndim == 4 else log_softmax(logits, axis=-1)
    return (total / views)[: len(batch)]


def work_behind(
    threads: ThreadPoolExecutor,
    work: Callable[[str, np.ndarray], object],
    batches: Iterable[tuple[Sequence[str], np.ndarray]],
    waiting: int,
) -> Iterator:
    """Results of work(image id, logits), in order, done by threads while nets predict on.

    Args:
        threads: that work.
        work: what to do with each image.
        batches: of image ids and their logits, as predict_logits yields them.
        waiting: images that may wait for a thread, so that memory does not grow when prediction is
            faster than the work.

    Raises:
        what `work` raises.
    """
    queue: deque[Future] = deque()
    for image_ids, logits in batches:
        queue.extend(map(threads.submit, [work] * len(image_ids), image_ids, logits))
        while len(queue) > waiting:
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()


def mean_logits(logits: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean, float32, of logits (B, C), or of maps (B, S, S, 1), whose sizes may differ.

    Maps are brought to the largest of their sizes, bilinearly.
    """
    if logits[0].ndim == 4:
        size = max(maps.shape[1] for maps in logits)
        logits = [_resized(maps, size) for maps in logits]
    total = sum(weights)
    return sum(
        (np.float32(weight / total) * np.asarray(part, dtype=np.float32))
        for part, weight in zip(logits, weights, strict=True)
    )


def _resized(maps: np.ndarray, size: int) -> np.ndarray:
    if maps.shape[1] == size:
        return maps
    maps = np.asarray(maps, dtype=np.float32)
    return np.stack([cv2.resize(part[..., 0], (size, size))[..., None] for part in maps])


def assign_nets(
    image_ids: Sequence[str],
    trained_on: Mapping[str, set[str]],
    lesions: Mapping[str, str] | None = None,
) -> tuple[dict[tuple[str, ...], list[str]], list[str]]:
    """Which nets may predict which image: those that trained neither on it nor on its lesion.

    Args:
        image_ids: the images to predict.
        trained_on: {name of a net: ids of the images, and of the lesions, it was trained on}.
        lesions: {image id: lesion id}, where known.

    Returns:
        {names of the nets that predict: image ids}, and the ids that every net was trained on.
    """
    lesions = lesions or {}
    groups: dict[tuple[str, ...], list[str]] = {}
    for image_id in image_ids:
        keys = {image_id, lesions.get(image_id, image_id)}
        nets = tuple(name for name, seen in trained_on.items() if not keys & seen)
        groups.setdefault(nets, []).append(image_id)
    left_out = groups.pop((), [])
    return groups, left_out
