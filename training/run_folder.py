"""The only owner of model_data/: one folder per training run.

Enters: settings, folds and scores of a run. Leaves: `task1_densenet169_k0_v0/` with
`<name>.weights.h5`, `<name>.csv` (a row per epoch), `settings.json`, `folds.csv`, scores, figures,
and `<name>_state.npz`, from which training resumes. Runs are found by reading settings.json, never
by a folder's name: a folder may be renamed.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd

from datasets.challenge import CLASSES
from datasets.copies import Related
from datasets.tasks import DEFAULT, TASKS, flags, prefix, script
from misc_utils.errors import UserError
from misc_utils.files import sha256, write_text
from misc_utils.messages import command

FORMAT = 1
LONGEST_NAME = 120  # of a run's or ensemble's folder, in characters; its files' names are longer


def _stored(key: str, *, of_settings: bool = False) -> property:
    """An entry of settings.json, or of the `settings` in it; None where it is missing."""
    return property(lambda run: (run.settings if of_settings else run.record).get(key))


@dataclass(frozen=True, eq=False)
class Run:
    """One training and its folder."""

    folder: Path
    record: dict  # content of settings.json; other packages use what follows
    resumes: bool = False  # its state is there: training resumes from it

    task = _stored("task")  # a key of TASKS
    k_fold = _stored("k_fold")  # the fold held out
    finished = _stored("finished")  # trained to its end
    data_fingerprint = _stored("data_fingerprint")  # of the images or crops
    truth_fingerprint = _stored("truth_fingerprint")  # of the masks; None for classes
    crops_maker = _stored("crops_maker")  # what made the crops; None where it saw none
    crops_cut = _stored("crops_cut")  # see Crops.cut; None where it saw none, or it is not recorded
    settings = _stored("settings")  # of the training script, as they were in force
    backbone = _stored("backbone", of_settings=True)
    version = _stored("version", of_settings=True)
    image_size = _stored("image_size", of_settings=True)  # in pixels

    @property
    def dataset(self) -> str:
        """Name of the data set; earlier runs, which do not say it, had one."""
        return self.settings.get("dataset", DEFAULT)

    @property
    def classes(self) -> tuple[str, ...]:
        """Of Task 3, in the order of the net's outputs; earlier runs, which do not say, had 7."""
        return tuple(self.record.get("classes", CLASSES if self.task == 3 else ()))

    @property
    def group(self) -> str:
        """What the column `lesion` of its split holds: of one `lesion`, or one `patient`."""
        return self.record.get("group", "lesion")

    @property
    def sites(self) -> tuple[str, ...] | None:
        """Body sites that the net knows; None where it takes no metadata."""
        return tuple(self.record["sites"]) if self.settings.get("metadata") else None

    @property
    def steps(self) -> tuple[str, ...]:
        """Of preprocessing, rows of PREPROCESSING."""
        return tuple(self.settings.get("preprocess", ()))

    @property
    def process(self) -> dict:
        """Which process trained it last, see environment.process; {} where earlier code did."""
        changes = [part["process"] for part in self.record.get("resumed", ()) if "process" in part]
        return changes[-1] if changes else self.record.get("process", {})

    @property
    def name(self) -> str:
        """Stem of the run's files, whatever its folder is called."""
        return run_name(self.task, self.backbone, self.k_fold, self.version, self.dataset)

    @property
    def label(self) -> str:
        """What all folds of one training share: `backbone:version`."""
        return f"{self.backbone}:{self.version}"

    @property
    def made_with(self) -> dict:
        """Versions of packages, backend, device and commit of the code."""
        where = {key: self.record.get(key) for key in ("backend", "device", "git_commit")}
        return self.record.get("versions", {}) | where

    @property
    def weights(self) -> Path:
        """Best weights by the monitored measure."""
        return self.folder / f"{self.name}.weights.h5"

    @property
    def history(self) -> Path:
        """Table with a row per epoch."""
        return self.folder / f"{self.name}.csv"

    @property
    def state(self) -> Path:
        """All that training needs to resume after its last whole epoch, see state.py."""
        return self.file("state.npz")

    def file(self, ending: str) -> Path:
        """Another file of this run: `<name>_<ending>`."""
        return self.folder / f"{self.name}_{ending}"


def run_name(
    task: int, backbone: str, k_fold: int | str, version: str, dataset: str = DEFAULT
) -> str:
    """Name of a run's folder; UserError for a version that no folder can be named after."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", version):
        raise UserError(f"--version may have letters, digits and - only, not {version!r}.")
    name = f"{prefix(dataset)}task{task}_{backbone}_k{k_fold}_v{version}"
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"--version {version[:20]}... has {len(version)} characters, which makes the name of a "
            f"run longer than {LONGEST_NAME}. Choose a shorter one."
        )
    return name


def finish_run(run: Run, facts: dict) -> Run:
    """Mark the run as trained to its end, and store `facts` (best epoch, seconds) with it."""
    run = replace(run, record=run.record | {"finished": True} | facts)
    write_record(run)
    return run


def write_record(run: Run) -> None:
    """Write settings.json."""
    write_text(run.folder / "settings.json", json.dumps(run.record, indent=2))


def list_runs(model_data: Path, task: int, dataset: str = DEFAULT) -> list[Run]:
    """All runs of a task and data set, in order of backbone, version and fold.

    Raises UserError for a broken one, of whatever task.
    """
    runs = []
    for file in model_data.glob("*/settings.json"):
        try:
            run = read_run(file)
        except UserError:
            if file.exists():
                raise
            continue  # another process is deleting the run
        if (run.task, run.dataset) == (task, dataset):
            runs.append(run)
    return sorted(runs, key=lambda run: (run.backbone, run.version, run.k_fold, run.folder))


def read_run(file: Path) -> Run:
    """The run of a settings.json; UserError for a broken one."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        settings = record["settings"]
        missing = {"backbone", "version", "num_folds", "image_size"} - settings.keys()
        missing |= {"data_fingerprint", "k_fold"} - record.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, expected {FORMAT}")
        if not isinstance(record["finished"], bool) or record["task"] not in TASKS:
            raise ValueError("task is not 1, 2 or 3, or finished is not true or false")
        return Run(file.parent, record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: cannot be read as the settings of a run ({error}). Restore it, or move "
            f"its folder away."
        ) from None


def find_runs(
    model_data: Path,
    task: int,
    backbone: str,
    version: str,
    k_folds: Sequence[int] | None = None,
    dataset: str = DEFAULT,
) -> list[Run]:
    """The runs of a backbone and version that have weights, in order of the fold.

    `k_folds` None: all there are. Raises UserError, listing the runs there are, when one of the
    folds (or every one) is missing or has no weights yet, or two folders hold the same run.
    """
    runs, named = list_runs(model_data, task, dataset), {}
    for run in runs:
        if (run.backbone, run.version) == (backbone, version):
            if run.k_fold in named:
                raise UserError(
                    f"{named[run.k_fold].folder} and {run.folder} both hold the run {run.name}. "
                    f"Move one of them out of {model_data}."
                )
            named[run.k_fold] = run
    trained = {k: run for k, run in named.items() if run.weights.exists()}
    what = f"{backbone}, version {version}"
    if k_folds is None and not trained:
        raise UserError(_no_run(model_data, task, dataset, what, runs))
    for k in k_folds or ():
        if k in trained:
            continue
        if k in named:
            raise UserError(f"{named[k].folder}: no weights yet; no epoch of it has finished.")
        raise UserError(_no_run(model_data, task, dataset, f"{what}, fold {k}", runs))
    return [trained[k] for k in sorted(trained if k_folds is None else set(k_folds))]


def segmenter_flags(model_data: Path, limit: int | None, dataset: str = DEFAULT) -> list[str]:
    """Flags for seg_predict.py: a segmentation that has been trained, if any, and the limit."""
    trained = [run for run in list_runs(model_data, 1, dataset) if run.weights.exists()]
    flags = ["--backbone", trained[0].backbone, "--version", trained[0].version] if trained else []
    return flags + (["--limit", str(limit)] if limit else [])


def shared_setting(runs: Sequence[Run], key: str):
    """The setting `key`, which all `runs` must share; UserError naming the runs that differ."""
    values = {run.name: run.settings[key] for run in runs}
    if len(set(map(str, values.values()))) > 1:
        pairs = ", ".join(f"{name}: {value}" for name, value in values.items())
        raise UserError(f"these runs differ in {key} and cannot predict together ({pairs}).")
    return runs[0].settings[key]


def _no_run(model_data: Path, task: int, dataset: str, what: str, runs: list[Run]) -> str:
    there = "".join(f"\n  {run.name}" for run in runs) or " none"
    on = "" if dataset == DEFAULT else f" on the data set {dataset}"
    return (
        f"{model_data} holds no trained run of task {task}{on} with {what}. Runs there are:"
        f"{there}\n"
        f"Name one of them by --backbone and --version, or train it: "
        f"{command(script(task, 'train'), *flags(task, dataset), '--help')}"
    )


def load_folds(run: Run) -> pd.DataFrame:
    """The split of a run, one row per image; checked: no image twice, no lesion in two folds."""
    file = run.folder / "folds.csv"
    try:
        folds = pd.read_csv(file, dtype={"image": str, "lesion": str}, keep_default_na=False)
        if run.record.get("folds_fingerprint") not in (None, folds_fingerprint(folds)):
            raise ValueError("not the split that the run was trained with")
        check_folds(folds, run.k_fold)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: {error}. Restore the file as training wrote it.") from None
    return folds


def training_images(folds: pd.DataFrame, k_fold: int) -> list[str]:
    """Ids the net of fold `k_fold` is trained on."""
    return folds.loc[folds["fold"] != k_fold, "image"].tolist()


def held_out_images(folds: pd.DataFrame, k_fold: int) -> list[str]:
    """Ids the net of fold `k_fold` never sees in training."""
    return folds.loc[folds["fold"] == k_fold, "image"].tolist()


def weights_hash(run: Run) -> str:
    """SHA-256 of the run's weight file; UserError when a training has just deleted it."""
    try:
        status = run.weights.stat()
        return _hash(run.weights, (status.st_ino, status.st_size, status.st_mtime_ns))
    except FileNotFoundError:
        raise weights_changed(run) from None


@lru_cache(maxsize=1024)
def _hash(file: Path, stamp: tuple[int, int, int]) -> str:
    """SHA-256 of a file. A weight file is replaced by a rename, so a new one has a new stamp."""
    return sha256(file)


def weights_changed(run: Run) -> UserError:
    """The error for weights that were replaced while something was made with them."""
    return UserError(
        f"{run.weights} has changed in the meantime: a training is under way. Wait until it ends, "
        f"then repeat the command."
    )


def folds_fingerprint(folds: pd.DataFrame) -> str:
    """SHA-256 of a split: equal where the same images (lesions, labels) are in the same folds."""
    table = folds.sort_values("image")[sorted(folds.columns)]
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def check_unseen(
    folds: pd.DataFrame, k_fold: int, image_ids: Sequence[str], related: Related | None = None
) -> None:
    """Raise UserError without images to score, or when the net of fold `k_fold` knows one.

    It knows an image when it was trained on one of those `related` to it, see Dataset.find_related;
    None: each is related to itself alone.
    """
    if not image_ids:
        raise UserError("no image to score; raise --limit.")
    trained, related = set(training_images(folds, k_fold)), related or {}
    seen = [i for i in sorted(image_ids) if not trained.isdisjoint(related.get(i, {i}))]
    if seen:
        first = seen[0]
        names = sorted(related.get(first, {first}) & trained)
        same = "" if first in names else f" (the same picture, lesion or patient as {names[0]})"
        raise UserError(
            f"the net of fold {k_fold} trained on {len(seen)} of the images to score, such as "
            f"{first}{same}. Take them out of the set; if they are held out, train a new --version "
            f"instead: it keeps what belongs together in one fold."
        )


def check_same_data(run: Run, fingerprint: str) -> None:
    """Raise UserError when the images are not those the run was trained with."""
    if run.data_fingerprint != fingerprint:
        raise UserError(
            f"{run.name} was trained on other images than those in data/ (or other crops, or other "
            f"metadata): "
            f"fingerprint {run.data_fingerprint[:12]} then, {fingerprint[:12]} now. Put the former "
            f"images back, or train a new --version."
        )


def check_same_crops(runs: Sequence[Run], maker: str | None) -> None:
    """Raise UserError when crops were made by another segmentation than those trained with."""
    for run in runs:
        if run.crops_maker != maker:
            raise UserError(
                f"{run.name} was trained on crops made by other nets or settings than these. Make "
                f"them with the same `runs/seg_predict.py` settings, or train a new --version."
            )


def check_folds(folds: pd.DataFrame, k_fold: int) -> None:
    """ValueError unless images are unique, no lesion crosses, and both parts hold images."""
    double = folds.loc[folds["image"].duplicated(), "image"].tolist()
    if double:
        raise ValueError(f"images in two folds: {', '.join(double[:20])}")
    if "lesion" in folds:
        crossing = folds.groupby("lesion")["fold"].nunique()
        crossing = crossing[crossing > 1].index.tolist()
        if crossing:
            raise ValueError(f"lesions in two folds: {', '.join(crossing[:20])}")
    if not held_out_images(folds, k_fold) or not training_images(folds, k_fold):
        raise UserError(
            f"fold {k_fold} leaves {len(training_images(folds, k_fold))} images to train on and "
            f"{len(held_out_images(folds, k_fold))} to hold out; both must have some. Raise "
            f"--limit or change --num-folds."
        )
