"""A Keras net as an ONNX model, which needs no Keras to run.

Enters: a functional Keras model in float32, on the backend TensorFlow. Leaves: the bytes of an ONNX
file: the same inputs, outputs under names of one's own, batches of any size. The packages of
requirements-export.txt do it, through `model.export` of Keras.
"""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.simplify import halved, simplified
from misc_utils.command_line import silence
from misc_utils.errors import UserError

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
REQUIREMENTS = "requirements-export.txt"
ENDING = ".onnx"


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
        file = Path(folder) / f"net{ENDING}"
        simple = simplified(model)
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
        half, name = halved(numpy_helper.to_array(tensor)), tensor.name
        if half is None:
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
