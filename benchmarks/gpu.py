"""Measure training and prediction on a GPU with jax: alone, beside PyTorch, over five folds.

KERAS_BACKEND=jax python3 benchmarks/gpu.py --part speed
KERAS_BACKEND=jax python3 benchmarks/gpu.py --part torch
KERAS_BACKEND=jax python3 benchmarks/gpu.py --part folds

Prints each row as soon as it is measured, writes all so far as JSON, and prints the table at last.
A target is met when the better end of the 95 % interval of the ratio reaches it. Nets start from
random weights and see random images; folds are trained as runs/seg_train.py does it, on the images
under ISIC_ROOT or, without any, on drawn ones.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

import cls_train
import seg_train
import torch_nets

from measure import HEAD, Row, Target, in_turn, seconds, write_rows
from misc_utils import command_line
from misc_utils.errors import UserError
from models.backbones import BACKBONES

CLASSIFIER = "-classifier"
NETS = (*BACKBONES, *(f"{name}{CLASSIFIER}" for name in BACKBONES))
NUM_CLASSES = torch_nets.NUM_CLASSES
POLL = 0.02  # seconds between looks at the files of a training
ALLOWED, ORIGINAL = 15, 210  # minutes of training on five folds: the target, and of old


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    part: Literal["speed", "torch", "folds"] = "speed"  # what to measure
    nets: tuple[Literal[*NETS], ...] = (
        "vgg16",
        "densenet121",
        "densenet169",
        "densenet201-classifier",
    )
    """speed, torch: a backbone's U-Net, or its classifier with -classifier behind the name."""
    image_size: int = 224  # side of the square pictures in pixels, a multiple of 32
    batch_size: int = 32  # images per step
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    steps: int | None = None  # speed: of an epoch; None: 64 on a GPU, 4 elsewhere
    short_steps: int | None = None  # of other measurements; None: 20 on a GPU, 1 elsewhere
    repetitions: int = 7  # measurements of each side
    minutes: float = 9  # speed, torch: a net that would take longer is left out, and named
    torch_python: str = sys.executable  # torch: the interpreter that has PyTorch
    backbone: Literal[*BACKBONES] = "densenet169"  # folds: encoder of the U-Net
    epochs: int = 3  # folds: how many are trained, 2 or more
    all_folds: bool = False  # folds: train all of them instead of the first
    drawn_images: int = 2594  # folds: how many are drawn where ISIC_ROOT has none of Task 1
    out: Path | None = None  # the table as JSON; None: benchmarks/results_gpu_<part>.json


def main(settings: Settings) -> list[Row]:
    out = settings.out or paths.repository / "benchmarks" / f"results_gpu_{settings.part}.json"
    rows, remarks, started = [], [], time.monotonic()
    for said in PARTS[settings.part](settings):
        (rows if isinstance(said, Row) else remarks).append(said)
        print(said.line() if isinstance(said, Row) else said, flush=True)
        facts = {"date": time.strftime("%Y-%m-%d"), "part": settings.part, "remarks": remarks}
        write_rows(out, rows, facts | {"seconds": round(time.monotonic() - started)})
    print("\n".join(["", *remarks, "", HEAD, *(row.line() for row in rows), ""]))
    minutes = (time.monotonic() - started) / 60
    print(f"{len(rows)} rows in {minutes:.1f} minutes, written to {out}.")
    return rows


# --- a net, and its steps


@dataclass(frozen=True)
class Device:
    """Where jax computes, and how many steps a measurement there has."""

    on_gpu: bool
    precision: str
    steps: int  # of an epoch
    short_steps: int  # of other measurements


def start_jax(settings: Settings) -> Generator[str, None, Device]:
    """Load Keras and set the precision; says what runs where."""
    command_line.import_keras()
    import keras

    if keras.backend.backend() != "jax":
        raise UserError(
            f"The steps measured here are those of Keras on jax, and the back end is "
            f"{keras.backend.backend()}: start it with KERAS_BACKEND=jax."
        )
    import jax

    from models.precision import use_precision

    on_gpu, precision = jax.default_backend() == "gpu", use_precision(settings.precision)
    versions = f"keras {keras.__version__}, jax {jax.__version__}"
    yield f"{jax.devices()[0].device_kind}, {precision}, {versions}"
    steps = settings.steps or (64 if on_gpu else 4)
    return Device(on_gpu, precision, steps, settings.short_steps or (20 if on_gpu else 1))


class Trained:
    """A compiled net that fit has trained on some random images, and its bare steps."""

    def __init__(self, net: str, settings: Settings, steps: int) -> None:
        from models.trained import logits_of
        from training import fit

        shape = (steps * settings.batch_size, settings.image_size, settings.image_size, 3)
        self.images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.model, batches = build_net(net, settings, self.images)
        self.logits = logits_of(self.model)
        self.fit = lambda: self.model.fit(
            batches, shuffle=False, callbacks=[fit.set_epoch(batches)], verbose=0
        )
        self.compile_seconds, self.batch = self._watch_first_epoch()
        self.variables = (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            self.model.optimizer.variables,
            self.model.metrics_variables,
        )

    def _watch_first_epoch(self) -> tuple[float, tuple]:
        """Seconds of the first step, and the last batch as fit gives it to the step."""
        import jax

        self.model.make_train_function()
        step, times, fed = self.model.train_function, [], []

        def watched(state, iterator):
            fed[:] = [next(iterator)]
            start = time.perf_counter()
            result = step(state, iter(fed))
            if not times:
                jax.block_until_ready(result)
                times.append(time.perf_counter() - start)
            return result

        self.model.train_function = watched
        self.fit()
        self.model.train_function = step
        return times[0], jax.device_put(fed[0])

    def train(self, steps: int) -> float:
        """Seconds of training steps: the function that fit calls, on one batch on the device."""
        return bare_steps(self.model.train_function, self.variables, self.batch, steps)

    def predict(self, steps: int) -> float:
        """Seconds of prediction steps: the function that predict_on_batch calls, as above."""
        self.logits.make_predict_function()
        variables = (self.logits.trainable_variables, self.logits.non_trainable_variables)
        return bare_steps(self.logits.predict_function, variables, (self.batch[0],), steps)


def bare_steps(function: Callable, variables: Sequence, batch: tuple, steps: int) -> float:
    """Seconds of `steps` calls of a compiled step of Keras, whose results stay on the device.

    The step takes over the arrays of the variables (groups of them, in the step's order); when
    time is up, they get the arrays it gave back.
    """
    import jax

    state = tuple([variable.value for variable in group] for group in variables)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
        result, state = function(state, iter([batch]))
    jax.block_until_ready((result, state))
    took = time.perf_counter() - start
    for group, values in zip(variables, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)
    return took


def build_net(net: str, settings: Settings, images: np.ndarray) -> tuple:
    """Compiled net and Batches, by the default settings of the scripts."""
    from datasets.batches import Batches
    from datasets.tasks import TASKS
    from models import classifier, losses, metrics, unet
    from training import fit

    backbone, weights = net.removesuffix(CLASSIFIER), None
    common = {"image_size": settings.image_size, "weights": "none"}
    if net.endswith(CLASSIFIER):
        usual = cls_train.Settings()
        head = {"dropout": usual.dropout, "regularizer": usual.regularizer}
        model = classifier.build_classifier(backbone, **common, **head)
        labels = np.arange(len(images)) % NUM_CLASSES
        targets = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
        weights = losses.class_weights(labels, NUM_CLASSES, usual.class_weight)
        loss = losses.classification_loss(TASKS[3].loss)
        scores = metrics.classification_metrics(NUM_CLASSES)
    else:
        usual = seg_train.Settings()
        model = unet.build_segmenter(backbone, **common, up=usual.up, batch_norm=usual.batch_norm)
        targets = (images[..., :1] > 127).astype(np.uint8)
        loss, scores = losses.segmentation_loss(TASKS[1].loss), metrics.segmentation_metrics()
    optimizer = fit.build_optimizer(usual.learning_rate, usual.schedule, 0)
    model.compile(optimizer, loss, metrics=scores)
    rows, options = np.arange(len(images)), {"seed": usual.seed, "workers": usual.workers}
    options |= {"training": True, "augmentation": usual.augmentation, "class_weights": weights}
    return model, Batches(images, targets, rows, settings.batch_size, **options)


def count_flop(trained: Trained) -> tuple[float, str]:
    """Floating-point operations of one training step, and how they were counted."""
    import jax

    layers = 3 * len(trained.batch[0]) * forward_flop(trained.model)
    state = tuple([variable.value for variable in group] for group in trained.variables)
    try:
        step = jax.jit(trained.model.train_step, donate_argnums=0).lower(state, trained.batch)
        flop = (step.cost_analysis() or {}).get("flops")
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        flop = None
    if flop:
        return flop, f"by jax's cost analysis, 3 x the forward layers: {layers / 1e12:.3g}"
    return layers, "counted as 3 x the forward layers, jax has no cost analysis here"


def forward_flop(model) -> int:
    """Floating-point operations of convolutions and dense layers for one image.

    Two for each weight at each place its kernel is laid on, over the edge too. Layers inside other
    layers, and those without a kernel, count nothing.
    """
    flop = 0
    for layer in model.layers:
        kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
        # the kernel of a transposed convolution is laid on every place of what enters
        laid_on = layer.input if "Transpose" in type(layer).__name__ else layer.output
        flop += sum(2 * math.prod(k.shape) * math.prod(laid_on.shape[1:-1]) for k in kernels)
    return flop


def matrix_product(on_gpu: bool) -> tuple[Callable[[], float], str]:
    """What measures TFLOP/s of a product of bfloat16 matrices, and its name."""
    import jax

    side, number = (8192, 50) if on_gpu else (512, 10)
    left, right = jax.random.normal(jax.random.key(0), (2, side, side), "bfloat16")
    product = jax.jit(jax.numpy.matmul)

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(number):
            result = product(left, right)
        jax.block_until_ready(result)
        return number * 2 * side**3 / (time.perf_counter() - start) / 1e12

    return measure, f"bfloat16 product of {side} x {side} matrices"


def each_net(
    settings: Settings, measure: Callable[[str], Iterator[Row | str]]
) -> Iterator[Row | str]:
    """What there is to say of each net, as long as the next one may be expected to end in time."""
    started, longest = time.monotonic(), 0.0
    for net in settings.nets:
        begun = time.monotonic()
        if begun - started + longest > 60 * settings.minutes:
            yield f"{net}: left out, it may take longer than --minutes {settings.minutes:g} allow"
            continue
        yield from measure(net)
        longest = max(longest, time.monotonic() - begun)


# --- speed


def speed(settings: Settings) -> Iterator[Row | str]:
    """Fit and prediction beside their bare steps, and the step beside what the device can do."""
    device = yield from start_jax(settings)

    def measure(net: str) -> Iterator[Row | str]:
        trained = Trained(net, settings, device.steps)
        yield f"{net}: first step traced and compiled in {trained.compile_seconds:.1f} s"
        what = f"{net}, {settings.image_size} px, batch {settings.batch_size}, {device.precision}"
        number, fit = len(trained.images), trained.fit
        yield beside_bare(
            f"training with fit, {what}",
            lambda: number / seconds(fit),
            lambda: number / trained.train(device.steps),
            settings.repetitions,
            Target("<=", 1.05),
        )
        predict = product_prediction(trained, settings.batch_size)
        yield beside_bare(
            f"prediction, {what}",
            lambda: number / seconds(predict),
            lambda: number / trained.predict(device.steps),
            settings.repetitions,
            None,
        )
        yield arithmetic(trained, what, device, settings.repetitions)

    yield from each_net(settings, measure)


def beside_bare(
    what: str,
    ours: Callable[[], float],
    bare: Callable[[], float],
    repetitions: int,
    target: Target | None,
) -> Row:
    """Images a second beside those of the bare compiled step on a batch on the device."""
    sides = in_turn(ours, bare, repetitions)
    kind, note = "reference / ours", "ratio of times"
    return Row(what, "bare step", "images/s", *sides, target, kind, note)


def product_prediction(trained: Trained, batch_size: int) -> Callable[[], None]:
    """Predicts all images of a net as the scripts do."""
    from datasets.cache import Cached
    from inference import prediction

    images = trained.images
    image_ids = tuple(f"ISIC_{row:07}" for row in range(len(images)))
    side = np.full(len(images), images.shape[1])
    net = prediction.Net(trained.logits, Cached(image_ids, images, side, side, "random"))

    def predict() -> None:
        for _ in prediction.predict_logits([net], image_ids, batch_size, views=1):
            pass

    return predict


def arithmetic(trained: Trained, what: str, device: Device, repetitions: int) -> Row:
    """Operations a second of the training step as a share of those of a product of matrices."""
    product, name = matrix_product(device.on_gpu)
    flop, how = count_flop(trained)
    steps = device.short_steps
    sides = in_turn(lambda: steps * flop / trained.train(steps) / 1e12, product, repetitions)
    note = f"{flop / 1e12:.3g} TFLOP a step {how}"
    what = f"arithmetic of the training step, {what}"
    return Row(what, name, "TFLOP/s", *sides, None, "ours / reference", note)


# --- torch


def torch(settings: Settings) -> Iterator[Row | str]:
    """Bare steps of ours beside PyTorch's, which another process makes."""
    unlike = [net for net in settings.nets if net not in torch_nets.NETS]
    if unlike:
        raise UserError(
            f"{', '.join(unlike)}: PyTorch's side has no such net. Choose --nets from "
            f"{', '.join(torch_nets.NETS)}."
        )
    # two processes share the device: neither may take all memory beforehand
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = yield from start_jax(settings)
    steps, number = device.short_steps, device.short_steps * settings.batch_size

    def measure(net: str) -> Iterator[Row | str]:
        shape = (settings.image_size, settings.batch_size, device.precision)
        with torch_nets.reference(settings.torch_python, net, *shape) as theirs:
            # one after the other, as both choose their kernels by timing them
            facts = wait_for(theirs, settings.torch_python)
            ours = Trained(net, settings, steps=2)
            yield f"{net}: beside {facts}"
            for name, work in (("training", ours.train), ("prediction", ours.predict)):
                verb = {"training": "train", "prediction": "predict"}[name]
                sides = in_turn(
                    lambda work=work: number / work(steps),
                    lambda verb=verb: number / theirs.seconds(verb, steps),
                    settings.repetitions,
                )
                size = f"{settings.image_size} px, batch {settings.batch_size}"
                what = f"{name}, bare step, {net}, {size}, {device.precision}"
                note, kind = "ratio of times, theirs / ours", "ours / reference"
                yield Row(what, "PyTorch", "images/s", *sides, Target(">=", 1), kind, note)

    yield from each_net(settings, measure)


def wait_for(theirs: torch_nets.Reference, python: str) -> str:
    """What PyTorch runs on; UserError when it or a package of its nets is missing."""
    try:
        facts = theirs.wait_until_ready()
    except torch_nets.MissingPackageError as error:
        raise UserError(
            f"{python} has no {error}. Bring its wheel (`pip install --no-index --no-deps "
            f"{error}-*.whl`), or name an interpreter that has it by --torch-python."
        ) from None
    compiled = "compiled" if facts["compiled"] else "not compiled"
    return f"PyTorch {facts['torch']} on {facts['device']}, {compiled}"


# --- folds


@dataclass(frozen=True)
class FoldTimes:
    """Seconds from the start of the script until a fold began, and until each epoch ended."""

    begun: float
    epochs: Sequence[float]


def folds(settings: Settings) -> Iterator[Row | str]:
    """Time of training on five folds with runs/seg_train.py: extrapolated, or in full."""
    if settings.epochs < 2:
        raise UserError(f"--epochs {settings.epochs}: give 2 or more, as the first one compiles.")
    usual = seg_train.Settings()
    with tempfile.TemporaryDirectory() as root:
        images, weights = build_root(Path(root), settings)
        yield f"{images}, start from weights: {weights}"
        times, ended, record = train_folds(Path(root), settings, weights)
    first, later = times[0], later_epochs(times)
    yield (
        f"on {record['device']}, {record['precision']}: {first.begun:.1f} s until the first fold "
        f"began, {first.epochs[0] - first.begun:.1f} s of its first epoch, compiling included, "
        f"{statistics.median(later):.2f} s of a later one ({min(later):.2f} to {max(later):.2f}); "
        f"measured in all: {len(times)} x {settings.epochs} epochs in {ended:.1f} s"
    )
    epochs = max(settings.epochs, usual.epochs)
    whole = settings.all_folds and settings.epochs == epochs
    minutes = [whole_time(times, ended, epochs, usual.num_folds) / 60]
    what = (
        f"{usual.num_folds} folds of {epochs} epochs, {settings.backbone}, "
        f"{settings.image_size} px{'' if whole else ', extrapolated'}"
    )
    allowed = Target("<=", 1)
    yield Row(what, "allowed", "min", minutes, [ALLOWED], allowed, "ours / reference")
    yield Row(what, "the original", "min", minutes, [ORIGINAL], None, "reference / ours")


def later_epochs(times: Sequence[FoldTimes]) -> list[float]:
    """Seconds of all epochs but the first of each fold."""
    return [after - before for fold in times for before, after in pairwise(fold.epochs)]


def whole_time(times: Sequence[FoldTimes], ended: float, epochs: int, num_folds: int) -> float:
    """Seconds that `num_folds` folds of `epochs` epochs take, from times of fewer of both.

    An epoch that was not trained counts as the median of the later ones, also the first of a
    further fold, as the net is compiled already. From a last epoch to the next fold it takes the
    median of what was seen; where one fold alone was trained, what it took until the script ended.
    """
    epoch = statistics.median(later_epochs(times))
    gaps = [after.begun - before.epochs[-1] for before, after in pairwise(times)]
    gap = statistics.median(gaps or [ended - times[-1].epochs[-1]])
    missing = sum(epochs - len(fold.epochs) for fold in times)
    return ended + missing * epoch + (num_folds - len(times)) * (epochs * epoch + gap)


def build_root(root: Path, settings: Settings) -> tuple[str, str]:
    """A root for the runs, its data linked or drawn and cached; what it holds, and the weights."""
    from datasets.ISIC2018 import ISIC2018
    from datasets.ISIC2018.raw import image_folder, truth_folder

    data, real = root / "data", paths.data_dir()
    there = (
        image_folder(real, 1, "training").is_dir() and truth_folder(real, 1, "training").is_dir()
    )
    if there:
        data.symlink_to(real)
    else:
        draw_images(data, settings.drawn_images)
    images = ISIC2018(data).load_images(1, "training", settings.image_size)
    ISIC2018(data).load_masks(1, "training", settings.image_size, of=images)
    pretrained = paths.model_data_dir() / "pretrained"
    (root / "model_data").mkdir()
    (root / "model_data" / "pretrained").symlink_to(pretrained)
    weights = (pretrained / f"{settings.backbone}_notop.weights.h5").is_file()
    kind = "real" if there else "drawn"
    return f"{len(images.image_ids)} {kind} images", "imagenet" if weights else "none"


def draw_images(data: Path, number: int) -> None:
    """Task 1 training images and masks as files: twenty drawn ones in turn."""
    import cv2

    from datasets.ISIC2018.raw import image_folder, truth_folder
    from datasets.synthetic import draw_lesion, draw_photograph

    random, drawn = np.random.default_rng(0), []
    for _ in range(20):
        image, mask = draw_photograph(random, draw_lesion(random, "MEL"), (240, 256))
        drawn.append((cv2.imencode(".jpg", image[..., ::-1])[1], cv2.imencode(".png", mask)[1]))
    images, masks = image_folder(data, 1, "training"), truth_folder(data, 1, "training")
    images.mkdir(parents=True)
    masks.mkdir()
    for i in range(number):
        image, mask = drawn[i % len(drawn)]
        (images / f"ISIC_{i:07}.jpg").write_bytes(image.tobytes())
        (masks / f"ISIC_{i:07}_segmentation.png").write_bytes(mask.tobytes())


def train_folds(
    root: Path, settings: Settings, weights: str
) -> tuple[list[FoldTimes], float, dict]:
    """Run runs/seg_train.py: times of its folds, seconds until it ended, a settings.json of it."""
    from training.run_folder import run_name

    usual = seg_train.Settings()
    k_folds = range(usual.num_folds if settings.all_folds else 1)
    command = [sys.executable, str(paths.repository / "runs" / "seg_train.py")]
    for flag in ("backbone", "image_size", "batch_size", "precision", "epochs"):
        command += [f"--{flag}", str(getattr(settings, flag))]
    command += ["--weights", weights, "--folds", *map(str, k_folds)]
    names = [run_name(1, settings.backbone, k_fold, usual.version) for k_fold in k_folds]
    runs, log = [root / "model_data" / name for name in names], root / "log.txt"
    with log.open("w") as output:
        environment = os.environ | {"ISIC_ROOT": str(root)}
        running = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            times, ended = watch_files(running, runs)
        finally:
            running.kill()
            running.wait()
    if running.returncode:
        last = "\n".join(log.read_text().splitlines()[-20:])
        raise UserError(f"{' '.join(command)} ended with {running.returncode}:\n{last}")
    return times, ended, json.loads((runs[0] / "settings.json").read_text())


def watch_files(running: subprocess.Popen, runs: Sequence[Path]) -> tuple[list[FoldTimes], float]:
    """Times of the folds, by when settings.json and the rows of the history appear, and the end."""
    started, over = time.monotonic(), False
    begun, epochs = {}, {run: [] for run in runs}
    while not over:
        time.sleep(POLL)
        over = running.poll() is not None  # before looking, so that the last row is seen
        now = time.monotonic() - started
        for run in runs:
            if (run / "settings.json").exists():
                begun.setdefault(run, now)
            history = run / f"{run.name}.csv"
            rows = history.read_text().count("\n") - 1 if history.exists() else 0
            epochs[run] += [now] * (rows - len(epochs[run]))
    return [FoldTimes(begun[run], epochs[run]) for run in runs if run in begun], now


PARTS = {"speed": speed, "torch": torch, "folds": folds}

if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
