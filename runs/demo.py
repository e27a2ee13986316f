"""Draw lesions and take them through all six scripts, in a few minutes on two cores.

python3 runs/demo.py

Everything lands in demo/ beside the other folders: drawn data, runs, predictions. It shows how the
scripts follow one another and that they work here; its scores say nothing about real skin.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass

import paths  # isort: skip  (the repository on sys.path)

from errors import UserError
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    lesions: int = 100  # in each training set that is drawn
    image_size: int = 96  # side of the square pictures in pixels, a multiple of 32
    num_folds: int = 2  # parts of the split; every one is held out once
    segmentation_epochs: int = 12  # passes over the training images of Task 1
    classification_epochs: int = 14  # passes over those of Task 3
    least_jaccard: float = 0.80  # mean over held-out lesions; below it the demo fails
    least_balanced_accuracy: float = 0.5  # on held-out lesions; below it the demo fails
    seed: int = 0  # governs drawing and training


def main(settings: Settings) -> dict[str, float]:
    from datasets.synthetic import draw_dataset

    # 1 data
    start, root = time.monotonic(), paths.repository / "demo"
    print(f"Draw lesions into {root / 'data'}, laid out like the released data", flush=True)
    draw_dataset(root / "data", lesions=settings.lesions, seed=settings.seed)

    # 2 the six scripts
    print("\n$ export ISIC_ROOT=demo", flush=True)
    for what, script, *flags in steps(settings):
        run_script(what, script, flags, root)

    # 3 scores
    scores = {
        name: read_score(root, run, name)
        for run, name in (
            ("task1_tiny_k0_v0", "jaccard"),
            ("task3_tiny_k0_v0", "balanced_accuracy"),
        )
    }
    minutes = (time.monotonic() - start) / 60
    least = (settings.least_jaccard, settings.least_balanced_accuracy)
    print(f"\nThe demo took {minutes:.1f} minutes. On held-out lesions of fold 0:")
    for (name, value), bound in zip(scores.items(), least, strict=True):
        print(f"  {name.replace('_', ' ')} {value:.3f} (at least {bound:.2f} is expected)")
    low = [
        name for (name, value), bound in zip(scores.items(), least, strict=True) if value < bound
    ]
    if low:
        raise UserError(
            f"{' and '.join(low)} below what the demo should reach: see the lines above."
        )
    show_folders(root)
    return scores


def steps(settings: Settings) -> list[tuple[str, ...]]:
    """What a step does, its script, its flags."""
    net = ("--backbone", "tiny")
    again = (*net, "--overwrite")
    train = (
        *again,
        *("--weights", "none", "--image-size", str(settings.image_size)),
        *("--num-folds", str(settings.num_folds), "--seed", str(settings.seed)),
        *("--schedule", "cosine", "--batch-size", "8"),
    )
    segment = ("--epochs", str(settings.segmentation_epochs), "--learning-rate", "3e-3")
    classify = ("--epochs", str(settings.classification_epochs), "--learning-rate", "2e-3")
    on_test = (*again, "--pred-set", "test")
    return [
        ("Train a small U-Net on Task 1", "seg_train.py", *train, *segment),
        ("Score it on the fold it did not see", "seg_eval.py", *net, "--k-fold", "0"),
        ("Write masks of the Task 1 test set", "seg_predict.py", "mask", "--task", "1", *on_test),
        ("Cut the lesions out of the Task 3 training images", "seg_predict.py", *again),
        ("Cut them out of the Task 3 test images", "seg_predict.py", *on_test),
        ("Train a small classifier on those crops", "cls_train.py", *train, *classify),
        ("Score it on the fold it did not see", "cls_eval.py", *net, "--k-fold", "0"),
        ("Classify the Task 3 test set", "cls_predict.py", *on_test),
    ]


def run_script(what: str, script: str, flags: list[str], root: os.PathLike) -> None:
    """Run one script under `root`, its output passed on as it comes; UserError when it fails."""
    command = ["python3", f"runs/{script}", *flags]
    print(f"\n{what}\n$ {shlex.join(command)}", flush=True)
    environment = os.environ | {"ISIC_ROOT": str(root)}
    done = subprocess.run([sys.executable, *command[1:]], cwd=paths.repository, env=environment)
    if done.returncode:
        raise UserError(
            f"runs/{script} ended with exit code {done.returncode}: see the lines above."
        )


def read_score(root: os.PathLike, run: str, name: str) -> float:
    """One of the means that an eval script wrote."""
    file = root / "model_data" / run / f"{run}_scores_fold.json"
    return float(json.loads(file.read_text())[name])


def show_folders(root: os.PathLike) -> None:
    """Say where everything lies."""
    print("Look into")
    for what, where in (
        ("masks", "submissions/task1_test"),
        ("crops", "submissions/task3_training_crops"),
        ("classes", "submissions/task3_test_submission.csv"),
        ("figures", "model_data/task1_tiny_k0_v0"),
        ("", "model_data/task3_tiny_k0_v0"),
    ):
        print(f"  {what:8} {root / where}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
