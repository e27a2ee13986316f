"""A Keras net as an ONNX model, which needs no Keras to run.

Enters: a functional Keras model in float32, on the backend TensorFlow. Leaves: the bytes of an ONNX
file: the same inputs, outputs under names of one's own, batches of any size. The packages of
requirements-export.txt do it, through `model.export` of Keras.
"""

import inspect
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from misc_utils.command_line import REPOSITORY, silence
from misc_utils.errors import UserError

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
REQUIREMENTS = REPOSITORY / "requirements-export.txt"
LEAST = 256  # numbers of a tensor that is stored as float16; of smaller ones nothing would be saved


def check_packages() -> None:
    """UserError unless nets can be converted here; Keras is loaded for it."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"to export, {', '.join(missing)} must be installed: {sys.executable} -m pip install "
            f"-r {REQUIREMENTS}"
        )
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"nets are exported with TensorFlow, whatever they were trained with; KERAS_BACKEND is "
            f"{keras.backend.backend()}. Set it to tensorflow (packages: requirements.txt)."
        )


def convert(
    model, name: str, outputs: Sequence[str], about: Mapping[str, str], half: bool = False
) -> bytes:
    """The ONNX model of a Keras model.

    Args:
        model: functional, float32.
        name: of the net, for messages.
        outputs: a name for each of its outputs.
        about: what the file says of itself, as key and text.
        half: store weights as float16; the net computes in float32 all the same.

    Returns:
        the content of the file; its inputs are named as those of the model.

    Raises:
        UserError when the net has a layer that cannot be converted.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
        file = Path(folder) / "net.onnx"
        simple = _simplified(model)
        with silence():  # TensorFlow, in C++
            simple.export(file, format="onnx", verbose=False)
        net = onnx.load(file)
    _name(net.graph, outputs)
    _enlarge_scales(net.graph)
    if half:
        _halve(net.graph)
    for key, text in about.items():
        net.metadata_props.add(key=key, value=text)
    try:
        if [entry.name for entry in net.graph.input] != [entry.name for entry in simple.inputs]:
            raise ValueError("constants of the net have become inputs of the file")
        onnx.checker.check_model(net)
    except (ValueError, onnx.checker.ValidationError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name}: this net cannot be written as ONNX ({said}). Export nets with another "
            f"backbone; docs/export.md lists those that were tried."
        ) from None
    return net.SerializeToString(deterministic=True)


def _simplified(model):
    """The same net with the same weights, of nothing but what the converter knows.

    It has been called, as the exporter asks of a model that was cut out of another.
    """
    import keras

    simple = keras.models.clone_model(model, clone_function=_replaced, call_function=_call)
    simple([np.zeros((1, *entry.shape[1:]), entry.dtype) for entry in simple.inputs])
    return simple


def _call(operation, *args, **kwargs):
    """Call an operation as the exporter can follow it.

    Arrays take the place of tensors, which would become inputs. That nobody trains is said to each
    layer: `Resizing`, where it is not told, says to all behind it that somebody does.
    """
    import keras

    def plain(part):
        symbolic = isinstance(part, keras.KerasTensor) or not keras.ops.is_tensor(part)
        return part if symbolic else np.asarray(part)

    args, kwargs = keras.tree.map_structure(plain, (args, kwargs))
    if "training" in inspect.signature(operation.call).parameters:
        kwargs["training"] = False
    return operation(*args, **kwargs)


def _replaced(layer):
    """The layer itself, or another that computes the same."""
    for is_such, replace in _REPLACEMENTS:
        if is_such(layer):
            return replace(layer)
    return layer


def _is_normalization(layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.Normalization)


def _as_rescaling(layer):
    """Its mean and variance are tensors that the net holds, which would become inputs."""
    import keras

    deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), keras.config.epsilon()).ravel()
    scale, offset = 1 / deviation, -np.asarray(layer.mean).ravel() / deviation
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name=layer.name)


def _is_grouped(layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.Conv2D) and (
        1 < layer.groups == layer.filters == layer.input.shape[-1]
    )


def _as_depthwise(layer):
    """A convolution with a group for each channel; Keras compiles it into an opaque call."""
    import keras

    other = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        use_bias=layer.use_bias,
        dtype="float32",
        name=layer.name,
    )
    other.build(layer.input.shape)
    kernel, *bias = layer.get_weights()  # (k, k, 1, C)
    other.set_weights([kernel.transpose(0, 1, 3, 2), *bias])
    return other


def _is_gelu(layer) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.gelu and not layer.weights


def _as_erf(layer):
    """GELU by the function erf; the converter knows no erfc, by which TensorFlow computes it."""
    import keras

    def gelu(x):
        return 0.5 * x * (1 + keras.ops.erf(x / np.float32(np.sqrt(2))))

    return keras.layers.Activation(gelu, dtype="float32", name=layer.name)


_REPLACEMENTS: tuple[tuple[Callable, Callable], ...] = (
    (_is_normalization, _as_rescaling),
    (_is_grouped, _as_depthwise),
    (_is_gelu, _as_erf),
)


def _name(graph, outputs: Sequence[str]) -> None:
    """Give the outputs their names, and the number of images in a batch that of `batch`."""
    new = {entry.name: name for entry, name in zip(graph.output, outputs, strict=True)}
    for node in graph.node:
        for ends in (node.input, node.output):
            for place, end in enumerate(ends):
                ends[place] = new.get(end, end)
    for entry in graph.output:
        entry.name = new[entry.name]
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "batch"


def _enlarge_scales(graph) -> None:
    """Make the factors of Resize larger by one bit of float32.

    The new size is the old one times the factor, rounded down: 23 times 24/23 would be 23.
    """
    from onnx import numpy_helper

    factors = {node.input[2] for node in graph.node if node.op_type == "Resize"}
    for tensor in graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor)
            larger = np.nextafter(values, np.float32(np.inf))
            exact = np.where(values == np.rint(values), values, larger)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))


def _halve(graph) -> None:
    """Store large tensors of float32 as float16, each behind a node that makes float32 of it."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        largest = np.finfo(np.float16).max
        if values.size < LEAST or not (np.abs(values) <= largest).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
