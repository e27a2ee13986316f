"""The loop over folds that the training scripts share: claim, compile once, fit, load the best.

Enters: a script's settings, cached images with their targets and folds, a function that builds the
compiled net. Leaves: for each fold a run folder with weights, history and state, and the net with
its best weights.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from datasets.batches import Batches, steps_per_epoch
from datasets.dataset import Inputs, Masks
from datasets.folds import check_fold_numbers
from datasets.own_folder import resolved
from datasets.tasks import TASKS, flags, script
from misc_utils.errors import UserError
from misc_utils.files import sha256
from misc_utils.messages import command
from models.backbones import check_image_size, names_file, weights_in_force
from models.devices import choose_devices, use_devices
from models.precision import use_precision
from models.trained import logits_of
from models.weights import load_weights
from training import claim, environment, followers, run_folder
from training.fit import Start, build_optimizer, fit_fold
from training.frozen import features_of, head_of
from training.loggers import check_loggers
from training.run_folder import Run
from training.start import check_start, start_from
from training.state import Progress

log = logging.getLogger(__name__)

Build = Callable[[], keras.Model]  # the net, not compiled
# gives a net, or the head of one, its optimiser, loss and metrics
Compile = Callable[[keras.Model, keras.optimizers.Optimizer], None]


@dataclass(frozen=True)
class Plan:
    """Which folds of a training are to be trained; earlier runs were found to have its settings."""

    model_data: Path
    task: int
    settings: Any  # the Settings of a training script, as they are in force
    k_folds: tuple[int, ...]
    replaced: Mapping[int, claim.Stamp]  # runs that --overwrite deletes

    @property
    def next_command(self) -> str:
        """The command that scores these folds."""
        one = len(self.k_folds) == 1
        name = ("--backbone", self.settings.backbone, "--version", self.settings.version)
        folds = ("--k-fold", self.k_folds[0] if one else "all")
        which = flags(self.task, self.settings.dataset)
        return command(script(self.task, "eval"), *which, *name, *folds)

    def check_folds(self, folds: pd.DataFrame) -> None:
        """UserError unless each fold to be trained can be, see run_folder.check_folds."""
        for k_fold in self.k_folds:
            run_folder.check_folds(folds, k_fold)
        if names_file(self.settings.weights):
            check_start(Path(self.settings.weights), folds, self.k_folds, self.settings.dataset)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The images of a training, their targets and folds."""

    inputs: Inputs
    targets: np.ndarray | Masks  # masks uint8 (N, S, S, C), or one-hot labels float32 (N, C)
    folds: pd.DataFrame  # a row per image that is used, see datasets.folds
    facts: Mapping[str, Any]  # for settings.json: what targets and images were made from


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """A fold that has been trained; the net holds its best weights."""

    run: Run
    logits_model: keras.Model  # ends at its logits
    held_out: list[str]  # ids of the images it did not train on
    progress: Progress

    def finish(self) -> None:
        """Mark the run as trained to its end."""
        best, seconds = self.progress.scores, round(self.progress.seconds)
        facts = {"best_epoch": self.progress.best_epoch, "best": best, "seconds": seconds}
        run_folder.finish_run(self.run, facts)


def plan_folds(model_data: Path, task: int, settings: Any) -> Plan:
    """Check the settings against earlier runs, before any data is read.

    Raises UserError when a fold does not exist, when the backbone does not take the image size, or
    when earlier runs of this name had other settings (unless they are overwritten).
    """
    check_image_size(settings.backbone, settings.image_size)
    check_loggers(settings.log_to)
    for name in ("wait", "freeze"):
        if settings.devices == "hosts" and getattr(settings, name, False):
            raise UserError(f"--{name} does not go with --devices hosts. Leave one of them out.")
    monitors = TASKS[task].monitors
    if settings.monitor not in ("auto", *monitors):
        raise UserError(
            f"--monitor {settings.monitor}: of task {task}, choose one of {', '.join(monitors)}."
        )
    choose_devices(settings.devices, settings.batch_size)
    k_folds = check_fold_numbers(settings.folds, settings.num_folds)
    weights = weights_in_force(settings.backbone, settings.weights)
    if weights != settings.weights:
        log.info("%s has no ImageNet weights: it starts from random values", settings.backbone)
    if names_file(weights):
        weights = str(Path(weights).expanduser().resolve())
    settings = replace(
        settings,
        loss=TASKS[task].loss if settings.loss == "auto" else settings.loss,
        monitor=monitors[0] if settings.monitor == "auto" else settings.monitor,
        own=resolved(settings.own),
        weights=weights,
    )
    as_dict, overwrite = asdict(settings), settings.overwrite
    claim.check_settings(model_data, task, as_dict, k_folds, overwrite)
    replaced = claim.stamp_runs(model_data, task, as_dict, k_folds) if overwrite else {}
    return Plan(model_data, task, settings, tuple(k_folds), replaced)


def train_folds(
    plan: Plan,
    data: TrainingData,
    build: Build,
    compile_net: Compile,
    class_weights: Callable[[np.ndarray], np.ndarray] | None = None,
    chances: Callable[[np.ndarray], np.ndarray | None] | None = None,
) -> Iterator[TrainedFold]:
    """Train the folds of a plan one after another; each is locked until the next is asked for.

    A fold that is finished is skipped, and so is one that another process trains, unless the
    settings say to wait for it. Close the iterator, so that the lock goes when the caller fails.

    `build` and `compile_net` are called once for all folds (with the `cosine` schedule, whose steps
    are part of the net, once more where a fold has other steps). Of the rows to train on, int (n,),
    `class_weights` gives the weight of each class in the loss, float (C,), and `chances` the chance
    with which an epoch draws each, float (n,), or None: each once. With the setting `freeze` the
    head alone is trained, on features of the encoder. UserError as in claim_run and fit_fold.
    """
    settings, net = plan.settings, None
    devices = choose_devices(settings.devices, settings.batch_size)
    use_devices(devices)
    facts = environment.describe() | {
        "devices": max(len(devices), 1),
        "process": environment.process(),
        "precision": use_precision(settings.precision),
        "data_fingerprint": data.inputs.fingerprint,
        **data.facts,
    }
    if names_file(settings.weights):
        facts["weights_sha256"] = sha256(Path(settings.weights))
    for k_fold in plan.k_folds:
        with followers.claim_together(
            plan.model_data, plan.task, k_fold, asdict(settings), data.folds, facts, plan.replaced
        ) as run:
            if run is None:
                continue
            steps = _steps(settings, data.folds, k_fold)
            if net is None or net.steps != steps:
                net = _CompiledNet(settings, build, compile_net, steps)
            claim.begin_run(run, data.folds)
            taken = data.inputs.images.array
            if net.frozen:
                name = f"{settings.backbone}_{settings.image_size}"
                taken = features_of(net.whole, taken, plan.model_data / "features", name)
            train, held_out = _batches(settings, data, k_fold, taken, chances, class_weights)
            counts = f"{len(train.rows)} images to train on, {len(held_out.rows)} held out"
            size = f"{net.model.count_params():,} parameters"
            where = ", ".join(devices) or facts["device"]
            log.info(f"{run.name}: {counts}, {size}, on {where}")
            progress = fit_fold(
                net.model,
                net.start,
                train,
                held_out,
                run,
                verbose=1 if sys.stdout.isatty() else 2,  # a progress bar, or a line per epoch
                whole=net.whole,
            )
            load_weights(net.whole, run.weights)
            image_ids = run_folder.held_out_images(data.folds, k_fold)
            yield TrainedFold(run, net.logits_model, image_ids, progress)


class _CompiledNet:
    """One net for all folds, so that it is traced and compiled once.

    `model` is what is trained: the `whole` net, or its head where the encoder is frozen.
    """

    def __init__(self, settings: Any, build: Build, compile_net: Compile, steps: int) -> None:
        keras.utils.set_random_seed(settings.seed)
        self.steps = steps
        optimizer = build_optimizer(
            settings.learning_rate,
            settings.schedule,
            steps,
            settings.weight_decay,
            settings.average_weights,
        )
        self.whole = self.model = build()
        self.frozen = getattr(settings, "freeze", False)  # segmenters cannot be
        if names_file(settings.weights):
            start_from(self.whole, settings.backbone, Path(settings.weights))
        if self.frozen:
            self.model = head_of(self.whole)
        compile_net(self.model, optimizer)
        self.start = Start(self.model)
        self.logits_model = logits_of(self.whole)


def _steps(settings: Any, folds: pd.DataFrame, k_fold: int) -> int:
    """Of the whole training, where the schedule depends on them; else 0."""
    if settings.schedule != "cosine":
        return 0
    images = len(run_folder.training_images(folds, k_fold))
    return steps_per_epoch(images, settings.batch_size, training=True) * settings.epochs


def _batches(
    settings: Any,
    data: TrainingData,
    k_fold: int,
    taken: np.ndarray,
    chances: Callable[[np.ndarray], np.ndarray | None] | None,
    class_weights: Callable[[np.ndarray], np.ndarray] | None,
) -> tuple[Batches, Batches]:
    """Batches to train on, and of the images held out; `taken` are the images or their features."""

    def batches(rows: np.ndarray, **training) -> Batches:
        return Batches(
            taken,
            data.targets,
            rows,
            settings.batch_size,
            metadata=data.inputs.metadata,
            workers=settings.workers,
            **training,
        )

    rows, held_out = (
        data.inputs.images.rows(ids(data.folds, k_fold))
        for ids in (run_folder.training_images, run_folder.held_out_images)
    )
    train = {"augmentation": settings.augmentation, "seed": settings.seed, "training": True}
    train |= {"mix": getattr(settings, "mix", "none")}  # masks are not mixed
    train |= {"chances": chances(rows) if chances else None}
    train |= {"class_weights": class_weights(rows) if class_weights else None}
    return batches(rows, **train), batches(held_out)
