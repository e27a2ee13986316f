"""Say what is there of a data set, what is missing or wrong, and which commands are possible next.

python3 runs/check.py
python3 runs/check.py --dataset folder --images photos --masks masks --table table.csv
"""

import shutil
from dataclasses import dataclass

import paths  # isort: skip  (the repository on sys.path)

from datasets.own_settings import NOT_TOLD, OwnFolder, flags_of, resolved
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md; folder: your own images
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    image_size: int = 224  # side of the pictures that a net is to see, in pixels
    read: bool = False  # also read every image and mask, which builds their cached arrays


def main(settings: Settings) -> None:
    from datasets.catalogue import open_dataset
    from datasets.inventory import take_stock
    from datasets.tasks import TASKS

    # 1 what is there, and whether every file is whole
    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    stock = take_stock(dataset)
    if settings.read:
        stock = [read_all(dataset, found, settings.image_size) for found in stock]
    print(f"data set {dataset.name}, {resolved(settings.own).images or paths.data_dir()}")
    for found in stock:
        print(f"  task {found.task} ({TASKS[found.task].what}), {found.images}: {described(found)}")

    # 2 disk, trainings, next commands
    if not any(found.num_folds and not found.wrong for found in stock):
        print("nothing can be trained on yet; docs/data.md says what belongs where")
        return
    print_disk(dataset, stock, settings.image_size)
    runs = find_runs(dataset.name)
    ours = [run for run in runs if is_of(run, settings.own)]
    print_trainings(ours)
    print_next(dataset, stock, runs, ours, settings)


def described(found) -> str:
    """What there is of one set, in words."""
    said = [f"{len(found.files)} images"] if found.files else []
    said += [found.truth] if found.truth else []
    said += [f"missing: {found.missing}"] if found.missing else []
    wrong = f"wrong: {found.wrong}".replace("\n", "\n    ") if found.wrong else ""
    return "\n    ".join(filter(None, [", ".join(said), wrong]))


def read_all(dataset, found, image_size: int):
    """The same row, wrong where a file of it cannot be read."""
    from dataclasses import replace

    from datasets.tasks import TASKS
    from misc_utils.errors import UserError

    which = found.task, found.images, image_size
    try:
        if found.truth and TASKS[found.task].kind == "masks" and not found.wrong:
            dataset.load_pairs(*which)
        elif found.files:
            dataset.load_images(*which)
        return found
    except UserError as error:
        return replace(found, wrong=str(error))


def print_disk(dataset, stock, image_size: int) -> None:
    """What the cached arrays and the predictions of a training need, and what is free."""
    from datasets.tasks import TASKS

    images, masks, kept = {}, 0, 0
    for found in stock:
        pixels = len(found.files) * image_size**2
        images[min(found.task % 3, 1), found.images] = 3 * pixels  # Task 2 has those of Task 1
        channels = len(TASKS[found.task].channels) if found.truth else 0
        masks += pixels * channels
        kept += 2 * pixels * channels if found.num_folds else 0
    need = sum(images.values()) + masks + kept
    place = next(path for path in (dataset.data_dir, *dataset.data_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    print(
        f"disk: cached pictures at {image_size} px {in_bytes(need - kept)}, kept predictions of "
        f"all folds {in_bytes(kept)}, weights besides; free {in_bytes(free)}"
        + (", which is not enough" if need > free else "")
    )


def in_bytes(size: float) -> str:
    """As megabytes or gigabytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def in_time(seconds: float) -> str:
    """As seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def find_runs(dataset: str) -> list:
    """Every training run on a data set of this name; what is broken is printed."""
    from datasets.tasks import TASKS
    from misc_utils.errors import UserError
    from training import run_folder

    try:
        model_data = paths.model_data_dir()
        return [run for task in TASKS for run in run_folder.list_runs(model_data, task, dataset)]
    except UserError as error:
        print(f"trainings: {error}")
        return []


def is_of(run, own: OwnFolder) -> bool:
    """Whether a run is of these images: every folder of one's own has the same name."""
    return run.settings.get("own", {}).get("images") == resolved(own).images


def print_trainings(runs) -> None:
    """A line per training: its folds, and how long one took on this machine."""
    if not runs:
        print("time: not known before a training here; docs/results.md has measured ones")
    trainings = {}
    for run in runs:
        trainings.setdefault((run.task, run.label), []).append(run)
    for (task, label), folds in trainings.items():
        finished = [run for run in folds if run.finished]
        others = ", ".join(str(run.k_fold) for run in folds if not run.finished)
        said = [f"folds finished: {', '.join(str(run.k_fold) for run in finished) or 'none'}"]
        said += [f"not finished: {others}; repeat the command to go on"] if others else []
        if took := [run.record["seconds"] for run in finished if "seconds" in run.record]:
            epochs, size = finished[0].settings["epochs"], finished[0].image_size
            said += [
                f"{epochs} epochs of a fold at {size} px took {in_time(sum(took) / len(took))}"
            ]
        print(f"trained: task {task}, {label}, {'; '.join(said)}")


def print_next(dataset, stock, runs, ours, settings: Settings) -> None:
    """Commands that work now: to score what is trained, or to train and then score."""
    from datasets.tasks import flags, script
    from misc_utils.messages import command

    print("next:")
    for found in stock:
        if not found.num_folds or found.wrong:
            continue
        task, which = found.task, flags(found.task, dataset.name)
        trained = [run for run in ours if run.task == task and run.weights.exists()]
        for label in dict.fromkeys(run.label for run in trained):
            backbone, version = label.split(":")
            name = "--backbone", backbone, "--version", version
            print(f"  {command(script(task, 'eval'), *which, *name, '--k-fold', 'all')}")
        if trained:
            continue
        taken = {run.version for run in runs if run.task == task}
        version = next(str(k) for k in range(len(taken) + 1) if str(k) not in taken)
        name = ["--version", version] if version != "0" else []
        how = flags_of(settings.own) + name + (["--lesion-view", "whole"] if task == 3 else [])
        how += ["--image-size", settings.image_size] if settings.image_size != 224 else []
        how += ["--num-folds", found.num_folds] if found.num_folds < 5 else []
        print(f"  {command(script(task, 'train'), *which, *how)}")
        print(f"  {command(script(task, 'eval'), *which, *name, '--k-fold', 'all')}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
