"""Weight files: written whole and without the optimiser, read strictly.

In: a Keras model and a path ending `.weights.h5`. Out: an HDF5 file as Keras lays it out, or the
model's weights set from one (float16 tensors become float32).
"""

import io
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import h5py
import keras
import numpy as np

from misc_utils.errors import UserError
from misc_utils.files import partial_file, take_room

SUFFIX = ".weights.h5"
_SHOWN = 4  # names listed in an error
_HEAD = 8192  # bytes of the file for each tensor beside its numbers, at most

Layout = dict[str, tuple[int, ...]]


def save_weights(model: keras.Model, path: Path | str) -> None:
    """Write the model's variables to `path` (ends .weights.h5), replacing it in one step.

    The optimiser of a compiled model is left out. ValueError on another ending; UserError when the
    disk is full.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"{path}: the name of a weight file must end in {SUFFIX}")
    with partial_file(path) as partial:
        _write(_uncompiled(model), partial)


def load_weights(model: keras.Model, path: Path | str) -> None:
    """Set every weight of the model from `path`, using every tensor in it.

    The states of random layers are no weights: they are neither saved nor set.

    UserError, before anything is changed, if the file is missing, cut or not HDF5, or if it lacks
    or adds a tensor or has one of another shape: it was written for another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weight file.")
    bare = _uncompiled(model)
    try:
        found = _layout(path)
        values = _read(bare, path)
        if values is None or len(values) != len(found):
            # what Keras itself writes for this model: its groups are named by class, not by layer
            memory = _InMemory()
            bare.save_weights(memory)
            _compare(path, model, expected=_layout(memory), found=found)
            raise ValueError("Keras could not set every tensor")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    for variable, value in zip(bare.weights, values, strict=True):
        variable.assign(value)


def load_matching(model: keras.Model, path: Path | str, needed: Iterable[str]) -> list[str]:
    """Set the layers that the file has under the same name, with the same shapes; those left out.

    Files that save_weights wrote hold the names of layers. A layer that is left out keeps its
    values. UserError, before anything is changed, where one of the layers `needed` would be left
    out, or the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weight file.")
    try:
        stored = _layers(path)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    values, left = {}, []
    for layer in model.layers:
        shapes = [tuple(variable.shape) for variable in layer.weights]
        found = stored.get(layer.name, [])
        if [value.shape for value in found] == shapes:
            values[layer.name] = found
        elif shapes:
            left.append(layer.name)
    lacking = [name for name in needed if name in left]
    if lacking:
        raise UserError(
            f"{path}: not of the same backbone as {model.name}: {len(lacking)} of its layers, such "
            f"as {lacking[0]}, are missing or have other shapes. Choose another file, or "
            f"--backbone as it was then."
        )
    for name, found in values.items():
        for variable, value in zip(model.get_layer(name).weights, found, strict=True):
            variable.assign(value)
    return left


def _layers(path: Path) -> dict[str, list[np.ndarray]]:
    """{name of a layer: its tensors in order} of a file that Keras wrote; floats as float32."""
    found = {}

    def visit(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "name" in item.attrs and len(item):
            tensors = [item[key][()] for key in sorted(item, key=int)]
            found[item.attrs["name"]] = [np.asarray(one, np.float32) for one in tensors]

    with h5py.File(path, "r") as opened:
        opened.visititems(visit)
    return found


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be read as a weight file (HDF5, {SUFFIX}): {error}. It may be cut off"
        " or damaged: copy it again, or train again."
    )


def _read(bare: keras.Model, path: Path) -> list | None:
    """The file's value of each of `bare.weights`, which are not changed.

    None where a tensor is missing or has another shape. Keras ignores extra tensors.
    """
    with keras.StatelessScope() as scope, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing tensors, which are refused below
        try:
            bare.load_weights(path)  # within the scope, what is assigned is only noted
        except ValueError:
            return None
    values = [scope.get_current_value(variable) for variable in bare.weights]
    return None if any(value is None for value in values) else values


def _write(bare: keras.Model, file: Path) -> None:
    """Write a new file where there is room for it; OSError where there is not.

    HDF5 would end the process (SIGSEGV) when a disk runs full.
    """
    take_room(file, sum(4 * math.prod(variable.shape) + _HEAD for variable in bare.variables))
    bare.save_weights(file)


def _uncompiled(model: keras.Model) -> keras.Model:
    """The same layers and variables as a model without optimiser, loss and metrics."""
    # the name is written into the file, which is to be the same for the same weights
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _layout(file: Path | io.BytesIO) -> Layout:
    """Name -> shape of every tensor in an HDF5 file."""
    shapes: Layout = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            shapes[name] = tuple(item.shape)

    with h5py.File(file, "r") as opened:
        opened.visititems(visit)
    return shapes


class _InMemory(io.BytesIO):
    """A file in memory whose name Keras accepts as that of a weight file."""

    def __str__(self) -> str:
        return f"memory{SUFFIX}"


def _compare(path: Path, model: keras.Model, expected: Layout, found: Layout) -> None:
    """UserError unless both layouts are the same."""
    problems = []
    for what, names in (("missing", expected.keys() - found), ("extra", found.keys() - expected)):
        if names:
            listed = ", ".join(sorted(names)[:_SHOWN])
            problems.append(f"{len(names)} tensors {what} ({listed}, ...)")
    differing = [n for n in sorted(expected.keys() & found) if expected[n] != found[n]]
    if differing:
        listed = ", ".join(f"{n}: {found[n]}, not {expected[n]}" for n in differing[:_SHOWN])
        problems.append(f"{len(differing)} tensors of another shape ({listed}, ...)")
    if problems:
        raise UserError(
            f"{path}: not the weights of {model.name} ({len(expected)} tensors,"
            f" {model.count_params():,} parameters): {'; '.join(problems)}. Build the network with"
            " the settings the file was written with, or choose another file."
        )
