"""Rows of a memory map -> (augmented) batches for `fit`.

Enters: uint8 images (N, S, S, 3), targets (N, ...), the rows to use. Leaves: batches of uint8
(B, S, S, 3) and float32 targets (B, ...). What a batch holds depends on (seed, epoch, index) alone.
"""

import keras
import numpy as np

from datasets.augmentation import AUGMENTATIONS, augment


class Batches(keras.utils.PyDataset):
    """Batches of a training or validation part; worker threads read and augment them.

    Args:
        images: uint8 (N, S, S, 3), may be memory-mapped.
        targets: masks uint8 (N, S, S, 1) in {0, 1}, or one-hot labels float32 (N, C).
        rows: int (n,), the rows of both arrays to use.
        batch_size: samples per batch.
        training: shuffled anew each epoch, and the last batch left out when it is not full (which
            samples it would hold changes each epoch); otherwise in order, last batch included.
        augmentation: a row of AUGMENTATIONS.
        seed: governs order and augmentation.
        workers: threads.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        rows: np.ndarray,
        batch_size: int,
        *,
        training: bool = False,
        augmentation: str = "none",
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        # Fewer than two workers would mean no thread at all: the net would wait for each batch.
        super().__init__(workers=max(workers, 2), use_multiprocessing=False, max_queue_size=8)
        self.images, self.targets, self.rows = images, targets, np.asarray(rows)
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.rules = AUGMENTATIONS[augmentation]
        self.masks = targets.ndim == 4
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Order and augmentation from here on are those of `epoch` (0 is the first)."""
        self.epoch = epoch

    def __len__(self) -> int:
        full = len(self.rows) // self.batch_size
        if self.training and full:
            return full
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        epoch = self.epoch
        rows = self.rows
        if self.training:
            rows = np.random.default_rng([self.seed, epoch]).permutation(rows)
        rows = rows[index * self.batch_size : (index + 1) * self.batch_size]
        rows = np.sort(rows)  # a copy of these rows, read in the order they lie in
        images, targets = np.asarray(self.images[rows]), np.asarray(self.targets[rows])
        if self.training:
            # index + 1: numpy takes [a, b] and [a, b, 0] for the same seed
            random = np.random.default_rng([self.seed, epoch, index + 1])
            for sample in range(len(rows)):
                mask = targets[sample] if self.masks else None
                images[sample], mask = augment(images[sample], mask, self.rules, random)
                if self.masks:
                    targets[sample] = mask
        return images, targets.astype(np.float32)
