"""Which run a training may begin or resume, claimed so that no other process takes it.

Enters: the settings of a script, the split, facts about data and machine. Leaves: a run folder with
settings.json and folds.csv; or a refusal that names what differs from an earlier training.
"""

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from datasets.tasks import DEFAULT
from misc_utils.errors import UserError
from misc_utils.files import InUseError, locked, remove_partials, write_text
from models.backbones import names_file, weights_in_force
from training import run_folder
from training.run_folder import Run, folds_fingerprint, list_runs, run_name

log = logging.getLogger(__name__)

# These settings shape neither net nor data nor optimisation; epochs are compared on their own.
# Where images lie is none of it either: what they show is, see FIXED.
FREE = ("folds", "workers", "overwrite", "wait", "epochs", "own", "log_to", "devices")
# What settings that earlier code did not have were, in effect
ADDED = {
    "dataset": DEFAULT,
    "preprocess": [],
    "metadata": False,
    "patience": None,
    "split_seed": None,
    "weight_decay": 0.0,
    "average_weights": 0.0,
    "label_smoothing": 0.0,
    "mix": "none",
    "sampling": "ones",
    "freeze": False,
    "decoder_filters": 32,
}
# What else must be the same to resume: key of settings.json -> its name in a message
FIXED = {
    "data_fingerprint": "the images in data/ (or their crops)",
    "truth_fingerprint": "the masks in data/",
    "classes": "the classes",
    "crops_maker": "what made the crops",
    "precision": "the precision",
    "weights_sha256": "the file that --weights names",
    "backend": "the backend of Keras",
}
WAYS = "Choose another --version, or --overwrite to delete it and train from scratch."


Stamp = tuple[int, int] | None  # tells one settings.json from another in its place


def check_settings(
    model_data: Path, task: int, settings: dict, k_folds: Sequence[int], overwrite: bool
) -> None:
    """Raise UserError, before any work, if earlier trainings had other settings.

    Looked at are these folds (unless they are overwritten) and the other folds of the same backbone
    and version. Also UserError where the file to start from is to be overwritten.
    """
    start = settings.get("weights", "none")
    if overwrite and names_file(start):
        folders = [folder_of(model_data, task, settings, k).resolve() for k in k_folds]
        if Path(start).parent in folders:
            raise UserError(
                f"--overwrite would delete {start}, which --weights is to start from. "
                f"Choose another --version."
            )
    for k_fold in () if overwrite else k_folds:
        _find_same(folder_of(model_data, task, settings, k_fold), settings)
    _check_other_folds(model_data, task, settings, k_folds)


def stamp_runs(
    model_data: Path, task: int, settings: dict, k_folds: Sequence[int]
) -> dict[int, Stamp]:
    """{fold: which run is there now}, for --overwrite to delete these runs and no later ones.

    A run that another process begins from here on has another stamp: the same command on several
    nodes must not delete what they trained.
    """
    return {k: _stamp(folder_of(model_data, task, settings, k)) for k in k_folds}


def folder_of(model_data: Path, task: int, settings: Mapping, k_fold: int) -> Path:
    """The folder of a run, which may have been renamed, or the one it is to have."""
    name = _name(task, settings, k_fold)
    if not (model_data / name).exists():
        for run in list_runs(model_data, task, _dataset(settings)):
            if run.name == name:
                return run.folder
    return model_data / name


def _name(task: int, settings: Mapping, k_fold: int) -> str:
    return run_name(task, settings["backbone"], k_fold, settings["version"], _dataset(settings))


def _dataset(settings: Mapping) -> str:
    return settings.get("dataset", DEFAULT)


def _check_other_folds(model_data: Path, task: int, settings: dict, but: Collection[int]) -> None:
    """Raise UserError if folds of the same version, `but` these, were trained otherwise."""
    for run in list_runs(model_data, task, _dataset(settings)):
        named = (run.backbone, run.version) == (settings["backbone"], settings["version"])
        if not named or run.k_fold in but or not _holds_an_epoch(run):
            continue
        then = run.settings.get("weights", "none")
        files = names_file(then) and names_file(settings.get("weights", "none"))
        now = settings | {"weights": then} if files else settings  # each fold has a file of its own
        if different := _different(run.settings, now):
            raise UserError(
                f"{run.folder}, another fold of the same version, was trained with other settings: "
                f"{'; '.join(different)}. Folds of one version are scored and predict together. "
                f"Choose another --version, train all its folds from scratch with --overwrite, or "
                f"delete that folder."
            )


def _holds_an_epoch(run: Run) -> bool:
    return run.weights.exists() or run.state.exists()


def _stamp(folder: Path) -> Stamp:
    try:
        status = (folder / "settings.json").stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextmanager
def claim_run(
    model_data: Path,
    task: int,
    k_fold: int,
    settings: dict,
    folds: pd.DataFrame,
    facts: dict,
    replaced: Mapping[int, Stamp] = {},
) -> Iterator[Run | None]:
    """The run to train, while no other process may; nothing is written before begin_run.

    None, and a line in the log that says why, where there is nothing to do: the run is finished, or
    another process trains it. With the setting `wait` that process is waited for instead, and the
    run is then found finished, or resumes.

    `folds` has a row per image, see datasets.folds; `facts` are what else settings.json is to hold
    (versions, device, fingerprint of the data ...); `replaced` are runs to delete unread, from
    stamp_runs. Raises UserError naming what differs when such a run was trained otherwise, or that
    it cannot resume, or when a fold is empty; ValueError when a lesion or image is in two folds.
    """
    run_folder.check_folds(folds, k_fold)
    record = {"format": run_folder.FORMAT, "task": task, "k_fold": k_fold, "finished": False}
    record |= {"settings": settings, "folds_fingerprint": folds_fingerprint(folds)} | facts
    name = _name(task, settings, k_fold)
    folder = folder_of(model_data, task, settings, k_fold)
    waiting = f"{name}: another process is training it; waiting for its end"
    try:
        with locked(model_data, name, wait=waiting if settings.get("wait") else ""):
            as_then = {
                k
                for k, stamp in replaced.items()
                if stamp == _stamp(folder_of(model_data, task, settings, k))
            }
            _check_other_folds(model_data, task, settings, {k_fold, *as_then})
            found = None if k_fold in as_then else _find_same(folder, settings, facts, folds)
            if found is None:
                yield Run(folder, record)
            elif found.finished and settings["epochs"] == found.settings["epochs"]:
                if found.settings.get("own") != settings.get("own"):  # the folder has moved
                    moved = found.settings | {"own": settings.get("own")}
                    run_folder.write_record(
                        replace(found, record=found.record | {"settings": moved})
                    )
                log.info("%s: finished already, nothing to do", name)
                yield None
            else:
                yield _resumed(found, record)
    except InUseError:
        log.info("%s: skipped, another process is training it", name)
        yield None


def _resumed(found: Run, record: dict) -> Run:
    """The run with its new record: the facts of its start, and what has changed since."""
    if not found.state.exists():
        raise UserError(
            f"{found.folder}: {found.state.name} is missing, without which training cannot "
            f"resume. {WAYS}"
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
    file = folder / "settings.json"
    if not file.exists():
        if any(folder.glob("*.weights.h5")) or any(folder.glob("*_state.npz")):
            raise UserError(f"{folder} holds a trained net, but no settings.json. {WAYS}")
        return None
    run = run_folder.read_run(file)
    if not _holds_an_epoch(run):
        return None
    different = _different(run.settings, settings)
    before, after = run.settings["epochs"], settings["epochs"]
    if after < before or (after > before and settings.get("schedule") == "cosine"):
        different.append(f"epochs {before} then, {after} now")
    for key, words in FIXED.items():
        if key in run.record and key in facts and run.record[key] != facts[key]:
            one, other = (str(part)[:12] for part in (run.record[key], facts[key]))
            different.append(f"{words}: {one} then, {other} now")
    if folds is not None and not different:
        if folds_fingerprint(run_folder.load_folds(run)) != folds_fingerprint(folds):
            different.append("the split in folds.csv, which other versions of packages may make")
    if different:
        raise UserError(f"{folder} was trained with other settings: {'; '.join(different)}. {WAYS}")
    return run


def _different(then: Mapping, now: Mapping) -> list[str]:
    """What of two trainings' settings differs, FREE ones aside; as JSON has them."""
    now, then = json.loads(json.dumps(now)), {**ADDED, **then}
    # earlier code stored what was asked for, although there was nothing but random values
    if "weights" in then:
        then = {**then, "weights": weights_in_force(then["backbone"], then["weights"])}
    return [
        f"{key} {then[key]} then, {now[key]} now"
        for key in now
        if key in then and key not in FREE and then[key] != now[key]
    ]


def begin_run(run: Run, folds: pd.DataFrame) -> None:
    """Write settings.json of a claimed run and, where it starts, folds.csv in a new folder."""
    if run.resumes:
        ours = (run.weights, run.state, run.history, run.file("history.png"))
        ours = (*ours, run.folder / "settings.json")
        remove_partials(run.folder, *(file.name for file in ours))
    else:
        # settings.json first, so that what is left after a kill does not pass for a run
        (run.folder / "settings.json").unlink(missing_ok=True)
        if run.folder.exists():
            shutil.rmtree(run.folder)
        run.folder.mkdir(parents=True)
        write_text(run.folder / "folds.csv", folds.to_csv(index=False))
    run_folder.write_record(run)
