"""The only owner of model_data/: one folder per training run.

Enters: settings, folds and scores of a run. Leaves: `task1_densenet169_k0_v0/` with
`<name>.weights.h5`, `<name>.csv` (a row per epoch), `settings.json`, `folds.csv`, scores, figures,
and `<name>_state.npz`, from which training goes on. Runs are found by reading settings.json, never
by parsing a folder's name.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from misc_utils.errors import UserError
from misc_utils.files import write_text

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Run:
    """One training and its folder."""

    folder: Path
    record: dict  # content of settings.json
    resumes: bool = False  # its state is there: training goes on from it

    @property
    def name(self) -> str:
        """Stem of the run's files."""
        return self.folder.name

    @property
    def k_fold(self) -> int:
        """The fold held out."""
        return self.record["k_fold"]

    @property
    def settings(self) -> dict:
        """The training script's settings, as they were in force."""
        return self.record["settings"]

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
        """All that training needs to go on after its last whole epoch, see training_state."""
        return self.file("state.npz")

    def file(self, ending: str) -> Path:
        """Another file of this run: `<name>_<ending>`."""
        return self.folder / f"{self.name}_{ending}"


def run_name(task: int, backbone: str, k_fold: int | str, version: str) -> str:
    """Name of a run's folder; UserError when `version` has other signs than letters, digits, -."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", version):
        raise UserError(f"version is made of letters, digits and -, not {version!r}.")
    return f"task{task}_{backbone}_k{k_fold}_v{version}"


def finish_run(run: Run, facts: dict) -> Run:
    """Mark the run as trained to its end, and store `facts` (best epoch, seconds) with it."""
    run = replace(run, record=run.record | {"finished": True} | facts)
    write_record(run)
    return run


def write_record(run: Run) -> None:
    """Write settings.json."""
    write_text(run.folder / "settings.json", json.dumps(run.record, indent=2))


def list_runs(model_data: Path, task: int) -> list[Run]:
    """All runs of a task, in order of backbone, version and fold; UserError for a broken one."""
    files = sorted(model_data.glob("*/settings.json"))
    runs = [(key, run) for key, run in map(read_run, files) if run.record["task"] == task]
    return [run for _, run in sorted(runs, key=lambda pair: pair[0])]


def read_run(file: Path) -> tuple[tuple[str, str, int], Run]:
    """Backbone, version and fold of a run, to sort by, and the run; UserError for a broken one."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        key = (record["settings"]["backbone"], record["settings"]["version"], record["k_fold"])
        missing = {"num_folds", "image_size"} - record["settings"].keys()
        missing |= {"data_fingerprint"} - record.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, expected {FORMAT}")
        if not isinstance(record["finished"], bool) or record["task"] not in (1, 3):
            raise ValueError("task is not 1 or 3, or finished not true or false")
        return key, Run(file.parent, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: cannot be read as the settings of a run ({error}). Restore it, or move "
            f"its folder away."
        ) from None


def find_runs(model_data: Path, task: int, backbone: str, version: str) -> list[Run]:
    """The runs of all folds trained with this backbone and version, in order of the fold.

    Raises UserError, listing the runs there are, when there is none with weights.
    """
    runs = list_runs(model_data, task)
    found = [
        run
        for run in runs
        if (run.settings["backbone"], run.settings["version"]) == (backbone, version)
        and run.weights.exists()
    ]
    if not found:
        raise UserError(_no_run(model_data, task, f"{backbone}, version {version}", runs))
    return found


def find_run(model_data: Path, task: int, backbone: str, version: str, k_fold: int) -> Run:
    """The run that held out fold `k_fold`; UserError, listing the runs there are, without one."""
    runs = list_runs(model_data, task)
    for run in runs:
        wanted = (backbone, version, k_fold)
        if (run.settings["backbone"], run.settings["version"], run.k_fold) == wanted:
            if run.weights.exists():
                return run
            raise UserError(f"{run.folder}: no weights yet; training has not finished an epoch.")
    what = f"{backbone}, version {version}, fold {k_fold}"
    raise UserError(_no_run(model_data, task, what, runs))


def same(runs: list[Run], key: str):
    """The setting `key`, which all `runs` must share; UserError naming the runs that differ."""
    values = {run.name: run.settings[key] for run in runs}
    if len(set(map(str, values.values()))) > 1:
        pairs = ", ".join(f"{name}: {value}" for name, value in values.items())
        raise UserError(f"these runs differ in {key} and cannot predict together ({pairs}).")
    return runs[0].settings[key]


def _no_run(model_data: Path, task: int, what: str, runs: list[Run]) -> str:
    script = "runs/seg_train.py" if task == 1 else "runs/cls_train.py"
    there = "".join(f"\n  {run.name}" for run in runs) or " none"
    return (
        f"{model_data} holds no trained run of task {task} with {what}. Runs there are:{there}\n"
        f"Train it with `python3 {script}`, or name one of those by --backbone and --version."
    )


def load_folds(run: Run) -> pd.DataFrame:
    """The split of a run, one row per image; checked: no image twice, no lesion in two folds."""
    file = run.folder / "folds.csv"
    try:
        folds = pd.read_csv(file, dtype={"image": str, "lesion": str}, keep_default_na=False)
        if run.record.get("folds_fingerprint") not in (None, folds_fingerprint(folds)):
            raise ValueError("not the split that settings.json was written with")
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


def trained_on(run: Run) -> set[str]:
    """Ids of the images, and where known of the lesions, that the run's net was trained on."""
    folds = load_folds(run)
    part = folds.loc[folds["fold"] != run.k_fold]
    return set(part["image"]) | set(part.get("lesion", ()))


def weights_hash(run: Run) -> str:
    """SHA-256 of the run's weight file; UserError when a training has just deleted it."""
    try:
        with run.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(changed(run)) from None


def changed(run: Run) -> str:
    """Words for a run whose weights were replaced while something was made with them."""
    return (
        f"{run.weights} changed in the meantime: a training is under way. Wait for its end, and "
        f"start the same command again."
    )


def folds_fingerprint(folds: pd.DataFrame) -> str:
    """SHA-256 of a split: equal where the same images (lesions, labels) are in the same folds."""
    table = folds.sort_values("image")[sorted(folds.columns)]
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def check_unseen(folds: pd.DataFrame, k_fold: int, image_ids: list[str]) -> None:
    """Raise UserError without images to score, or when the net of fold `k_fold` trained on one."""
    if not image_ids:
        raise UserError("there is no image to score; --limit must leave some.")
    seen = sorted(set(image_ids) & set(training_images(folds, k_fold)))
    if seen:
        raise UserError(
            f"the net of fold {k_fold} trained on {len(seen)} of the images to score, such as "
            f"{seen[0]}. Take them out of the set."
        )


def check_same_data(run: Run, fingerprint: str) -> None:
    """Raise UserError when the images are not those the run was trained with."""
    if run.record["data_fingerprint"] != fingerprint:
        raise UserError(
            f"{run.name} was trained on other images than those in data/ (or other crops of them): "
            f"fingerprint {run.record['data_fingerprint'][:12]} then, {fingerprint[:12]} now. Put "
            f"the former ones back, or train a new --version."
        )


def check_same_crops(runs: list[Run], maker: str | None) -> None:
    """Raise UserError when crops were made by another segmentation than those trained with."""
    for run in runs:
        if run.record["crops_maker"] != maker:
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
