"""Rows of a memory map -> (augmented) batches for `fit`.

Enters: uint8 images (N, S, S, 3) and, where the net takes them, metadata (N, M); targets (N, ...);
the rows to use. Leaves: batches of what the net takes and float32 targets (B, ...). A batch depends
on (seed, epoch, index) alone.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from datasets.augmentation import AUGMENTATIONS, MIXES, augment
from datasets.dataset import Masks
from datasets.metadata import leave_out

# uint8 images (B, S, S, 3), or these and float32 metadata (B, M); float32 targets (B, ...); where
# asked for, float32 weights in the loss (B,)
Batch = tuple
AHEAD = 8  # at most so many batches are made in advance


def steps_per_epoch(images: int, batch_size: int, training: bool) -> int:
    """How many batches so many images make; see Batches on the last one."""
    full = images // batch_size
    return full if training and full else -(-images // batch_size)


class Batches(keras.utils.PyDataset):
    """Batches of a training or validation part; worker threads read and augment them in advance.

    Keras has worker threads as well. On jax and torch they pass on batches that were fetched to
    build the net, or at the end of an epoch for the next one: training would not begin with the
    first batch, and the order would depend on timing. There Keras gets a single worker, which means
    no threads. On TensorFlow it gets two, which wait for ours: without them Keras lets tf.data tune
    the input, and at the end of `fit` TensorFlow waits up to a minute for the tuner.

    Args:
        images: uint8 (N, S, S, 3), may be memory-mapped.
        targets: masks uint8 (N, S, S, C) in {0, 1}, or one-hot labels float32 (N, C).
        rows: int (n,), the rows of these arrays to use.
        batch_size: samples per batch.
        training: True: shuffled in each epoch, and a last batch that is not full is left out (it
            would hold other samples in each epoch); False: in order, with the last batch.
        augmentation: a row of AUGMENTATIONS.
        mix: a row of MIXES; of images with labels only.
        chances: float (n,) with sum 1: an epoch to train on draws each of the rows with this
            chance, again and again; None: it has each once.
        seed: of order and augmentation.
        metadata: float32 (N, M) that the net takes beside the images; None: it takes none.
        class_weights: float (C,): each sample's weight in the loss is given too, the mean of these
            by its target (Keras's own class_weight takes a mixed sample for one of its larger
            class); None: it is not.
        workers: number of threads.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray | Masks,
        rows: np.ndarray,
        batch_size: int,
        *,
        training: bool = False,
        augmentation: str = "none",
        mix: str = "none",
        chances: np.ndarray | None = None,
        seed: int = 0,
        metadata: np.ndarray | None = None,
        class_weights: np.ndarray | None = None,
        workers: int = 2,
    ) -> None:
        workers_of_keras = 2 if keras.backend.backend() == "tensorflow" else 1
        super().__init__(workers=workers_of_keras, max_queue_size=1)
        self.images, self.targets, self.rows = images, targets, np.asarray(rows)
        self.metadata = metadata
        self.class_weights = None if class_weights is None else np.float32(class_weights)
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.rules, self.mix = AUGMENTATIONS[augmentation], MIXES[mix]
        self.chances = chances
        self.masks = targets.ndim == 4
        self.epoch = 0
        self._threads = ThreadPoolExecutor(max(workers, 1))
        self._ahead: dict[int, Future] = {}
        self._lock = threading.Lock()

    def set_epoch(self, epoch: int) -> None:
        """Use the order and augmentation of `epoch` (0 is the first) from now on."""
        with self._lock:
            self.epoch = epoch
            for future in self._ahead.values():
                future.cancel()
            self._ahead = {}

    def __len__(self) -> int:
        return steps_per_epoch(len(self.rows), self.batch_size, self.training)

    def __getitem__(self, index: int) -> Batch:
        with self._lock:
            for i in range(index, min(index + AHEAD, len(self))):
                if i not in self._ahead:
                    self._ahead[i] = self._threads.submit(self.make, self.epoch, i)
            future = self._ahead.pop(index)
        return future.result()

    def make(self, epoch: int, index: int) -> Batch:
        """A batch of an epoch, made in the calling thread."""
        rows = self.rows
        if self.training:
            random = np.random.default_rng([self.seed, epoch])
            if self.chances is None:
                rows = random.permutation(rows)
            else:
                rows = random.choice(rows, len(rows), p=self.chances)
        rows = rows[index * self.batch_size : (index + 1) * self.batch_size]
        rows = np.sort(rows)  # a copy of these rows, read in the order they lie in
        images, targets = np.asarray(self.images[rows]), np.asarray(self.targets[rows])
        metadata = None if self.metadata is None else self.metadata[rows]
        if self.training:
            # index + 1: numpy takes [a, b] and [a, b, 0] for the same seed
            random = np.random.default_rng([self.seed, epoch, index + 1])
            for sample in range(len(rows)):
                mask = targets[sample] if self.masks else None
                images[sample], mask = augment(images[sample], mask, self.rules, random)
                if self.masks:
                    targets[sample] = mask
            if metadata is not None:
                metadata = leave_out(metadata, random)
            if self.mix is not None:
                images, pairs = self.mix(images, random)
                targets = pairs.mix(targets)
                metadata = None if metadata is None else pairs.mix(metadata)
        taken = images if metadata is None else (images, metadata)
        targets = targets.astype(np.float32)
        if self.class_weights is None:
            return taken, targets
        return taken, targets, targets @ self.class_weights
