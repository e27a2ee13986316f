"""Whole scripts: how soon they start, what prediction adds to the net, memory.

Enters: how often to measure. Leaves: rows, one after another. Everything happens in a temporary
root with drawn pictures.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import paths
from measure import Row, Target, in_turn, seconds
from pictures import draw_jpeg

HERE = Path(__file__).resolve().parent


def start(repetitions: int) -> Iterator[Row]:
    """A training script until it asks for its images, against `import keras`."""
    script = (
        f"import sys; sys.path.insert(0, {str(paths.repository / 'runs')!r})\n"
        "import paths, seg_train\n"
        "from misc_utils import command_line\n"
        "from datasets.ISIC2018 import ISIC2018\n"
        "def reached(*_): raise SystemExit\n"
        "ISIC2018.list_images = reached\n"
        "sys.argv = ['seg_train.py', '--backbone', 'tiny']\n"
        "command_line.run(seg_train.main, seg_train.Settings, seg_train.__doc__)\n"
    )
    with temporary_root():
        measured = in_turn(lambda: process(script), lambda: process("import keras"), repetitions)
    yield Row(
        "start of seg_train until it reads images",
        "bare `import keras`",
        "s",
        *measured,
        Target("<=", 1.3),
        "ours / reference",
    )


def process(code: str) -> float:
    """Seconds of a new Python that runs `code`."""
    command = [sys.executable, "-c", code]
    return seconds(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))


@contextlib.contextmanager
def temporary_root() -> Iterator[Path]:
    """A folder named by ISIC_ROOT that goes when the block ends."""
    before = os.environ.get("ISIC_ROOT")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISIC_ROOT"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("ISIC_ROOT")
            if before is not None:
                os.environ["ISIC_ROOT"] = before


def name_of(i: int) -> str:
    """An image id that no drawn lesion has: of those a net was trained on, none is predicted."""
    return f"ISIC_{5_000_000 + i}"


def write_images(folder: Path, number: int, contents: list[bytes]) -> None:
    """`number` image files that take turns in what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        (folder / f"{name_of(i)}.jpg").write_bytes(contents[i % len(contents)])


def train_small_net(root: Path, backbone: str, image_size: int, epochs: int) -> None:
    """A run of Task 1 on a few drawn lesions, so that its masks look like masks."""
    import seg_train

    from datasets.synthetic import draw_dataset

    draw_dataset(root / "data", lesions=40, test_lesions=1, shorter_side=(224, 240))
    settings = seg_train.Settings(
        backbone=backbone,
        weights="none",
        image_size=image_size,
        num_folds=1,
        folds=(0,),
        epochs=epochs,
        batch_size=8,
        learning_rate=3e-3,
        schedule="cosine",
    )
    with quiet():
        seg_train.main(settings)
    for folder in (root / "data").glob("ISIC2018_*"):
        if "Training" not in folder.name:
            for file in folder.iterdir():
                file.unlink()


def quiet() -> contextlib.ExitStack:
    """Nothing on standard output."""
    return contextlib.redirect_stdout(io.StringIO())


def predict(repetitions: int) -> Iterator[Row]:
    """runs/seg_predict.py over 300 images of 600x450, against predicting them from the cache."""
    import seg_predict

    from datasets.ISIC2018 import ISIC2018
    from models.trained import load_segmenter
    from training import run_folder

    number, size, backbone = 300, 224, "tiny"
    with temporary_root() as root:
        train_small_net(root, backbone, size, epochs=3)
        contents = [draw_jpeg(450, 600, seed) for seed in range(20)]
        write_images(root / "data" / "ISIC2018_Task1-2_Test_Input", number, contents)
        cached = ISIC2018(root / "data").load_images(1, "test", size)
        run = run_folder.find_runs(root / "model_data", 1, backbone, "0", [0])[0]
        settings = seg_predict.Settings(
            "mask", backbone, task=1, pred_set="test", overwrite=True, batch_size=32
        )

        def ours() -> float:
            with quiet():
                return seconds(lambda: seg_predict.main(settings))

        def bare() -> float:
            return seconds(
                lambda: load_segmenter(run.settings, run.weights).predict(
                    cached.array, batch_size=32, verbose=0
                )
            )

        measured = in_turn(ours, bare, repetitions, warm_up=False)
        found = len(list((root / "submissions" / "task1_test").glob("*.png")))
    yield Row(
        f"seg_predict of {number} images, {backbone}, {size} px",
        "the same net loaded, and its bare `predict` of the cached images",
        "s",
        *measured,
        Target("<=", 1.15),
        "ours / reference",
        note=f"{found} masks of 600x450 written as PNG; the smaller the net, the more they weigh",
        sound=found == number,
    )


def memory(repetitions: int) -> Iterator[Row]:
    """Peak memory of runs/seg_train.py over 2594 cached images, beyond framework and model.

    One run each: a peak does not depend on how busy the machine is. The run is cut into as many
    parts of equal time as there are repetitions, to show whether memory grows.
    """
    number = 2594
    with temporary_root() as root:
        contents = [draw_jpeg(240, 320, seed) for seed in range(20)]
        write_images(root / "data" / "ISIC2018_Task1-2_Training_Input", number, contents)
        truth = root / "data" / "ISIC2018_Task1_Training_GroundTruth"
        truth.mkdir()
        mask = np.zeros((240, 320), np.uint8)
        cv2.ellipse(mask, (160, 120), (90, 60), 20, 0, 360, 255, cv2.FILLED)
        png = cv2.imencode(".png", mask)[1].tobytes()
        for i in range(number):
            (truth / f"{name_of(i)}_segmentation.png").write_bytes(png)
        preprocess = paths.repository / "datasets" / "ISIC2018" / "preprocess_data.py"
        subprocess.run([sys.executable, str(preprocess)], check=True, capture_output=True)
        train = [str(paths.repository / "runs" / "seg_train.py"), "--backbone", "tiny"]
        train += ["--weights", "none", "--epochs", "1", "--folds", "0"]
        ours = peaks(train, repetitions)
    bare = peaks([str(HERE / "bare_training.py")], repetitions)
    beyond = max(part["RssAnon"] for part in ours) - max(part["RssAnon"] for part in bare)
    yield Row(
        f"peak RssAnon of seg_train, tiny, over {number} cached images",
        "framework and model alone",
        "GB",
        [part["RssAnon"] for part in ours],
        [part["RssAnon"] for part in bare],
        None,
        "ours / reference",
        note=f"file-mapped pages beside it at most {max(part['RssFile'] for part in ours):.2f} GB",
    )
    yield Row(
        "the same, beyond framework and model",
        "what is allowed (the original took 16.9 GB in all)",
        "GB",
        [beyond],
        [0.5],
        Target("<=", 1),
        "ours / reference",
    )


def peaks(command: list[str], parts: int) -> list[dict[str, float]]:
    """Peaks of RssAnon and RssFile in GB in each of `parts` equal times of a Python process."""
    samples = []
    running = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while running.poll() is None:
        samples.append(resident(running.pid))
        time.sleep(0.05)
    if running.returncode:
        raise RuntimeError(f"{command} ended with {running.returncode}")
    pieces = np.array_split(np.array([s for s in samples if s]), parts)
    return [dict(zip(("RssAnon", "RssFile"), piece.max(axis=0), strict=True)) for piece in pieces]


def resident(pid: int) -> tuple[float, float] | None:
    """RssAnon and RssFile of a process in GB; None when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines)
    if "RssAnon" not in sizes:
        return None
    return tuple(int(sizes[key].split()[0]) * 1024 / 1e9 for key in ("RssAnon", "RssFile"))
