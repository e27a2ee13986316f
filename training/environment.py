"""What a run is computed with: versions, backend, device and commit, for settings.json."""

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras

PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "opencv-python-headless", "pillow")

REPOSITORY = Path(__file__).resolve().parents[1]


def describe() -> dict:
    """Versions of Python and packages, backend, device, and the commit of this code."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "backend": keras.backend.backend(),
        "device": device(),
        "git_commit": git_commit(REPOSITORY),
    }


def process() -> dict:
    """Host and number of this process, and its job where Slurm started it: where a run is trained.

    Several nodes of Slurm may be one host; each has a name of its own.
    """
    slurm, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{slurm}_{index}" if slurm else os.environ.get("SLURM_JOB_ID")
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return {"host": host, "pid": os.getpid(), "slurm_job": job}


def device() -> str:
    """Where the backend puts arrays, in its own words, such as `cuda:0`."""
    return str(keras.ops.zeros(1).device)


def git_commit(repository: Path) -> str | None:
    """Commit of the code, with `+` behind it when files were changed since; None outside git."""
    command = ["git", "-C", str(repository), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
