"""Draw lesions and take them through training, scoring and prediction, in a few minutes.

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
from pathlib import Path

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from misc_utils.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    root: Path = paths.repository / "demo"  # folder that everything lands in
    lesions: int = 100  # in each training set that is drawn
    image_size: int = 96  # side of the square pictures in pixels, a multiple of 32
    num_folds: int = 2  # parts of the split; every one is held out once
    segmentation_epochs: int = 16  # passes over the training images of Task 1
    classification_epochs: int = 14  # passes over those of Task 3
    least_jaccard: float = 0.80  # mean over held-out lesions; below it the demo fails
    least_balanced_accuracy: float = 0.5  # on held-out lesions; below it the demo fails
    seed: int = 0  # governs drawing and training


def main(settings: Settings) -> dict[str, float]:
    from datasets.synthetic import draw_dataset

    start, root = time.monotonic(), settings.root.expanduser().resolve()
    steps, lacking = plan_steps(settings), what_export_lacks()
    if lacking:
        steps = [step for step in steps if step[1] != "export.py"]
    last = 1 + len(steps)

    # 1 data
    print(f"[1/{last}] Draw lesions, laid out as released, into {root / 'data'}", flush=True)
    draw_dataset(root / "data", lesions=settings.lesions, seed=settings.seed)

    # 2 the scripts
    inside = root.is_relative_to(paths.repository)
    typed = str(root.relative_to(paths.repository) if inside else root)
    print(f"\n$ cd {shlex.quote(str(paths.repository))}\n$ export ISIC_ROOT={shlex.quote(typed)}")
    for number, (what, script, *flags) in enumerate(steps, start=2):
        print(f"\n[{number}/{last}] {what}")
        run_script(script, flags, root)
    if lacking:
        print(f"\nThe nets were not exported: {lacking}")

    # 3 scores
    print(f"\nThe demo took {(time.monotonic() - start) / 60:.1f} minutes. Look into")
    show_folders(root, with_bundle=not lacking)
    return check_scores(settings, root)


def plan_steps(settings: Settings) -> list[tuple[str, ...]]:
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
    photographs = settings.root.expanduser().resolve() / "data/ISIC2018_Task3_Validation_Input"
    asked = (str(photographs), "--name", "photographs")
    return [
        ("Train a small U-Net on Task 1", "seg_train.py", *train, *segment),
        ("Score it on the lesions it did not see", "seg_eval.py", *net, "--k-fold", "all"),
        ("Choose its threshold and smoothing on them", "seg_tune.py", *net),
        ("Cut the lesions out of the Task 3 training images", "seg_predict.py", *again),
        ("Cut them out of the Task 3 test images", "seg_predict.py", *on_test),
        ("Write masks of the Task 1 test set", "seg_predict.py", "mask", "--task", "1", *on_test),
        ("Train a small classifier on the crops", "cls_train.py", *train, *classify),
        ("Score it on the lesions it did not see", "cls_eval.py", *net, "--k-fold", "all"),
        ("Calibrate it on them", "cls_tune.py", *net),
        ("Classify the Task 3 test set", "cls_predict.py", *on_test),
        ("Ask both nets about images in a folder", "predict.py", *asked, "--overwrite"),
        ("Export both as files that answer without Keras", "export.py", "--overwrite"),
    ]


def what_export_lacks() -> str:
    """Why export.py cannot run here; empty where it can."""
    from deploy.export import lacking

    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return "exporting takes TensorFlow, and KERAS_BACKEND names another"
    return lacking("onnx")


def run_script(script: str, flags: list[str], root: Path) -> None:
    """Run one script under `root`, its output passed on as it comes; UserError when it fails."""
    command = ["python3", f"runs/{script}", *flags]
    print(f"$ {shlex.join(command)}", flush=True)
    environment = os.environ | {"ISIC_ROOT": str(root)}
    done = subprocess.run([sys.executable, *command[1:]], cwd=paths.repository, env=environment)
    if done.returncode:
        raise UserError(
            f"runs/{script} ended with exit code {done.returncode}: see the lines above."
        )


def show_folders(root: Path, with_bundle: bool) -> None:
    """Say where everything lies."""
    for what, where in (
        ("masks", "submissions/task1_test"),
        ("crops", "submissions/task3_training_crops"),
        ("classes", "submissions/task3_test_submission.csv"),
        ("pages", "submissions/task3_test_browse/index.html"),
        ("answers", "submissions/photographs/index.html"),
        ("bundle", "submissions/bundle"),
        ("reports", "model_data/task1_tiny_v0/task1_tiny_v0_report_fold.html"),
        ("", "model_data/task3_tiny_v0/task3_tiny_v0_report_fold.html"),
    ):
        if what != "bundle" or with_bundle:
            print(f"  {what:8} {root / where}")


def check_scores(settings: Settings, root: Path) -> dict[str, float]:
    """Print the scores that the eval scripts wrote; UserError where one is too low."""
    scores, low = {}, []
    print("On held-out lesions:")
    for run, name, least in (
        ("task1_tiny_v0", "jaccard", settings.least_jaccard),
        ("task3_tiny_v0", "balanced_accuracy", settings.least_balanced_accuracy),
    ):
        file = root / "model_data" / run / f"{run}_scores_fold.json"
        scores[name] = float(json.loads(file.read_text())[name])
        said = f"{name.replace('_', ' ')} {scores[name]:.3f} (at least {least:.2f} is expected)"
        print(f"  {'mean ' * (name == 'jaccard')}{said}")
        if scores[name] < least:
            low.append(said)
    if low:
        raise UserError(
            f"{' and '.join(low)}: these nets did not learn what they should. With fewer lesions, "
            f"fewer epochs or smaller images that is expected; otherwise it is a defect."
        )
    return scores


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
