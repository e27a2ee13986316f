"""Say what is there of a data set, what is missing or wrong, and which commands are possible next.

python3 runs/check.py
python3 runs/check.py --dataset folder --images photos --masks masks --table table.csv
"""

import shutil
from dataclasses import dataclass

import paths  # isort: skip  (the repository on sys.path)

from datasets.own_settings import NOT_TOLD, OwnFolder
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md; folder: your own images
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    image_size: int = 224  # side of the pictures that a net is to see, in pixels
    read: bool = False  # also read every image and mask, which builds their cached arrays


def main(settings: Settings) -> int:
    from datasets.catalogue import open_dataset
    from datasets.inventory import take_stock
    from datasets.tasks import TASKS

    # 1 what is there
    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    stock = take_stock(dataset)
    print(f"data set {dataset.name}")
    for found in stock:
        print(f"  task {found.task} ({TASKS[found.task].what}), {found.images}: {described(found)}")

    # 2 is every file whole?
    wrong = [found for found in stock if found.wrong and found.count]
    if settings.read:
        wrong += [
            found for found in stock if found.count and not can_be_read(dataset, found, settings)
        ]

    # 3 disk, trainings, next commands
    print_disk(dataset, stock, settings)
    print_runs(dataset)
    print_next(dataset, stock, settings)
    return len(wrong)


def described(found) -> str:
    """What there is of one set, in words."""
    if not found.count:
        return found.wrong
    said = f"{found.count} images" + (f", {found.truth}" if found.truth else ", no truth")
    return f"{said}\n    wrong: {found.wrong}" if found.wrong else said


def can_be_read(dataset, found, settings: Settings) -> bool:
    """Whether all files of a set can; what cannot is printed."""
    from datasets.tasks import TASKS
    from misc_utils.errors import UserError

    which = found.task, found.images, settings.image_size
    try:
        if found.trainable and TASKS[found.task].kind == "masks":
            dataset.load_pairs(*which)
        else:
            dataset.load_images(*which)
        return True
    except UserError as error:
        print(f"  task {found.task}, {found.images}: {error}")
        return False


def print_disk(dataset, stock, settings: Settings) -> None:
    """What the cached arrays and the predictions of each training need, and what is free."""
    from datasets.tasks import TASKS

    pixels = settings.image_size**2
    cache = sum(found.count * pixels * 3 for found in stock)
    kept = {}  # predictions of all held-out images, over all folds
    for found in stock:
        channels = len(TASKS[found.task].channels)
        if found.trainable and channels:
            cache += found.count * pixels * channels
            kept[found.task] = (
                found.count * pixels * channels * 2 if found.images == "training" else 0
            )
    print(f"disk: cached arrays at {settings.image_size} px take {in_words(cache)}", end="")
    for task, size in kept.items():
        print(f"; the predictions kept of all folds of task {task} {in_words(size)}", end="")
    root = next(path for path in (dataset.data_dir, *dataset.data_dir.parents) if path.exists())
    print(f"; free are {in_words(shutil.disk_usage(root).free)}")


def in_words(size: float) -> str:
    """Bytes as megabytes or gigabytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def print_runs(dataset) -> None:
    """The trainings there are, and how long a pass over their images took on this machine."""
    import pandas as pd

    from datasets.tasks import TASKS
    from training import run_folder

    model_data = paths.model_data_dir()
    runs = [run for task in TASKS for run in run_folder.list_runs(model_data, task, dataset.name)]
    if not runs:
        print("time: not known before the first epoch here; docs/results.md has measured trainings")
    for run in runs:
        epochs = len(pd.read_csv(run.history)) if run.history.exists() else 0
        state = "finished" if run.finished else "not finished"
        said = f"{run.name}: {state}, {epochs} of {run.settings['epochs']} epochs"
        if run.finished and epochs and "seconds" in run.record:
            said += f", {run.record['seconds'] / epochs:.0f} s each"
        print(f"trained: {said}")


def print_next(dataset, stock, settings: Settings) -> None:
    """Commands that work now."""
    from datasets.tasks import flags, script
    from misc_utils.messages import command

    told = []
    for name in ("images", "masks", "table", "image_column", "label_column", "group_column"):
        if getattr(settings.own, name) is not None:
            told += [f"--{name.replace('_', '-')}", getattr(settings.own, name)]
    told += ["--classes", *settings.own.classes] if settings.own.classes else []
    told += ["--subset"] if settings.own.subset else []
    trainable = [found for found in stock if found.trainable and found.images == "training"]
    if trainable:
        print("next:")
    for found in trainable:
        whole = ["--lesion-view", "whole"] if found.task == 3 else []
        which = [*flags(found.task, dataset.name), *told, *whole]
        scored = [*flags(found.task, dataset.name), "--k-fold", "all"]
        print(f"  {command(script(found.task, 'train'), *which)}")
        print(f"  {command(script(found.task, 'eval'), *scored)}")
    if not trainable:
        print("nothing can be trained yet: see docs/data.md for what belongs where")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
