"""Several runs that predict together: backbones x versions x folds.

Enters: the backbones and versions named in a script's settings. Leaves: their runs, checked to be
of the same folds and data where they are scored together; the folder of what is said of them all.
One run keeps its own folder; all folds of a training have `task1_vgg16_v0/`; an ensemble
`task1_densenet121_v0+vgg16_v0/`. None of these holds a settings.json: they are not runs.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from inference.prediction import assign_nets
from misc_utils.errors import UserError
from misc_utils.files import write_text
from training import run_folder
from training.run_folder import Run

LONGEST_NAME = 120  # of a folder, in letters


@dataclass(frozen=True)
class Ensemble:
    """Trainings that predict together; each is the tuple of its folds' runs."""

    members: tuple[tuple[Run, ...], ...]
    folder: Path
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the weights of each run when they were looked up; all that is written names these,
    see check_unchanged."""

    @property
    def name(self) -> str:
        """Stem of the files of this ensemble."""
        return self.folder.name

    @property
    def runs(self) -> list[Run]:
        """Every run of every member."""
        return [run for member in self.members for run in member]

    @property
    def labels(self) -> list[str]:
        """Each member as `backbone:version`."""
        settings = [member[0].settings for member in self.members]
        return [f"{part['backbone']}:{part['version']}" for part in settings]

    def file(self, ending: str) -> Path:
        """A file about this ensemble: `<name>_<ending>`."""
        return self.folder / f"{self.name}_{ending}"


def find_ensemble(
    model_data: Path,
    task: int,
    backbone: str,
    version: str,
    more: Sequence[str] = (),
    k_fold: int | Literal["all"] = "all",
) -> Ensemble:
    """The runs of a backbone and version, and of `more`, each `backbone:version`.

    With a number as `k_fold` the run of that fold of each, else all folds there are.

    Raises:
        UserError: a run is not there, `more` is written in another way, or one is named twice.
    """
    names = [(backbone, version), *map(parse_label, more)]
    if len(set(names)) < len(names):
        raise UserError("the same backbone and version is named twice; weights count it once.")
    names.sort()
    if k_fold == "all":
        members = [tuple(run_folder.find_runs(model_data, task, *name)) for name in names]
    else:
        members = [(run_folder.find_run(model_data, task, *name, k_fold),) for name in names]
    weights = {run.name: run_folder.weights_hash(run) for member in members for run in member}
    if len(members) == 1 and k_fold != "all":
        return Ensemble(tuple(members), members[0][0].folder, weights)
    fold = "" if k_fold == "all" else f"_k{k_fold}"
    name = f"task{task}_" + "+".join(f"{one}{fold}_v{other}" for one, other in names)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return Ensemble(tuple(members), model_data / name, weights)


def parse_label(text: str) -> tuple[str, str]:
    """`vgg16:0` as backbone and version; UserError for what is written otherwise."""
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"a run is named backbone:version, such as vgg16:0, not {text!r}.")
    return parts[0], parts[1]


def check_alike(ensemble: Ensemble) -> None:
    """Raise UserError, showing both fingerprints, unless all runs share folds and data.

    What one net was trained on another would else have held out. Task 3 nets that see different
    views of the lesions have different pictures; of those the folds alone, which hold ids, lesions
    and labels, must agree.
    """
    first = ensemble.runs[0]
    for run in ensemble.runs[1:]:
        pairs = {
            "folds": [_folds_fingerprint(one) for one in (first, run)],
            "data": [one.record["data_fingerprint"] for one in (first, run)],
            "truth": [one.record.get("truth_fingerprint") for one in (first, run)],
        }
        views = [one.settings.get("lesion_view") for one in (first, run)]
        if views[0] != views[1]:
            del pairs["data"]
        for what, (one, other) in pairs.items():
            if one != other:
                raise UserError(
                    f"{first.name} and {run.name} have different {what}, and cannot be scored "
                    f"together: fingerprint {str(one)[:12]} of the first, {str(other)[:12]} of the "
                    f"second. Train both on the same data with the same --num-folds, --limit and "
                    f"--seed."
                )


def check_unchanged(ensemble: Ensemble, names: Collection[str]) -> None:
    """Raise UserError when the weights of these runs were replaced since they were looked up.

    To be called when nets or kept predictions have been loaded, before anything is made of them.
    """
    for run in ensemble.runs:
        if run.name in names and run_folder.weights_hash(run) != ensemble.weights[run.name]:
            raise UserError(run_folder.changed(run))


def common_folds(ensemble: Ensemble) -> list[int]:
    """Folds that every member has a run of; UserError where there is none."""
    shared = set.intersection(*({run.k_fold for run in member} for member in ensemble.members))
    if not shared:
        raise UserError(f"{' and '.join(ensemble.labels)}: no fold was trained for all of them.")
    return sorted(shared)


def images_to_score(
    ensemble: Ensemble, images: str, image_ids: Sequence[str], limit: int | None = None
) -> dict[int | None, list[str]]:
    """Which images these nets may be scored on.

    Args:
        ensemble: checked to be alike.
        images: `fold`: those held out, of each fold that every member has; or another set.
        image_ids: all images of that set.
        limit: of each part the first N, in sorted order.

    Returns:
        {fold: its held-out images}, or {None: image_ids}.

    Raises:
        UserError: no image is left, or a net was trained on one.
    """
    if images == "fold":
        folds = run_folder.load_folds(ensemble.runs[0])
        parts = {k: run_folder.held_out_images(folds, k) for k in common_folds(ensemble)}
    else:
        parts = {None: sorted(image_ids)}
    if limit is not None and limit < 0:
        raise UserError(f"limit is a number of images, not {limit}.")
    parts = {k: some[:limit] for k, some in parts.items()}
    for run in ensemble.runs:
        some = parts.get(run.k_fold if images == "fold" else None)
        if some is not None:
            run_folder.check_unseen(run_folder.load_folds(run), run.k_fold, some)
    return parts


def missing_folds(ensemble: Ensemble) -> str:
    """Words for what was not trained, such as `; not trained: vgg16:0 folds 3, 4`, or nothing."""
    lines = []
    for label, member in zip(ensemble.labels, ensemble.members, strict=True):
        missing = set(range(run_folder.same(member, "num_folds"))) - {run.k_fold for run in member}
        if missing:
            which = ", ".join(map(str, sorted(missing)))
            lines.append(f"{label} fold{'s' * (len(missing) > 1)} {which}")
    words = f"; not trained: {'; '.join(lines)}" if lines else ""
    unfinished = [run.name for run in ensemble.runs if not run.record["finished"]]
    return words + (f"; training unfinished: {', '.join(unfinished)}" if unfinished else "")


def names_of(ensemble: Ensemble) -> str:
    """The runs that predict, and which folds were not trained."""
    return ", ".join(run.name for run in ensemble.runs) + missing_folds(ensemble)


def assign_runs(
    ensemble: Ensemble, image_ids: Sequence[str], lesions: Mapping[str, str] | None = None
) -> tuple[dict[tuple[str, ...], list[str]], list[str]]:
    """See prediction.assign_nets, by names of runs; left out as well: what a member cannot predict.

    An image that only some of the trainings held out would be predicted by another ensemble.
    """
    trained_on = {run.name: run_folder.trained_on(run) for run in ensemble.runs}
    groups, left_out = assign_nets(image_ids, trained_on, lesions)
    for names in list(groups):
        if not all(any(run.name in names for run in member) for member in ensemble.members):
            left_out = [*left_out, *groups.pop(names)]
    return groups, sorted(left_out)


def weights_of_runs(
    ensemble: Ensemble, names: Sequence[str], weights: Sequence[float]
) -> dict[str, float]:
    """Weight of each run of `names`: its member's, shared evenly among the folds that predict."""
    shares = {}
    for member, weight in zip(ensemble.members, weights, strict=True):
        there = [run.name for run in member if run.name in names]
        shares |= dict.fromkeys(there, weight / len(there))
    return shares


def provenance(settings: dict, ensemble: Ensemble, groups: Mapping[tuple, list[str]]) -> dict:
    """What made a submission: settings, runs with the SHA-256 of their weights, images by nets.

    `groups` is what assign_runs gives. Settings that cannot change the result are left out.
    """
    kept = {k: v for k, v in settings.items() if k not in ("overwrite", "batch_size", "browse")}
    nets = {" ".join(names): ids for names, ids in groups.items()}
    return {
        "settings": json.loads(json.dumps(kept)),
        "weights": dict(ensemble.weights),
        "images_by_nets": nets,
    }


def write_scores(
    ensemble: Ensemble, images: str, settings: dict, scores: dict, table: pd.DataFrame
) -> None:
    """Write `<name>_scores_<set>.json` (settings, scores) and `.csv` (a row per image)."""
    ensemble.folder.mkdir(parents=True, exist_ok=True)
    content = {"weights": dict(ensemble.weights), "images": len(table)}
    text = json.dumps(content | {"settings": settings} | scores, indent=2)
    write_text(ensemble.file(f"scores_{images}.csv"), table.sort_index().to_csv())
    write_text(ensemble.file(f"scores_{images}.json"), text)


def read_scores(ensemble: Ensemble, ending: str) -> tuple[dict, pd.DataFrame]:
    """What write_scores wrote, the rows indexed by image.

    Raises UserError, naming the command, when it is not there or of other weights.
    """
    first = ensemble.runs[0]
    script = "seg_eval.py" if first.record["task"] == 1 else "cls_eval.py"
    (backbone, version), *more = [label.split(":") for label in ensemble.labels]
    folds = [run.k_fold for run in ensemble.runs]
    one = ensemble.folder == first.folder or f"_k{first.k_fold}_" in ensemble.name
    command = f"python3 runs/{script} --backbone {backbone} --version {version} --k-fold "
    command += str(folds[0]) if one else "all"
    command += " --tta" * ending.endswith("_tta")
    command += f" --ensemble {' '.join(map(':'.join, more))}" if more else ""
    json_file, csv_file = (ensemble.file(f"scores_{ending}.{kind}") for kind in ("json", "csv"))
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
        table = pd.read_csv(csv_file, dtype={"image": str}).set_index("image")
        weights = content["weights"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{json_file}: no scores to read ({error!r}). Score it: {command}"
        ) from None
    if weights != ensemble.weights:
        raise UserError(
            f"{json_file}: of other folds or weights than there are now. Score them: {command}"
        )
    return content, table


def _folds_fingerprint(run: Run) -> str:
    return run_folder.folds_fingerprint(run_folder.load_folds(run))
