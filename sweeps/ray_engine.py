"""Trainings as tasks of Ray, on this machine or on a cluster of machines that share a disk.

Enters: jobs, the address of a cluster. Leaves: a task for each fold. An actor owns the tasks and
outlives the process that started it, so that trainings can go on without that process.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from misc_utils.command_line import REPOSITORY
from misc_utils.errors import UserError
from sweeps.grid import Job
from sweeps.job import passed_on, run_job
from sweeps.states import QUEUED, log_of, mark

NAMESPACE = "skin-lesions"  # in which the actors have their names
CANCEL_SECONDS = 120  # that trainings have for the batch they are in
LOCAL = "local"  # address of a cluster of Ray's that lives as long as this process


def check_ray() -> None:
    """UserError unless Ray is installed."""
    if find_spec("ray") is None:
        raise UserError(
            f"--engine ray: Ray is not installed. {sys.executable} -m pip install -r "
            f"{REPOSITORY / 'requirements-ray.txt'}"
        )


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
        import ray

        self.ray, self.logs = ray, logs
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
        self.owner = ray.remote(Owner).options(
            name=f"{root}: {name}",
            get_if_exists=True,
            lifetime=None if self.address == LOCAL else "detached",
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
        )
        self.owner = self.owner.remote(logs, passed_on(root), retries, needs, at_once)

    def start(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs, those aside that are queued or running since an earlier command."""
        for job in self.ray.get(self.owner.add.remote(list(jobs))):
            mark(log_of(self.logs, job), QUEUED)

    def working(self) -> bool:
        """Whether any is queued or running."""
        return self.ray.get(self.owner.working.remote())

    def interrupt(self, cancel: bool) -> None:
        """End the trainings after their batch, or leave them to the cluster where there is one."""
        if cancel or self.address == LOCAL:
            self.ray.get(self.owner.cancel.remote())
            self.close()
        else:
            print(f"Trainings go on in the cluster {self.address}. Repeat the command to follow.")
            self.ray.shutdown()

    def close(self) -> None:
        """When all is done."""
        self.ray.kill(self.owner)
        self.ray.shutdown()


class Owner:
    """An actor that owns the tasks: they live as long as it does."""

    def __init__(
        self,
        logs: Path,
        environment: Mapping[str, str],
        retries: int,
        needs: Mapping[str, int],
        at_once: int | None,
    ) -> None:
        self.logs, self.environment, self.retries = logs, environment, retries
        self.needs, self.at_once = needs, at_once
        self.queued: list[Job] = []
        self.tasks: dict[Any, Job] = {}  # by the reference to its result

    def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Queue jobs that are not yet queued or running; returns them."""
        self.working()
        known = {job.run for job in (*self.queued, *self.tasks.values())}
        new = [job for job in jobs if job.run not in known]
        self.queued += new
        self.working()
        return new

    def working(self) -> bool:
        """Start what there is room for; whether any is queued or running."""
        import ray

        if self.tasks:
            done, _ = ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)
            for task in done:  # how it ended is in its log and its run folder
                del self.tasks[task]
        train = ray.remote(run_job).options(max_retries=self.retries, max_calls=1, **self.needs)
        while self.queued and (self.at_once is None or len(self.tasks) < self.at_once):
            job = self.queued.pop(0)
            task = train.remote(job, log_of(self.logs, job), self.retries, self.environment)
            self.tasks[task] = job
        return bool(self.tasks)

    def cancel(self) -> None:
        """End all, and wait for it."""
        import ray

        self.queued.clear()
        for task in self.tasks:
            ray.cancel(task)
        if self.tasks:
            ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=CANCEL_SECONDS)
