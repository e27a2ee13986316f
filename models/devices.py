"""Several devices that train one net together: each computes a part of every batch.

Enters: settings. Leaves: Keras's distribution, which holds for nets that are built afterwards. Only
the backend jax can do it (Keras 3.15).
"""

from collections.abc import Iterator
from typing import Any, Literal

import keras

from misc_utils.errors import UserError


class _Parallel(keras.distribution.DataParallel):
    """A batch that the devices cannot divide, as the last one may be, is computed by each of them.

    Keras itself stops there; filling such a batch up would change its scores.
    """

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        if data_shape[0] % self.num_model_replicas:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


def choose_devices(wanted: int | Literal["all"], batch_size: int) -> list[str]:
    """Names of the devices to train on; [] where one is wanted, which the backend chooses itself.

    UserError where the backend knows one device only, there are fewer, or they cannot divide a
    batch.
    """
    if wanted == 1:
        return []
    if keras.backend.backend() != "jax":
        raise UserError(
            f"--devices {wanted}: with {keras.backend.backend()} a net is trained on one device. "
            f"Set KERAS_BACKEND=jax (packages: requirements-jax.txt), or train folds side by side, "
            f"each on a device of its own."
        )
    devices = keras.distribution.list_devices()
    if wanted != "all":
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

        # Keras 3.15 takes the layout of an epoch's first batch for all of them
        trainer.JAXEpochIterator._get_distributed_iterator = _batches
        keras.distribution.set_distribution(_Parallel(devices=names))
    elif keras.distribution.distribution() is not None:
        keras.distribution.set_distribution(None)


def _batches(iterator: Any, distribution: Any) -> Iterator[Any]:
    """The batches of an epoch on their devices, each in the layout that its size allows."""
    from keras.src.backend.jax import trainer

    for batch in iterator.data_adapter.get_jax_iterator():
        yield trainer._distribute_data(batch)
