"""One training by processes on several hosts: the first owns the run, the others keep nothing.

All go through the same steps, as each computes a part of every batch. What the others write goes to
a folder of their own, which is deleted with the fold. The hosts share the disk of `model_data/`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from misc_utils.errors import UserError
from models.devices import all_say, from_first, processes
from training.claim import claim_run, folder_of
from training.run_folder import Run

FAILED, NOTHING_TO_DO, BEGINS, RESUMES = range(4)  # what the first process tells of its claim
NOT_SHARED = "Not all hosts see the run in {}: it has to be on a disk that they share."
COPIED = ("settings.json", "folds.csv", "*.weights.h5", "*_state.npz")  # to resume from


def claim_together(
    model_data: Path, task: int, k_fold: int, settings: dict, *more
) -> AbstractContextManager[Run | None]:
    """The run to train, as claim_run gives it, whose arguments these are.

    Of several processes the first claims it, and the others get one of their own that begins or
    resumes like it. UserError in them, too, where it cannot be claimed.
    """
    process, count = processes()
    arguments = (task, k_fold, settings, *more)
    if count == 1:
        return claim_run(model_data, *arguments)
    return _follow(model_data, *arguments) if process else _lead(model_data, *arguments)


@contextmanager
def _lead(model_data: Path, *arguments) -> Iterator[Run | None]:
    with ExitStack() as stack:
        try:
            run = stack.enter_context(claim_run(model_data, *arguments))
        except BaseException:
            from_first(FAILED)
            raise
        from_first(NOTHING_TO_DO if run is None else RESUMES if run.resumes else BEGINS)
        if not all_say(True):  # returns when the others have copied it
            raise UserError(NOT_SHARED.format(model_data))
        yield run


@contextmanager
def _follow(
    model_data: Path, task: int, k_fold: int, settings: dict, folds, facts, replaced
) -> Iterator[Run | None]:
    answer = from_first(0)
    if answer == FAILED:
        raise UserError(
            "The first of the processes that train together could not begin; see its message."
        )
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder)
        theirs = folder_of(model_data, task, settings, k_fold)
        if not all_say(answer != RESUMES or _copy(theirs, own)):
            raise UserError(NOT_SHARED.format(model_data))
        if answer == NOTHING_TO_DO:
            yield None
            return
        with claim_run(own, task, k_fold, settings | {"log_to": ()}, folds, facts) as run:
            yield run


def _copy(run_folder: Path, into: Path) -> bool:
    """Copy what a run resumes from; whether it was there."""
    copy = into / run_folder.name
    copy.mkdir()
    for pattern in COPIED:
        for file in run_folder.glob(pattern):
            shutil.copy(file, copy)
    return any(copy.glob("*_state.npz"))
