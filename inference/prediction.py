"""Nets -> logits, batch by batch.

Enters: trained runs with what each of them takes of the images, see dataset.Inputs. Leaves:
logits float32, (S, S, C) of masks or (C,) log-probabilities of the classes, averaged over nets and
views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.tasks import TASKS
from inference import tta
from misc_utils import command_line

if TYPE_CHECKING:  # what is predicted already can be read without Keras, and nets can do without
    import keras

    from datasets.cache import Cached
    from datasets.dataset import Inputs
    from training.run_folder import Run


@dataclass(frozen=True)
class Net:
    """A net that predicts, and the pictures it takes."""

    model: keras.Model  # ends at its logits, (B, S, S, C) or (B, C)
    images: Cached
    weight: float = 1.0  # in the mean over nets
    metadata: np.ndarray | None = None  # float32 (N, M) that it takes too, as the rows of images


def load_net(run: Run, inputs: Inputs) -> Net:
    """The net of a run, ending at its logits; UserError when its weights do not fit."""
    model = load_model(run)  # before what imports Keras
    from models.trained import logits_of

    return Net(logits_of(model), inputs.images, metadata=inputs.metadata)


def load_model(run: Run) -> keras.Model:
    """The net of a run, whole; UserError when its weights do not fit."""
    command_line.import_keras()
    from datasets import metadata
    from models.trained import load_classifier, load_segmenter

    task = TASKS[run.task]
    if task.kind == "masks":
        return load_segmenter(run.settings, run.weights, len(task.channels))
    numbers = 0 if run.sites is None else metadata.width(run.sites)
    return load_classifier(run.settings, run.weights, len(run.classes), numbers)


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
        batch_size: images per step, at most; all steps have equally many, the last may be filled
            up, so that a call compiles one shape.
        views: 1, or 8 for all flips and quarter turns.
        done: images that are not wanted; the batches stay the same without them, so that the
            logits of the others are the same to the last bit.

    Yields:
        b image ids, and logits float32 (b, S, S, C), S the largest of the nets' sizes, or (b, C);
        class logits are normalised first, so that their mean is one of log-probabilities.
    """
    image_ids = list(image_ids)
    steps = max(-(-len(image_ids) // batch_size), 1)
    batch_size = max(-(-len(image_ids) // steps), 1)  # all alike, and hardly any to be filled up
    for start in range(0, len(image_ids), batch_size):
        batch_ids = image_ids[start : start + batch_size]
        wanted = [image_id not in done for image_id in batch_ids]
        if any(wanted):
            means = [_mean_over_views(net, batch_ids, batch_size, views) for net in nets]
            logits = mean_logits(means, [net.weight for net in nets])
            yield [i for i, want in zip(batch_ids, wanted, strict=True) if want], logits[wanted]


def _mean_over_views(net: Net, image_ids: Sequence[str], batch_size: int, views: int) -> np.ndarray:
    from scipy.special import log_softmax

    rows = net.images.rows(image_ids)
    batch = np.asarray(net.images.array[rows])
    filled = _filled(batch, batch_size)
    more = None if net.metadata is None else _filled(net.metadata[rows], batch_size)
    total: np.ndarray | float = 0.0
    for k in range(views):
        seen = np.ascontiguousarray(tta.view(filled, k))
        taken = seen if more is None else (seen, more)
        logits = np.asarray(net.model.predict_on_batch(taken), dtype=np.float32)
        total += tta.undo(logits, k) if logits.ndim == 4 else log_softmax(logits, axis=-1)
    return (total / views)[: len(batch)]


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and the first of them again until there are `count`."""
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows), axis=0)])


def mean_logits(logits: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean, float32, of logits (B, C), or of maps (B, S, S, C), whose sizes may differ.

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
    larger = np.empty((len(maps), size, size, maps.shape[-1]), np.float32)
    for k, part in enumerate(maps):
        for channel in range(maps.shape[-1]):  # OpenCV resizes four channels at most
            one = np.ascontiguousarray(part[..., channel])
            larger[k, ..., channel] = cv2.resize(one, (size, size))
    return larger


def begun(batches: Iterator) -> Iterator:
    """The same batches, the first of them predicted now: whatever is wrong shows at once."""
    return chain(list(islice(batches, 1)), batches)


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
        what `work` raises, with a note that names the image.
    """

    def named(image_id: str, logits: np.ndarray) -> object:
        try:
            return work(image_id, logits)
        except Exception as error:
            error.add_note(f"image: {image_id}")
            raise

    queue: deque[Future] = deque()
    for image_ids, logits in batches:
        queue.extend(map(threads.submit, [named] * len(image_ids), image_ids, logits))
        while len(queue) > waiting:
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()
