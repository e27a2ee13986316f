"""The nets of benchmarks/gpu.py in PyTorch, measured by a process of their own.

python3 benchmarks/torch_nets.py densenet121 224 32 bfloat16

Enters: net, image side in pixels, batch size, precision. Leaves: lines of JSON. The first tells
device and version, or which package is missing; then each line `train 20` or `predict 20` on
standard input is answered with the seconds of so many steps on one batch that stays on the device.
Importing this module does not import PyTorch.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

# widths of the decoder, coarsest first, and stages of the encoder: as wide and deep as ours
_VGG = ((256, 128, 64, 32), 4)
_DENSENET = ((512, 256, 128, 64, 32), 5)
SEGMENTERS = {
    "vgg16": _VGG,
    "vgg19": _VGG,
    "densenet121": _DENSENET,
    "densenet169": _DENSENET,
    "densenet201": _DENSENET,
}
CLASSIFIERS = {f"{name}-classifier": name for name in SEGMENTERS if name.startswith("densenet")}
NETS = (*SEGMENTERS, *CLASSIFIERS)  # those of our nets that have a counterpart
NUM_CLASSES = 7


class MissingPackageError(Exception):
    """The process cannot import a package; the text is its name."""


class Reference:
    """A process that measures when it is told to."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def wait_until_ready(self) -> dict:
        """Block until its net is compiled; `device`, `torch` (version), `compiled` (bool).

        Raises MissingPackageError when it lacks a package, RuntimeError when it ended.
        """
        facts = self._answer()
        if "missing" in facts:
            raise MissingPackageError(facts["missing"])
        return facts

    def seconds(self, what: str, steps: int) -> float:
        """Seconds of `steps` steps of `train` or `predict`."""
        self.process.stdin.write(f"{what} {steps}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def reference(
    python: str, net: str, image_size: int, batch_size: int, precision: str
) -> Iterator[Reference]:
    """A process of this file, run by the interpreter `python`, that ends with the block."""
    process = subprocess.Popen(
        [python, str(Path(__file__).resolve()), net, str(image_size), str(batch_size), precision],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Reference(process)
    finally:
        process.kill()
        process.communicate()


def build_net(net: str):
    """The counterpart of `net`, random weights, ending at its logits."""
    if net in CLASSIFIERS:
        import torchvision

        return getattr(torchvision.models, CLASSIFIERS[net])(num_classes=NUM_CLASSES)
    import segmentation_models_pytorch

    widths, depth = SEGMENTERS[net]
    return segmentation_models_pytorch.Unet(
        net, encoder_weights=None, encoder_depth=depth, decoder_channels=widths
    )


def random_batch(net: str, image_size: int, batch_size: int, device: str) -> tuple:
    """Images float32 0..1 (B, 3, S, S) in channels_last, and masks (B, 1, S, S) or classes (B,)."""
    import torch

    images = torch.rand(batch_size, 3, image_size, image_size)
    images = images.to(device, memory_format=torch.channels_last)
    if net in CLASSIFIERS:
        return images, torch.randint(NUM_CLASSES, (batch_size,), device=device)
    return images, (images[:, :1] > 0.5).float()


def build_steps(
    net: str, image_size: int, batch_size: int, precision: str
) -> tuple[dict[str, Callable[[int], None]], dict]:
    """{`train`, `predict`: a function that makes n steps and waits for them}, and facts.

    On a GPU the net is compiled; `precision` bfloat16 means autocast.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.backends.cudnn.benchmark = True  # looks for the fastest convolutions
    torch.set_float32_matmul_precision("high")  # tf32, as jax has it
    model = build_net(net).to(device, memory_format=torch.channels_last)
    model = torch.compile(model) if on_gpu else model
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=on_gpu)
    images, targets = random_batch(net, image_size, batch_size, device)
    loss_of = torch.nn.CrossEntropyLoss() if net in CLASSIFIERS else torch.nn.BCEWithLogitsLoss()
    autocast = partial(torch.autocast, device, torch.bfloat16, precision == "bfloat16")
    wait = torch.cuda.synchronize if on_gpu else lambda: None

    def train(steps: int) -> None:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                loss = loss_of(model(images), targets)
            loss.backward()
            optimizer.step()
        wait()

    def predict(steps: int) -> None:
        model.eval()
        with torch.inference_mode(), autocast():
            for _ in range(steps):
                model(images)
        wait()

    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    facts = {"device": name, "torch": torch.__version__, "compiled": on_gpu}
    return {"train": train, "predict": predict}, facts


def main() -> None:
    net, image_size, batch_size, precision = sys.argv[1:]
    # what libraries print goes to standard error, so that standard output holds answers alone
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        works, facts = build_steps(net, int(image_size), int(batch_size), precision)
    except ImportError as error:
        print(json.dumps({"missing": error.name or str(error)}), file=answers)
        return
    for work in works.values():
        work(1)  # compiles
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        what, steps = line.split()
        start = time.perf_counter()
        works[what](int(steps))
        print(json.dumps({"seconds": time.perf_counter() - start}), file=answers)


if __name__ == "__main__":
    main()
