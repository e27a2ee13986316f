"""Which run a training may begin or go on with, claimed so that no other process takes it.

Enters: the settings of a script, the split, facts about data and machine. Leaves: a run folder with
settings.json and folds.csv; or a refusal that names what differs from the training of before.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from errors import UserError
from files import InUseError, locked, remove_partials, write_text
from misc_utils.run_folder import (
    FORMAT,
    Run,
    check_folds,
    folds_fingerprint,
    load_folds,
    read_run,
    run_name,
    write_record,
)

log = logging.getLogger(__name__)

# These settings shape neither net nor data nor optimisation; epochs are compared on their own.
FREE = ("folds", "workers", "overwrite", "epochs")
# What else must be the same for training to go on: key of settings.json -> its name in a message
FIXED = {
    "data_fingerprint": "the images in data/ (or their crops)",
    "truth_fingerprint": "the masks in data/",
    "crops_maker": "what made the crops",
    "precision": "the precision computed in",
    "backend": "the back end of Keras",
}
WAYS = "Choose another --version, or --overwrite to delete it and train anew."


def check_settings(
    model_data: Path, task: int, settings: dict, k_folds: Sequence[int], overwrite: bool
) -> None:
    """Raise UserError, as early as can be, if a run of these names was trained otherwise."""
    for k_fold in k_folds:
        name = run_name(task, settings["backbone"], k_fold, settings["version"])
        if not overwrite:
            _find_same(model_data / name, settings)


@contextmanager
def claim_run(
    model_data: Path,
    task: int,
    k_fold: int,
    settings: dict,
    folds: pd.DataFrame,
    facts: dict,
    overwrite: bool,
) -> Iterator[Run | None]:
    """The run to train, while no other process may; nothing is written before begin_run.

    None, and a line in the log that says why, where nothing is to be done: the run is finished, or
    another process trains it.

    Args:
        model_data: the folder of all runs.
        task: 1 or 3.
        k_fold: the fold held out.
        settings: the script's settings; `backbone`, `version`, `num_folds`, `epochs` are read here.
        folds: one row per image, see datasets.ISIC2018.folds.
        facts: what else settings.json is to hold (versions, device, fingerprint of the data ...).
        overwrite: an old run of that name is not looked at.

    Raises:
        UserError naming what differs when such a run was trained otherwise, or that it cannot go
        on; UserError when a fold is empty, ValueError when a lesion or image is in two folds.
    """
    check_folds(folds, k_fold)
    name = run_name(task, settings["backbone"], k_fold, settings["version"])
    record = {"format": FORMAT, "task": task, "k_fold": k_fold, "finished": False}
    record |= {"settings": settings, "folds_fingerprint": folds_fingerprint(folds)} | facts
    try:
        with locked(model_data, name):
            found = None if overwrite else _find_same(model_data / name, settings, facts, folds)
            if found is None:
                yield Run(model_data / name, record)
            elif found.record["finished"] and settings["epochs"] == found.settings["epochs"]:
                log.info("%s: finished already, nothing to do", name)
                yield None
            else:
                yield _going_on(found, record)
    except InUseError:
        log.info("%s: another process is training it; left to that one", name)
        yield None


def _going_on(found: Run, record: dict) -> Run:
    """The run with its new record: the facts of its start, and what has changed since."""
    if not found.state.exists():
        raise UserError(
            f"{found.folder}: {found.state.name} is not there, without which training cannot go "
            f"on. {WAYS}"
        )
    changed = {k: v for k, v in record.items() if k != "settings" and found.record.get(k) != v}
    changed.pop("finished", None)
    kept = {k: v for k, v in found.record.items() if k not in ("best", "best_epoch", "seconds")}
    resumed = [*found.record.get("resumed", ()), changed]
    kept |= {"finished": False, "settings": record["settings"], "resumed": resumed}
    return Run(found.folder, kept, resumes=True)


def _find_same(
    folder: Path, settings: dict, facts: Mapping = {}, folds: pd.DataFrame | None = None
) -> Run | None:
    """The run in `folder`, if training left anything there; UserError if it was another one."""
    weights, state = folder / f"{folder.name}.weights.h5", folder / f"{folder.name}_state.npz"
    if not weights.exists() and not state.exists():
        return None
    file = folder / "settings.json"
    if not file.exists():
        raise UserError(f"{folder} holds a trained net, but no settings.json. {WAYS}")
    _, run = read_run(file)
    then, now = run.settings, json.loads(json.dumps(settings))
    differing = {k: (then[k], now[k]) for k in now if k in then and then[k] != now[k]}
    different = [
        f"{key} {one} then, {other} now"
        for key, (one, other) in differing.items()
        if key not in FREE
    ]
    if "epochs" in differing and (
        now["epochs"] < then["epochs"] or now.get("schedule") == "cosine"
    ):
        different.append(f"epochs {then['epochs']} then, {now['epochs']} now")
    for key, words in FIXED.items():
        if key in run.record and key in facts and run.record[key] != facts[key]:
            one, other = (str(part)[:12] for part in (run.record[key], facts[key]))
            different.append(f"{words}: {one} then, {other} now")
    if folds is not None and not different:
        if folds_fingerprint(load_folds(run)) != folds_fingerprint(folds):
            different.append("the split in folds.csv, which other versions of packages may make")
    if different:
        raise UserError(f"{folder} was trained with other settings: {'; '.join(different)}. {WAYS}")
    return run


def begin_run(run: Run, folds: pd.DataFrame) -> None:
    """Write settings.json of a claimed run and, where it starts, folds.csv in a new folder."""
    if run.resumes:
        remove_partials(run.folder)
    else:
        _delete(run.folder)
        run.folder.mkdir(parents=True)
        write_text(run.folder / "folds.csv", folds.to_csv(index=False))
    write_record(run)


def _delete(folder: Path) -> None:
    """Delete a run; settings.json first, so that no remainder passes for a run."""
    (folder / "settings.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
