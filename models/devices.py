"""Several devices that train one net together: each computes a part of every batch.

Enters: settings. Leaves: Keras's distribution, which holds for nets that are built afterwards. Only
the backend jax can do it (Keras 3.15). Devices of several hosts: every host runs the same script
and makes the same batches, and the first process alone owns the run (training/followers.py).
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np

from misc_utils.errors import UserError


class _Parallel(keras.distribution.DataParallel):
    """Batches divided among the devices; one that they cannot divide is computed by each of them.

    Keras itself stops at such a batch, as the last one may be; filling it up would change its
    scores.
    """

    def __init__(self, devices: list[str]) -> None:
        super().__init__(devices=devices, auto_shard_dataset=False)

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        """For predictions: several hosts make all of them each, so that none waits for another."""
        if self.num_processes > 1:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return self._divided(data_shape)

    def place(self, array: np.ndarray) -> Any:
        """An array of a whole batch, of which each device holds its part."""
        import jax

        array = np.asarray(array)
        layout = self._divided(array.shape).backend_layout
        return jax.make_array_from_callback(array.shape, layout, lambda part: array[part])

    def _divided(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        if data_shape[0] % self.num_model_replicas:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


def choose_devices(wanted: int | Literal["all", "hosts"], batch_size: int) -> list[str]:
    """Names of the devices to train on; [] where one is wanted, which the backend chooses itself.

    `hosts`: all devices of all hosts, which this process joins; it must not have computed yet.
    UserError where the backend knows one device only, there are fewer, they cannot divide a batch,
    or this process was not told of the others.
    """
    if wanted == 1:
        return []
    if isinstance(wanted, int) and wanted < 1:
        raise UserError(f"--devices {wanted}: expected a number from 1, all or hosts.")
    if keras.backend.backend() != "jax":
        raise UserError(
            f"--devices {wanted}: with {keras.backend.backend()} a net is trained on one device. "
            f"Set KERAS_BACKEND=jax (packages: requirements-jax.txt), or train folds side by side, "
            f"each on a device of its own."
        )
    if wanted == "hosts":
        _join_hosts()
        _check_equal()
    devices = keras.distribution.list_devices()
    if isinstance(wanted, int):
        if wanted > len(devices):
            raise UserError(f"--devices {wanted}: there are {len(devices)}: {', '.join(devices)}.")
        devices = devices[:wanted]
    if batch_size % len(devices):
        raise UserError(
            f"--batch-size {batch_size} cannot be divided among {len(devices)} devices. Choose a "
            f"multiple of {len(devices)}."
        )
    return devices if len(devices) > 1 else []


def use_devices(names: list[str]) -> None:
    """Let nets that are built from now on be trained on these devices; []: on one, as usual."""
    if names:
        from keras.src.backend.jax import trainer

        # Keras 3.15 takes the layout of an epoch's first batch for all of them, and a batch of
        # several processes for a part of one
        trainer.JAXEpochIterator._get_distributed_iterator = _batches
        keras.distribution.set_distribution(_Parallel(names))
    elif keras.distribution.distribution() is not None:
        keras.distribution.set_distribution(None)


def _batches(iterator: Any, distribution: _Parallel) -> Iterator[Any]:
    """The batches of an epoch on their devices, each in the layout that its size allows."""
    for batch in iterator.data_adapter.get_jax_iterator():
        yield keras.tree.map_structure(
            lambda array: None if array is None else distribution.place(array), batch
        )


# --- several hosts


def _join_hosts() -> None:
    """Connect to the other processes of this training; all but the first become silent."""
    import jax

    if jax.distributed.is_initialized():
        return
    keras.utils.set_random_seed(0)  # or Keras draws one with all processes; train_folds sets ours
    try:
        keras.distribution.initialize()
    except ValueError as error:
        raise UserError(
            f"--devices hosts: this process was not told of the others ({error}). Start one on "
            f"each host with srun, or set KERAS_DISTRIBUTION_JOB_ADDRESSES, "
            f"KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID."
        ) from error
    if jax.process_index() > 0:
        logging.getLogger().setLevel(logging.WARNING)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def _check_equal() -> None:
    """UserError where the processes have unequal numbers of devices."""
    import jax

    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        found = ", ".join(map(str, counts.values()))
        raise UserError(
            f"--devices hosts: the processes have {found} devices. Give each as many as the others."
        )


def processes() -> tuple[int, int]:
    """The number of this process, counted from 0, and how many train together."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def from_first(number: int) -> int:
    """The number that the first process gives; returns when all processes have called it."""
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def all_say(yes: bool) -> bool:
    """Whether all processes say yes; returns when all have called it."""
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.int32(yes))))
