"""Training: what `fit` adds to the bare step, what a second fold costs, ours beside PyTorch.

Enters: how often to measure. Leaves: rows, one after another.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from measure import Row, Target, cpu_seconds, in_turn, seconds

HERE = Path(__file__).resolve().parent
SIZE, BATCH_SIZE = 224, 32


def fit(repetitions: int) -> Iterator[Row]:
    """An epoch of `fit` against the compiled step on one batch and what the feed computes."""
    import keras

    from datasets.batches import Batches
    from models.losses import segmentation_loss
    from models.metrics import segmentation_metrics
    from models.unet import build_segmenter
    from training import fit

    steps = 2
    random = np.random.default_rng(0)
    shape = (steps * BATCH_SIZE, SIZE, SIZE, 3)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    masks = (images[..., :1] > 127).astype(np.uint8)
    batches = Batches(
        images,
        masks,
        np.arange(len(images)),
        BATCH_SIZE,
        training=True,
        augmentation="affine",
        workers=4,
    )
    model = build_segmenter("tiny", image_size=SIZE, weights="none")
    model.compile(
        fit.build_optimizer(1e-3, "plateau", 0),
        segmentation_loss("binary_crossentropy"),
        metrics=segmentation_metrics(),
    )
    batch = tuple(keras.ops.convert_to_tensor(part) for part in batches.make(0, 0))
    model.make_train_function()

    def bare() -> None:
        for _ in range(steps):
            model.train_function(iter([batch]))

    feeds = []

    def reference() -> float:
        feeds.append(
            cpu_seconds(lambda: [batches.make(0, i) for i in range(steps)]) / os.cpu_count()
        )
        return (seconds(bare) + feeds[-1]) / steps

    measured = in_turn(
        lambda: seconds(lambda: model.fit(batches, shuffle=False, verbose=0)) / steps,
        reference,
        repetitions,
    )
    yield Row(
        f"fit, tiny, a step of {BATCH_SIZE} at {SIZE} px",
        "bare compiled step + the feed's processor time / cores",
        "s",
        *measured,
        Target("<=", 1.05),
        "ours / reference",
        note=f"feed {1000 * np.median(feeds) / steps:.0f} ms of it",
    )


def folds(repetitions: int) -> Iterator[Row]:
    """Time from the end of one fold to the first step of the next, in runs/seg_train.py."""
    command = [sys.executable, str(HERE / "two_folds.py"), "vgg16"]
    first, second = [], []
    for _ in range(repetitions):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr}")
        times = done.stdout.splitlines()[-1].split()
        first.append(float(times[0]))
        second.append(float(times[1]))
    yield Row(
        "second fold until its first step is done (vgg16, 64 px)",
        "first fold",
        "s",
        second,
        first,
        Target("<=", 0.15),
        "ours / reference",
    )


def torch(repetitions: int) -> Iterator[Row]:
    """Training end to end, ours beside segmentation_models_pytorch, float32 on the processor."""
    batch_size, steps = 4, 2
    for net in ("vgg16", "densenet121"):
        names = ("ours", "theirs", "default")
        with ExitStack() as stack:
            sides = {n: stack.enter_context(worker(n, net, batch_size, steps)) for n in names}
            for side in sides.values():
                side.wait_until_ready()
            milliseconds = {name: [] for name in names}
            for _ in range(repetitions):
                for name, side in sides.items():
                    milliseconds[name].append(1000 * side.epoch() / batch_size / steps)
        for name, decoder, target in (
            ("theirs", "decoder as wide as ours", Target(">=", 1)),
            ("default", "its default decoder", None),
        ):
            yield Row(
                f"training, {net} U-Net, {SIZE} px, batch {batch_size}, an image",
                f"segmentation_models_pytorch, {decoder}",
                "ms",
                milliseconds["ours"],
                milliseconds[name],
                target,
                "reference / ours",
            )


class Worker:
    """A process of side.py."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def wait_until_ready(self) -> None:
        """Block until its first epoch is over."""
        while (line := self.process.stdout.readline()) != "ready\n":
            if not line:
                raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def epoch(self) -> float:
        """Seconds of one more epoch."""
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def worker(side: str, net: str, batch_size: int, steps: int) -> Iterator[Worker]:
    """A started process of side.py that ends with the block."""
    command = [sys.executable, str(HERE / "side.py"), side, net, str(batch_size), str(steps)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield Worker(process)
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
