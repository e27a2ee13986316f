"""The grid of a sweep: which trainings there are, what they are called, the command of each fold.

Enters: words such as `backbone=densenet121,vgg16`, and the Settings of a training script. Leaves: a
Training for each point of the grid, with a Job for each of its folds.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from datasets.tasks import script
from misc_utils.command_line import check_numbers, parse
from misc_utils.errors import UserError
from misc_utils.messages import RUNS, listed
from training.recipes import CLASSIFICATION, SEGMENTATION

TAKEN = {  # settings of the training scripts that a sweep fills in -> what to do instead
    "task": "Say --task.",
    "version": "Say --version: what is varied is added to it.",
    "folds": "Say --folds.",
    "wait": "It is always on.",
    "overwrite": "It would make a training that is started again begin from scratch. Choose "
    "another --version, or delete the folders.",
}
ALIKE = ("dataset", "num_folds")  # that all trainings of a sweep share
UNNAMED = "backbone"  # is part of the name of a run by itself


@dataclass(frozen=True)
class Job:
    """One fold of a training: what an engine starts."""

    run: str  # its name
    epochs: int  # that it is to train
    command: tuple[str, ...]  # words


@dataclass(frozen=True, eq=False)
class Training:
    """A point of the grid."""

    values: Mapping[str, str]  # of what is varied, as they were given
    settings: Any  # the Settings of the training script
    flags: tuple[str, ...]  # that the training script is called with, folds aside

    @property
    def label(self) -> str:
        """`backbone:version`."""
        return f"{self.settings.backbone}:{self.settings.version}"

    def job(self, task: int, run: str, k_fold: int) -> Job:
        """What trains a fold; a fold that another process is training is waited for."""
        words = [sys.executable, str(RUNS / script(task, "train")), *self.flags]
        return Job(run, self.settings.epochs, (*words, "--folds", str(k_fold), "--wait"))


def read_pairs(words: Sequence[str], flag: str, settings_class: type) -> dict[str, str]:
    """{setting: value} of words such as `seed=1`, settings spelt as in `settings_class`.

    UserError for what is no pair, a setting that there is not, or one that is named twice.
    """
    known, pairs = _known(settings_class), {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if not equals or not value.strip():
            raise UserError(f"{flag} {word}: expected setting=value, such as seed=1.")
        if name in TAKEN:
            raise UserError(f"{flag} {word}: a sweep fills in {name} itself. {TAKEN[name]}")
        if name not in known:
            raise UserError(
                f"{flag} {word}: there is no setting {name}. There are "
                f"{listed(sorted(known.keys() - TAKEN), 99)}."
            )
        if name in pairs:
            raise UserError(f"{flag} names {name} twice.")
        pairs[name] = value
    return pairs


def _known(settings_class: type) -> dict[str, Any]:
    """What the training script takes: its settings, and a recipe."""
    return {"recipe": None} | settings_of(settings_class)


def settings_of(settings_class: type) -> dict[str, Any]:
    """{setting: its default}, those of an own folder by themselves."""
    found = {}
    for field in fields(settings_class):
        if is_dataclass(field.default):
            found |= settings_of(type(field.default))
        else:
            found[field.name] = field.default
    return found


def plan_trainings(
    settings_class: type,
    task: int,
    grid: Sequence[str],
    fixed: Sequence[str],
    version: str,
    folds: tuple[int, ...] | str,
) -> list[Training]:
    """The trainings of a grid, in the order of its values.

    Args:
        settings_class: Settings of the training script of the task.
        task: a key of TASKS.
        grid: settings with values to combine, `seed=1,2`.
        fixed: settings that are the same in all, `epochs=12`; values are words of a command line.
        version: what each --version begins with.
        folds: of each training.

    Raises:
        UserError: see read_pairs; two trainings of one name; a number out of its range.
        SystemExit: a value that the training script does not take; it says so as the script does.
    """
    varied, same = (
        read_pairs(words, flag, settings_class)
        for words, flag in ((grid, "--grid"), (fixed, "--train"))
    )
    for name in varied:
        if name in same:
            raise UserError(f"{name} is in --grid and in --train. Leave one of them out.")
        if name in ALIKE:
            raise UserError(
                f"--grid {name}: is the same for all of a sweep. Say --train {name}=..."
            )
    defaults = _known(settings_class)
    names = [name for name in defaults if name in varied]  # so that versions know one order
    values = [[value.strip() for value in varied[name].split(",")] for name in names]
    trainings, taken = [], {}
    for point in itertools.product(*values):
        chosen = dict(zip(names, point, strict=True))
        words = ["--task", str(task)] if "task" in defaults and task != 1 else []
        for name, value in (same | chosen).items():
            words += _flag(name, value, defaults[name])
        words += ["--version", _version(version, chosen)]
        every = ["--folds", *map(str, [folds] if isinstance(folds, str) else folds)]
        recipes = CLASSIFICATION if task == 3 else SEGMENTATION
        settings = parse(
            settings_class, [*words, *every], recipes=recipes, script=script(task, "train")
        )
        check_numbers(settings)
        training = Training(chosen, settings, tuple(words))
        if training.label in taken:
            one, other = (
                " ".join(f"{k}={v}" for k, v in t.items()) or "nothing"
                for t in (taken[training.label], chosen)
            )
            raise UserError(
                f"--grid: {one} and {other} would both be {training.label}. Name each value once."
            )
        taken[training.label] = chosen
        trainings.append(training)
    return trainings


def _flag(name: str, value: str, default: object) -> list[str]:
    """A setting as words of the training script's command line."""
    flag = name.replace("_", "-")
    if isinstance(default, bool) and value.lower() in ("true", "false"):
        return [f"--{'no-' * (value.lower() == 'false')}{flag}"]
    return [f"--{flag}", *shlex.split(value)]


def _version(begins: str, chosen: Mapping[str, str]) -> str:
    """A version made of what is varied: `0-seed-1-dropout-0-3`; the backbone is named anyway."""
    parts = [begins]
    for name, value in chosen.items():
        if name != UNNAMED:
            value = Path(value).name.removesuffix(".weights.h5")
            parts += [name, value]
    clean = [re.sub("[^A-Za-z0-9]+", "-", part).strip("-") for part in parts]
    return "-".join(part or "none" for part in clean)
