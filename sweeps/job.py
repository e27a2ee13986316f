"""One training as a process of its own, what it says in a log: what the engines have in common.

Enters: a Job. Leaves: an exit code; lines in the log, see states.py. The training script resumes
what is there, and waits where another process trains the same run.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sweeps.grid import Job
from sweeps.states import ENDED, mark, started

POLL = 0.2  # seconds
# Variables of the environment that a training on another machine is to find as here
PASSED_ON = ("ISIC_", "KERAS_", "TF_", "JAX_", "XLA_", "MLFLOW_", "WANDB_")


def run_job(
    job: Job,
    log: Path,
    retries: int,
    environment: Mapping[str, str],
    signals: Callable[[], int] = int,
) -> int:
    """Train one fold; returns the exit code of the last process.

    A process that a signal ended, as when memory runs out, is started again, at most `retries`
    times. `environment` is added to that of this process. The training is sent SIGTERM as often as
    `signals` says, once where an exception such as KeyboardInterrupt comes: at the first it ends
    after the batch, at the second at once.
    """
    for _ in range(retries + 1):
        mark(log, started(socket.gethostname()))
        with log.open("ab") as output:
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C in a terminal is for whoever started it
            )
        sent = 0
        try:
            while process.poll() is None:
                if sent < signals():
                    process.terminate()
                    sent += 1
                time.sleep(POLL)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            if process.returncode is not None:
                code = exit_code(process.returncode)
                mark(log, f"{ENDED} {code}")
        if sent or process.returncode >= 0:
            break
    return code


def exit_code(returncode: int) -> int:
    """As a shell gives it: 137 for a process that SIGKILL (9) ended."""
    return returncode if returncode >= 0 else 128 - returncode


def passed_on(root: Path) -> dict[str, str]:
    """The environment of a training on another machine, besides what is set there."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return kept | {"ISIC_ROOT": str(root)}
