"""Trainings on this machine, one after another or some at once, each on a GPU where there are some.

Enters: jobs. Leaves: processes of the training script, which end when this one is asked to.
"""

import logging
import os
import queue
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sweeps.grid import Job
from sweeps.job import run_job
from sweeps.states import QUEUED, log_of, mark

log = logging.getLogger(__name__)


class LocalEngine:
    """Threads that each wait for a training.

    Args:
        logs: folder of the logs.
        root: ISIC_ROOT.
        at_once: trainings; None: one for each GPU, one without any.
        retries: starts of a training that a signal ended.
    """

    def __init__(self, logs: Path, root: Path, at_once: int | None, retries: int) -> None:
        gpus = list_gpus()
        self.logs, self.root, self.retries = logs, root, retries
        self.at_once = at_once or max(len(gpus), 1)
        self.signals = 0  # that each training is to be sent
        self.places: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for i in range(self.at_once):
            gpu = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
            self.places.put(gpu)
        self.futures: list[Future] = []
        self.threads = ThreadPoolExecutor(self.at_once)

    def start(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs."""
        for job in jobs:
            mark(log_of(self.logs, job), QUEUED)
        self.futures += [self.threads.submit(self._train, job) for job in jobs]

    def working(self) -> bool:
        """Whether any is queued or running."""
        for future in self.futures:
            if future.done():
                future.result()  # raises what its thread raised, as where a disk is full
        return not all(future.done() for future in self.futures)

    def interrupt(self, cancel: bool) -> None:
        """End the trainings after their batch; on this machine none is left to itself."""
        self.signals = 1
        try:
            self.threads.shutdown(wait=True, cancel_futures=True)
        except BaseException:  # a second Ctrl-C
            self.signals = 2
            raise

    def close(self) -> None:
        """When all is done."""
        self.threads.shutdown()

    def _train(self, job: Job) -> None:
        place = self.places.get()
        try:
            environment = {"ISIC_ROOT": str(self.root), **place}
            run_job(job, log_of(self.logs, job), self.retries, environment, lambda: self.signals)
        finally:
            self.places.put(place)


def list_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them: those in it, else all that NVIDIA's driver lists."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu.strip() and gpu != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []
