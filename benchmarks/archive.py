"""Answers for archives of growing numbers of small images, and for the largest one under kills.

python3 benchmarks/archive.py
python3 benchmarks/archive.py --numbers 1000 5000 --kills 10 --folder /scratch

Draws images, trains tiny nets and exports them (--bundle names other nets). For each number one
process answers for all of it: time of an image, peak memory, files. Time of the processor is that
beyond a run of 1000 images; other work on the machine changes it less than the time that passes.
Then the largest number is answered for by shards whose processes are killed at random moments and
started again, and the table must be the same, row by row. Prints tables and writes JSON.
"""

import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

from measure import machine
from misc_utils import command_line

FOLDER = 1000  # images of a folder
LOOKS = 100  # drawings that the images are varied from


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    numbers: tuple[int, ...] = (10_000, 50_000, 100_000)  # of images, multiples of 1000
    rounds: int = 2  # how often each number but the largest is measured
    shards: int = 4  # of the run that is killed
    at_once: int = 2  # of its processes
    kills: int = 40  # how often one of them is killed
    longest: float = 20.0  # seconds until a kill, at most
    part_size: int = 1000  # images of a part
    bundle: Path | None = None  # nets that answer; None: tiny ones are trained
    folder: Path | None = None  # that a temporary one is made in; None: where the system has them
    seed: int = 0  # of the images and the kills
    out: Path = paths.repository / "benchmarks" / "results_archive.json"  # all figures


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(dir=settings.folder) as temporary:
        root = Path(temporary)
        bundle = (settings.bundle or train_bundle(root)).resolve()
        largest = max(settings.numbers)
        drawn = draw_archives(root, (FOLDER, *settings.numbers), settings.seed)
        print(f"{largest} images drawn, {drawn:.2f} GB", flush=True)
        said = {"machine": machine(), "settings": {k: str(v) for k, v in vars(settings).items()}}

        # 1 growing numbers, in turn
        few = measure(root, bundle, FOLDER, settings.part_size)
        rows = [few]
        for turn in range(settings.rounds):
            for number in settings.numbers:
                if number != largest or turn == settings.rounds - 1:
                    row = measure(root, bundle, number, settings.part_size)
                    more = row["cpu_seconds"] - few["cpu_seconds"]
                    row["cpu_ms_an_image"] = 1000 * more / (number - FOLDER)
                    rows.append(row)
                    if len(rows) == 2:
                        print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
                    print(line(row), flush=True)
        said["growth"] = rows

        # 2 kills
        said["kills"] = with_kills(root, bundle, largest, settings)
        print(json.dumps(said["kills"]))
        settings.out.write_text(json.dumps(said, indent=1) + "\n")


def train_bundle(root: Path) -> Path:
    """A segmenter and two classifiers at 32 pixels, of an epoch on drawn lesions."""
    from datasets.synthetic import draw_dataset

    draw_dataset(root / "data", lesions=28, test_lesions=7, shorter_side=(72, 96))
    tiny = ("--backbone", "tiny", "--weights", "none", "--image-size", "32", "--epochs", "1")
    for script, *flags in (
        ("seg_train.py", *tiny, "--num-folds", "1", "--batch-size", "8"),
        ("cls_train.py", *tiny, "--num-folds", "2", "--lesion-view", "whole"),
        ("export.py", "--verify-images", "5"),
    ):
        run(root, script, *flags)
    return root / "submissions/bundle"


def draw_archives(root: Path, numbers: tuple[int, ...], seed: int) -> float:
    """Folders of 64x48 JPEG files, no two alike; of smaller numbers links to some. Gigabytes."""
    import cv2
    import numpy as np

    from pictures import draw_jpeg

    chance = np.random.default_rng(seed)
    looks = [np.frombuffer(draw_jpeg(48, 64, seed), np.uint8) for seed in range(LOOKS)]
    looks = [cv2.imdecode(look, cv2.IMREAD_COLOR).astype(np.int16) for look in looks]
    written = 0
    for number in range(max(numbers)):
        folder = root / f"images{max(numbers)}" / f"{number // FOLDER:04}"
        folder.mkdir(parents=True, exist_ok=True)
        light, grain = chance.integers(-20, 21, 3), chance.integers(-3, 4, (48, 64, 1))
        image = np.clip(looks[number % LOOKS] + light + grain, 0, 255).astype(np.uint8)
        content = cv2.imencode(".jpg", image)[1].tobytes()
        (folder / f"lesion_{number:07}.jpg").write_bytes(content)
        written += len(content)
    for number in numbers:
        for part in range(number // FOLDER):
            link = root / f"images{number}" / f"{part:04}"
            if not link.exists():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(root / f"images{max(numbers)}" / link.name)
    return written / 1e9


def measure(root: Path, bundle: Path, number: int, part_size: int) -> dict:
    """One process that answers for a number of images, and the merge of what it wrote."""
    name = f"whole{number}"
    flags = (str(root / f"images{number}"), "--bundle", str(bundle), "--name", name)
    flags += ("--part-size", str(part_size), "--overwrite")
    answered = run(root, "predict_archive.py", *flags)
    merged = run(root, "merge_archive.py", "--name", name)
    files = [file for file in (root / "submissions" / name).rglob("*") if file.is_file()]
    rate = float(re.search(r"images in .* s: ([\d.]+) images/s", answered["out"])[1])
    return {
        "images": number,
        "ms_an_image": 1000 / rate,
        "seconds_in_all": answered["seconds"],
        "cpu_seconds": answered["cpu_seconds"],
        "peak_rss_mb": answered["peak_rss_mb"],
        "merge_seconds": merged["seconds"],
        "merge_peak_rss_mb": merged["peak_rss_mb"],
        "files": len(files),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }


def line(row: dict) -> str:
    return (
        "| " + " | ".join(f"{value:,.2f}".rstrip("0").rstrip(".") for value in row.values()) + " |"
    )


def run(root: Path, script: str, *flags: str) -> dict:
    """Run a script to its end: what it printed, seconds, peak memory."""
    start = time.monotonic()
    process = begin(root, script, *flags)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{script} ended with {process.returncode}: {out}")
    seconds = time.monotonic() - start
    cpu = usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss / 1000
    return {"out": out, "seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak}


def begin(root: Path, script: str, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(paths.repository / "runs" / script), *flags],
        env=os.environ | {"ISIC_ROOT": str(root), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def with_kills(root: Path, bundle: Path, number: int, settings: Settings) -> dict:
    """Shards whose processes are killed; what they wrote must be what one process wrote."""
    import pyarrow.parquet as pq

    chance = random.Random(settings.seed)
    flags = (str(root / f"images{number}"), "--bundle", str(bundle), "--name", "killed")
    flags += ("--part-size", str(settings.part_size))
    waiting = [f"{shard}/{settings.shards}" for shard in range(1, settings.shards + 1)]
    working: dict[str, tuple[subprocess.Popen, float]] = {}
    kills, start = 0, time.monotonic()
    while waiting or working:
        while waiting and len(working) < settings.at_once:
            shard = waiting.pop(0)
            until = time.monotonic() + chance.uniform(0, settings.longest)
            process = begin(root, "predict_archive.py", *flags, "--shard", shard)
            working[shard] = process, until
        time.sleep(0.02)
        for shard, (process, until) in list(working.items()):
            if process.poll() is not None:
                del working[shard]
                if process.returncode:
                    raise SystemExit(f"shard {shard}: {process.stdout.read()}")
            elif kills < settings.kills and time.monotonic() > until:
                process.kill()
                process.wait()
                kills += 1
                del working[shard]
                waiting.insert(chance.randint(0, len(waiting)), shard)
    seconds = time.monotonic() - start
    run(root, "merge_archive.py", "--name", "killed")
    tables = [
        pq.read_table(root / "submissions" / name / "predictions.parquet")
        for name in (f"whole{number}", "killed")
    ]
    masks = []
    for file in sorted((root / "submissions/killed/parts").glob("*.tar")):
        with tarfile.open(file) as tar:
            masks += tar.getnames()
    names = tables[1]["name"].to_pylist()
    inside = {file.name for file in (root / "submissions/killed").rglob("*")}
    return {
        "kills": kills,
        "seconds": seconds,
        "rows": len(names),
        "names": len(set(names)),
        "masks": len(masks),
        "names_of_masks": len(set(masks)),
        "table_is_that_of_one_process": tables[0].equals(tables[1]),
        "partial_files_left": sum(name.startswith(".partial_") for name in inside),
    }


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
