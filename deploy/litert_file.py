"""A Keras net as a LiteRT model (.tflite), which needs no Keras to run.

Enters: a functional Keras model in float32, on the backend TensorFlow. Leaves: the bytes of a
.tflite file with one signature: the same inputs, outputs under names of one's own, batches of any
size. TensorFlow converts it through `model.export` of Keras; ai-edge-litert reads and writes the
file.
"""

import copy
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.simplify import halved, simplified
from misc_utils.command_line import silence
from misc_utils.errors import UserError

PACKAGES = ("ai_edge_litert",)
REQUIREMENTS = "requirements-bundle-litert.txt"
ENDING = ".tflite"


def convert(
    model, name: str, outputs: Sequence[str], about: Mapping[str, str], half: bool = False
) -> bytes:
    """The LiteRT model of a Keras model; arguments and errors are those of onnx_file.convert."""
    import keras
    from ai_edge_litert.tools import flatbuffer_utils

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, about inputs in a list
        simple = simplified(model)
        named = keras.Model(simple.inputs, dict(zip(outputs, simple.outputs, strict=True)))
        file = Path(folder) / f"net{ENDING}"
        with silence():  # TensorFlow, in C++
            named.export(file, format="litert", verbose=False)
        net = flatbuffer_utils.read_model_from_bytearray(file.read_bytes())
    foreign = {code.customCode.decode() for code in net.operatorCodes if code.customCode}
    if foreign:
        raise UserError(
            f"{name}: this net cannot be written as LiteRT, which lacks {', '.join(foreign)}. "
            f"Export nets with another backbone, or with --format onnx; docs/export.md lists those "
            f"that were tried."
        )
    if half:
        _halve(net)
    net.description = "; ".join(f"{key}: {text}" for key, text in about.items())
    return bytes(flatbuffer_utils.convert_object_to_bytearray(net))


def _halve(net) -> None:
    """Store large tensors of float32 as float16, each behind a node that makes float32 of it."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that takes float16
    net.operatorCodes.append(code)
    (graph,) = net.subgraphs
    replaced = set()
    for place, tensor in enumerate(list(graph.tensors)):
        content = net.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or content is None:
            continue
        half = halved(np.frombuffer(content, np.float32))
        if half is None:
            continue
        replaced.add(tensor.buffer)
        stored, buffer, cast = copy.copy(tensor), schema.BufferT(), schema.OperatorT()
        buffer.data = half.view(np.uint8)
        stored.name, stored.type = tensor.name + b"_half", schema.TensorType.FLOAT16
        stored.buffer, tensor.buffer = len(net.buffers), 0  # 0: the empty one, as it is computed
        cast.opcodeIndex = len(net.operatorCodes) - 1
        cast.inputs, cast.outputs = [len(graph.tensors)], [place]
        net.buffers.append(buffer)
        graph.tensors.append(stored)
        graph.operators.insert(0, cast)
    for number in replaced:
        net.buffers[number].data = None
