"""Turns a frozen Settings dataclass into the command line of a script.

Enters: the script's main function and its Settings. Leaves: an exit code. An error that the user
can fix is one message on standard error and exit code 1; a wrong flag ends with 2, Ctrl-C with 130,
SIGTERM with 143.
"""

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from misc_utils import signals, streams
from misc_utils.errors import UserError
from misc_utils.files import explained
from misc_utils.messages import pip_install

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = {  # backend -> what installs it
    "tensorflow": REPOSITORY / "requirements.txt",
    "jax": REPOSITORY / "requirements-jax.txt",
    "torch": REPOSITORY / "requirements-torch.txt",
}

# Types of settings that several scripts share, as their help shows them
Dataset = Annotated[str, tyro.conf.arg(metavar="NAME")]
Row = TypeVar("Row")
# Settings within settings, whose flags do not begin with the name of the field
Unprefixed = Annotated[Row, tyro.conf.arg(name="", prefix_name=False)]
Folds = Annotated[tuple[int, ...] | Literal["all"], tyro.conf.arg(metavar="all|0 1 2")]
Devices = Annotated[int | Literal["all", "hosts"], tyro.conf.arg(metavar="all|hosts|N")]
Limit = Annotated[int | None, tyro.conf.arg(metavar="N")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
Paths = tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH ...")]]
Archive = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="PATH")]]
Pairs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="SETTING=VALUE ...")]
Runs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="BACKBONE:VERSION ...")]
Shard = Annotated[str | None, tyro.conf.arg(metavar="I/N")]
Weights = Annotated[str, tyro.conf.arg(metavar="imagenet|none|FILE")]
KFold = Annotated[int | tuple[int, ...] | Literal["all"], tyro.conf.arg(metavar="all|0 1 2")]

# Lowest and highest value of a number in the settings of any script; None is not checked
MOST = 1e9
RANGES = {
    "image_size": (1, 4096),
    "epochs": (1, MOST),
    "batch_size": (1, MOST),
    "limit": (1, MOST),
    "part_size": (1, 100_000),
    "count": (1, 100),
    "search_size": (8, MOST),
    "patience": (1, MOST),
    "workers": (1, 1000),
    "jobs": (1, MOST),
    "retries": (0, 1000),
    "cpus": (1, MOST),
    "learning_rate": (1e-30, MOST),
    "min_learning_rate": (0, MOST),
    "plateau_factor": (0, 0.999),
    "plateau_patience": (0, MOST),
    "dropout": (0, 0.99),
    "box_margin": (0, 10),
    "margin": (0, 10),
    "least_similarity": (0, 1),
    "seed": (0, 2**32 - 1),
    "split_seed": (0, 2**32 - 1),
    "weight_decay": (0, 10),
    "average_weights": (0, 0.99999),
    "label_smoothing": (0, 0.99),
    "decoder_filters": (1, 1024),
}


def check_numbers(settings: object, before: str = "--") -> None:
    """Raise UserError if a number of the settings lies outside its range in RANGES, or is NaN.

    Settings within settings are checked too; `before` is what their flags begin with.
    """
    for field in fields(settings):
        value, flag = getattr(settings, field.name), before + field.name.replace("_", "-")
        if is_dataclass(value):
            check_numbers(value, f"{flag}.")
        elif value is not None and field.name in RANGES:
            low, high = RANGES[field.name]
            if not low <= value <= high:
                raise UserError(f"{flag} {value:g}: expected a number from {low:g} to {high:g}.")


def run(
    main: Callable,
    settings_class: type,
    description: str | None,
    needs_keras: bool = True,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Parse the command line, call `main` with the settings, end the process on errors.

    With `recipes` {name: {setting: value}} there is a flag --recipe, which changes defaults.
    """
    with streams.unfailing():
        try:
            _run(main, settings_class, description, needs_keras, recipes or {})
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except OSError as error:
            message = explained(error)
            if message is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            sys.exit(1)
        except signals.EndedBySignal as error:
            resumes = any(field.name == "overwrite" for field in fields(settings_class))
            ways = "; repeat the command to resume, or add --overwrite to start from scratch"
            print(f"ended by {error}{ways if resumes else ''}", file=sys.stderr)
            sys.exit(error.code)


def _run(
    main: Callable,
    settings_class: type,
    description: str | None,
    needs_keras: bool,
    recipes: Mapping[str, Mapping[str, Any]],
) -> None:
    # tyro joins lines; the commands of a docstring get paragraphs of their own
    apart = re.sub(r"(?<!\n)\n(?=python3 )", "\n\n", description or "")
    settings = parse(settings_class, sys.argv[1:], apart, recipes)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("jax", "tensorflow", "absl", "h5py", "PIL", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    check_numbers(settings)
    with signals.handled(signals.end_now):
        if needs_keras:
            import_keras()
        main(settings)


def parse(
    settings_class: type,
    arguments: Sequence[str],
    description: str = "",
    recipes: Mapping[str, Mapping[str, Any]] = {},
    script: str | None = None,
) -> Any:
    """The settings that these arguments of a command line say; SystemExit for a wrong flag.

    `script` is named in what is said of it; None: the one that runs.
    """
    chosen: Mapping[str, Any] = {}
    if recipes:
        named = argparse.ArgumentParser(script, add_help=False, allow_abbrev=False)
        named.add_argument("--recipe", choices=recipes)
        found, arguments = named.parse_known_args(arguments)
        chosen = recipes[found.recipe] if found.recipe else {}
        description = (
            f"{description.strip()}\n\n--recipe {{{','.join(recipes)}}}: defaults that were "
            f"measured together; other flags still win. With --help it shows what it sets."
        )
    default = {"default": settings_class(**chosen)} if chosen else {}
    return tyro.cli(settings_class, prog=script, args=arguments, description=description, **default)


def import_keras() -> None:
    """Import keras without the messages its backend prints at start.

    Of `~/.keras/keras.json` only the backend counts: number format, epsilon and order of axes are
    set to what the nets are made for, so that the same settings give the same weights anywhere.
    `run` calls it, except for scripts that do not always need Keras; those call it when they do.
    UserError when the backend is unknown or not installed.
    """
    try:
        with silence():
            keras = importlib.import_module("keras")
    except (ImportError, ValueError) as error:  # ValueError: Keras does not know the backend
        named = os.environ.get("KERAS_BACKEND", "the default")
        file = REQUIREMENTS.get(getattr(error, "name", None) or named)
        install = f"Run `{pip_install('-r', file)}`, or set" if file else "Set"
        raise UserError(
            f"Keras cannot be loaded with the backend {named} ({error}). {install} KERAS_BACKEND "
            f"to {', '.join(REQUIREMENTS)}, whichever is installed."
        ) from None
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard what is written to standard error in the block, unless an exception leaves it.

    TensorFlow prints half a dozen messages on every start, from C++, and none of its settings stops
    all of them (TF_CPP_MIN_LOG_LEVEL does not, in 2.17 to 2.21). Set that to 0 to see them.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        except BaseException:
            swallowed.seek(0)
            os.write(kept, swallowed.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
