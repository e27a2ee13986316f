"""What runs the nets of a bundle, by the format of their files: onnxruntime or LiteRT.

Enters: the content of a net's file. Leaves: a function that answers for batches, on the processor,
where the nets were compared with Keras. No Keras and no backend are needed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from misc_utils.command_line import REPOSITORY, silence
from misc_utils.errors import UserError
from misc_utils.messages import pip_install

# {name of an input: batch of it} -> the outputs that were asked for, in their order
Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Runtime:
    """What runs files of a format."""

    package: str  # as pip knows it
    requirements: str  # file in the repository
    load: Callable[[bytes, Sequence[str]], Run]  # content of a file, names of outputs
    machines: str = ""  # where there are packages of it, unless nearly everywhere


def load_net(format_name: str, file: Path, content: bytes, outputs: Sequence[str]) -> Run:
    """What answers with these outputs of a net.

    Args:
        format_name: a key of RUNTIMES.
        file: that it is in, for messages.
        content: of the file.
        outputs: names, in the order of the answer.

    Raises:
        UserError: the runtime is not installed or cannot load the net.
    """
    runtime = RUNTIMES[format_name]
    install = pip_install("-r", REPOSITORY / runtime.requirements)
    try:
        return runtime.load(content, outputs)
    except ImportError as error:
        raise UserError(
            f"{runtime.package} cannot be loaded ({error}), by which the nets of this bundle are "
            f"run. Install it: {install}\n{runtime.machines}".strip()
        ) from None
    except Exception as error:  # of kinds that are not exported; the file is the one written
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{file}: {runtime.package} {version(runtime.package)} cannot load it ({said}). "
            f"Install the version that {runtime.requirements} names."
        ) from None


def _load_onnx(content: bytes, outputs: Sequence[str]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # threads that wait for the next batch leave the processor to those that read and write
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return partial(session.run, outputs)


def _load_litert(content: bytes, outputs: Sequence[str]) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with silence():  # it announces what computes, from C++
        interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    return partial(_run_litert, interpreter.get_signature_runner(), outputs)


def _run_litert(runner, outputs: Sequence[str], taken: Mapping[str, np.ndarray]) -> list:
    given = runner(**taken)
    return [given[name] for name in outputs]


RUNTIMES = {
    "onnx": Runtime("onnxruntime", "requirements-bundle.txt", _load_onnx),
    "litert": Runtime(
        "ai-edge-litert",
        "requirements-bundle-litert.txt",
        _load_litert,
        "There are packages of it for Linux (x86_64, aarch64), macOS (arm64), Windows (x86_64). "
        "Elsewhere use a bundle that was written with --format onnx.",
    ),
}
