"""Trainings as tasks of Ray, on this machine or on a cluster of machines that share a disk.

Enters: jobs, the address of a cluster. Leaves: a task for each fold. An actor owns the tasks and
outlives the process that started it, so that trainings can go on without that process.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("ray"):  # an optional package
    import ray

from misc_utils.errors import UserError
from misc_utils.messages import lacking
from sweeps.grid import Job
from sweeps.job import passed_on, run_job
from sweeps.states import QUEUED, log_of, mark

NAMESPACE = "skin-lesions"  # in which the actors have their names
LOOK = 1  # seconds between two looks at the tasks
CANCEL_SECONDS = 120  # that trainings have for the batch they are in
LOCAL = "local"  # address of a cluster of Ray's that lives as long as this process


def check_ray() -> None:
    """UserError unless Ray is installed."""
    if said := lacking(("ray",), "requirements-ray.txt"):
        raise UserError(f"--engine ray: {said}")


class RayEngine:
    """Follows the actor that owns the tasks.

    Args:
        name: of the sweep; a sweep of this name that is still at work is followed.
        logs: folder of the logs.
        root: ISIC_ROOT, the same on all machines.
        address: of a cluster; None: RAY_ADDRESS, else a cluster of this process alone.
        at_once: trainings; None: as many as there is room for.
        retries: of a training that a signal ended, and of one whose machine died.
        cpus: processor cores for each, where the cluster has no GPU.
    """

    def __init__(
        self,
        name: str,
        logs: Path,
        root: Path,
        address: str | None,
        at_once: int | None,
        retries: int,
        cpus: int,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
        self.logs = logs
        self.address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        options = {"include_dashboard": False} if self.address == LOCAL else {}
        try:
            ray.init(
                self.address, namespace=NAMESPACE, log_to_driver=False, logging_level=30, **options
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--address {self.address}: no cluster of Ray answers there ({error}). Start one: "
                f"ray start --head; or leave --address out, and unset RAY_ADDRESS, to use this "
                f"machine alone."
            ) from None
        room = ray.cluster_resources()
        needs = {"num_gpus": 1} if room.get("GPU") else {"num_cpus": cpus}
        self.arguments = logs, passed_on(root), retries, needs, at_once
        self.name = f"{root}: {name}"
        self.owner = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs, those aside that are queued or running since an earlier command."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        try:
            self.owner = ray.get_actor(self.name)
            jobs = ray.get(self.owner.add.remote(list(jobs)))
        except ValueError:  # there is none
            # on this machine, which is less likely to leave than others
            here = ray.get_runtime_context().get_node_id()
            self.owner = ray.remote(Owner).options(
                name=self.name,
                lifetime=None if self.address == LOCAL else "detached",
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
                max_restarts=-1,
                max_task_retries=-1,
            )
            self.owner = self.owner.remote(list(jobs), *self.arguments)
        for job in jobs:
            mark(log_of(self.logs, job), QUEUED)

    def working(self) -> bool:
        """Whether any is queued or running."""
        return self.owner is not None and ray.get(self.owner.working.remote())

    def interrupt(self, cancel: bool) -> None:
        """End the trainings after their batch, or leave them to the cluster where there is one."""
        if self.owner is not None and (cancel or self.address == LOCAL):
            ray.get(self.owner.cancel.remote())
            self.close()
        elif self.owner is not None:
            print(f"Trainings go on in the cluster {self.address}. Repeat the command to follow.")
            ray.shutdown()

    def close(self) -> None:
        """When all is done."""
        if self.owner is not None:
            ray.kill(self.owner)
        ray.shutdown()


class Owner:
    """An actor that owns the tasks: they live as long as it does.

    Where it dies with its machine, Ray starts it again with the jobs that it began with; those that
    are finished end at once.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        logs: Path,
        environment: Mapping[str, str],
        retries: int,
        needs: Mapping[str, int],
        at_once: int | None,
    ) -> None:
        self.logs, self.environment, self.retries = logs, environment, retries
        self.needs, self.at_once = needs, at_once
        self.queued = list(jobs)
        self.tasks: dict[Any, Job] = {}  # by the reference to its result
        self.lock = threading.Lock()  # on both
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Queue jobs that are not yet queued or running; returns them."""
        with self.lock:
            known = {job.run for job in (*self.queued, *self.tasks.values())}
            new = [job for job in jobs if job.run not in known]
            self.queued += new
        return new

    def working(self) -> bool:
        """Whether any is queued or running."""
        if not self.thread.is_alive():
            raise RuntimeError("the thread that starts trainings ended: see the log of this actor")
        with self.lock:
            return bool(self.queued or self.tasks)

    def cancel(self) -> None:
        """End all, and wait for it."""
        with self.lock:
            self.queued.clear()
            tasks = list(self.tasks)
        for task in tasks:
            ray.cancel(task)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)

    def _run(self) -> None:
        """Start what there is room for, whether or not the command that began it still runs."""
        train = ray.remote(run_job).options(max_retries=self.retries, **self.needs)
        while True:
            with self.lock:
                if self.tasks:
                    done, _ = ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)
                    for task in done:  # how it ended is in its log and its run folder
                        del self.tasks[task]
                while self.queued and (self.at_once is None or len(self.tasks) < self.at_once):
                    job, *self.queued = self.queued
                    arguments = job, log_of(self.logs, job), self.retries, self.environment
                    self.tasks[train.remote(*arguments)] = job
            time.sleep(LOOK)
