"""Shards against Ray Data: the same archive, the same nets, in turn.

pip install "ray[data]"         # in an environment of its own; nothing else needs it
python3 benchmarks/archive_ray.py

One process of predict_archive.py, two that take a shard each, and Ray Data, which reads and decodes
in tasks and holds the nets in actors. All of them write a table and masks. Prints a row for each.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runs"))
import paths  # isort: skip  (the repository on sys.path)

from archive import draw_archives, train_bundle

from misc_utils import command_line

WAYS = ("one process", "two shards", "Ray Data")


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    number: int = 10_000  # of images
    repetitions: int = 3  # measurements of each
    actors: int = 1  # that hold nets; the other cores decode
    bundle: Path | None = None  # nets that answer; None: tiny ones are trained


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        bundle = (settings.bundle or train_bundle(root)).resolve()
        draw_archives(root, (settings.number,), seed=0)
        images = root / f"images{settings.number}"
        head = ("way", "seconds", "ms an image", "processor, s", "memory at most, MB")
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for turn in range(settings.repetitions):
            for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
                name = f"{way.replace(' ', '_')}_{turn}"
                script = str(paths.repository / "runs/predict_archive.py")
                ours = [script, str(images), "--bundle", str(bundle), "--name", name]
                ray = [__file__, "--ray", str(bundle), str(images), str(root / name)]
                commands = {
                    "one process": [ours],
                    "two shards": [[*ours, "--shard", "1/2"], [*ours, "--shard", "2/2"]],
                    "Ray Data": [[*ray, str(settings.actors)]],
                }
                said = measured(root, commands[way], settings.number)
                print(f"| {way} | {' | '.join(f'{value:.4g}' for value in said)} |", flush=True)


def measured(root: Path, commands: list, number: int) -> tuple[float, float, float, float]:
    """Seconds, milliseconds an image, processor time of all and their memory at most, in MB."""
    start, peak, spent = time.monotonic(), 0.0, {}
    environment = os.environ | {"ISIC_ROOT": str(root), "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = f"{paths.repository}:{paths.repository / 'runs'}"
    quiet = {"stdout": subprocess.DEVNULL, "env": environment}
    processes = [subprocess.Popen([sys.executable, *one], **quiet) for one in commands]
    while any(process.poll() is None for process in processes):
        below = processes_below()
        peak = max(peak, sum(memory for memory, _ in below.values()))
        spent |= {pid: cpu for pid, (_, cpu) in below.items()}
        time.sleep(0.2)
    if any(process.returncode for process in processes):
        raise SystemExit("a process failed: see above")
    seconds = time.monotonic() - start
    return seconds, 1000 * seconds / number, sum(spent.values()), peak


def processes_below() -> dict[int, tuple[float, float]]:
    """Of each process below this one: anonymous and shared memory in MB, processor time in s."""
    parents, found = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = dict(one.split(":", 1) for one in (folder / "status").read_text().splitlines())
            times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(lines["PPid"])
        kinds = [lines.get(kind, "0 kB") for kind in ("RssAnon", "RssShmem")]
        cpu = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        found[pid] = sum(int(kind.split()[0]) for kind in kinds) / 1000, cpu
    below = {}
    for pid in found:
        above = parents[pid]
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid():
            below[pid] = found[pid]
    return below


def by_ray(bundle: str, images: str, out: str, actors: str) -> None:
    """Answer for a folder with Ray Data; a Parquet file of rows and masks for some of them."""
    import numpy as np
    import ray

    from datasets.pictures import read_image

    class Nets:
        def __init__(self) -> None:
            from deploy.bundle import load_bundle, read_bundle

            self.predictor = load_bundle(read_bundle(Path(bundle)))

        def __call__(self, batch: dict) -> dict:
            from archives.parts import row_of
            from deploy.ask import Asked

            said = self.predictor.predict_batch(list(batch["image"]))
            sources = [type("Source", (), {"name": path, "shown": path}) for path in batch["path"]]
            asked = zip(sources, batch["sha256"], batch["image"], said, strict=True)
            rows = [row_of(True, Asked(*one)) for one in asked]
            columns = {key: np.array([row[key] for row, _ in rows]) for key in rows[0][0]}
            return columns | {"mask": np.array([mask for _, mask in rows], dtype=object)}

    def decode(batch: dict) -> dict:
        from deploy.ask import digest_of

        return {
            "path": batch["path"],
            "sha256": np.array([digest_of(content) for content in batch["bytes"]]),
            "image": np.stack([read_image(content)[0] for content in batch["bytes"]]),
        }

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.read_binary_files(images, include_paths=True)
    # another share of a core than the nets': else Ray puts both into the actors
    data = data.map_batches(decode, batch_size=256, num_cpus=0.5)
    actors = ray.data.ActorPoolStrategy(size=int(actors))
    data = data.map_batches(Nets, batch_size=8, compute=actors, num_cpus=1)
    data.write_parquet(out)
    import pyarrow.dataset

    count = pyarrow.dataset.dataset(out).count_rows()
    print(f"{count} rows by Ray Data", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ray"]:
        by_ray(*sys.argv[2:])
    else:
        command_line.run(main, Settings, __doc__, needs_keras=False)
