"""Several runs that predict together: backbones x versions x folds.

Enters: the backbones and versions named in a script's settings. Leaves: their runs, checked to be
of the same folds and data where they are scored together; which images they may be scored on, and
which run may predict which image; the folder of what is said of them all. One run keeps its own
folder; all folds of a training have `task1_vgg16_v0/`; an ensemble
`task1_densenet121_v0+vgg16_v0/`. None of these holds a settings.json: they are not runs.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from datasets import tasks
from datasets.copies import Related
from misc_utils.errors import UserError
from misc_utils.messages import listed
from training import run_folder
from training.run_folder import LONGEST_NAME, Run


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trainings that predict together; each is the tuple of its folds' runs."""

    members: tuple[tuple[Run, ...], ...]
    folder: Path
    name: str = ""  # stem of the files of this ensemble
    k_folds: tuple[int, ...] | None = None  # the folds asked for; None: all
    weight_hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the weights of each run when they were looked up; all that is written names these,
    see check_unchanged."""

    @property
    def task(self) -> int:
        """A key of TASKS."""
        return self.runs[0].task

    @property
    def dataset(self) -> str:
        """Name of the data set that its runs were trained on."""
        return self.runs[0].dataset

    @property
    def classes(self) -> tuple[str, ...]:
        """Of Task 3, in the order of the probabilities."""
        return self.runs[0].classes

    @property
    def runs(self) -> list[Run]:
        """Every run of every member."""
        return [run for member in self.members for run in member]

    @property
    def labels(self) -> list[str]:
        """Each member as `backbone:version`."""
        return [member[0].label for member in self.members]

    @cached_property
    def folds(self) -> dict[str, pd.DataFrame]:
        """The split of each run, read and checked once."""
        return {run.name: run_folder.load_folds(run) for run in self.runs}

    @cached_property
    def lesions(self) -> dict[str, str]:
        """{image id: lesion id} of the images that the first run was trained and held out from.

        Where no lesions are known each image is one, named after it.
        """
        folds = self.folds[self.runs[0].name]
        return dict(zip(folds["image"], folds.get("lesion", folds["image"]), strict=True))

    def file(self, ending: str) -> Path:
        """A file about this ensemble: `<name>_<ending>`."""
        return self.folder / f"{self.name}_{ending}"

    @property
    def flags(self) -> list[str]:
        """The flags that name its trainings on a command line."""
        first, *more = self.labels
        backbone, version = first.split(":")
        flags = [*tasks.flags(self.task, self.dataset)]
        flags += ["--backbone", backbone, "--version", version]
        return flags + (["--ensemble", *more] if more else [])


@dataclass(frozen=True, eq=False)
class ImagesToScore:
    """Images that no run to be scored was trained on."""

    of_fold: dict[int | None, list[str]]  # {fold: its held-out images}, or {None: another set}

    @cached_property
    def fold_of(self) -> dict[str, int | None]:
        """{image id: the fold that held it out}."""
        return {image_id: k for k, image_ids in self.of_fold.items() for image_id in image_ids}

    @property
    def image_ids(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self.fold_of)


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which runs predict which image: only runs that were not trained on it or its lesion."""

    groups: dict[tuple[str, ...], list[str]]  # {names of runs: image ids}
    left_out: list[str]  # images that some member of the ensemble cannot predict
    own_set: bool  # the images are those that the runs were trained and held out from

    @property
    def count(self) -> int:
        """How many images are predicted."""
        return sum(map(len, self.groups.values()))


def find_ensemble(
    model_data: Path,
    task: int,
    backbone: str,
    version: str,
    more: Sequence[str] = (),
    k_fold: int | Sequence[int] | Literal["all"] = "all",
    dataset: str = tasks.DEFAULT,
) -> Ensemble:
    """The runs of a backbone and version, and of `more`, each `backbone:version`.

    With one or several numbers as `k_fold` the runs of these folds of each, else of all there are.

    Raises:
        UserError: a run is not there, `more` is written in another way, or one is named twice.
    """
    names = [(backbone, version), *map(parse_label, more)]
    if len(set(names)) < len(names):
        raise UserError("the same backbone and version is named twice; weights count it once.")
    names.sort()
    k_folds = None
    if k_fold != "all":
        k_folds = (k_fold,) if isinstance(k_fold, int) else tuple(sorted({*k_fold}))
    members = [
        tuple(run_folder.find_runs(model_data, task, *name, k_folds, dataset)) for name in names
    ]
    hashes = {run.name: run_folder.weights_hash(run) for member in members for run in member}
    if len(members) == 1 and k_folds and len(k_folds) == 1:
        run = members[0][0]
        return Ensemble(tuple(members), run.folder, run.name, k_folds, hashes)
    fold = f"_k{'-'.join(map(str, k_folds))}" if k_folds else ""
    name = f"{tasks.prefix(dataset)}task{task}_" + "+".join(
        f"{one}{fold}_v{other}" for one, other in names
    )
    name = shortened(name)
    return Ensemble(tuple(members), model_data / name, name, k_folds, hashes)


def shortened(name: str) -> str:
    """A name of at most LONGEST_NAME characters: a long one ends in a hash of itself."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def parse_label(text: str) -> tuple[str, str]:
    """`vgg16:0` as backbone and version; UserError for what is written otherwise."""
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"a run is named backbone:version, such as vgg16:0, not {text!r}.")
    return parts[0], parts[1]


def check_alike(ensemble: Ensemble) -> None:
    """Raise UserError, showing both fingerprints, unless all runs share folds and data.

    One net could else have been trained on what another held out. Nets that see different views of
    the lesions, other preprocessing or metadata have different data; of those only the folds, which
    hold ids, lesions and labels, must agree.
    """
    folds = {name: run_folder.folds_fingerprint(table) for name, table in ensemble.folds.items()}
    first, *others = ensemble.runs
    for run in others:
        pairs = {
            "folds": (folds[first.name], folds[run.name]),
            "truth": (first.truth_fingerprint, run.truth_fingerprint),
            "classes": (" ".join(first.classes), " ".join(run.classes)),
        }
        if _sees(first) == _sees(run):
            pairs["data"] = first.data_fingerprint, run.data_fingerprint
        for what, (one, other) in pairs.items():
            if one != other:
                raise UserError(
                    f"{first.name} and {run.name} have different {what} and cannot be scored "
                    f"together: fingerprint {str(one)[:12]} of the first, {str(other)[:12]} of the "
                    f"second. Train both on the same data with the same --num-folds, --limit and "
                    f"--seed."
                )


def _sees(run: Run) -> tuple:
    """What a net is shown of an image: nets of other views have other data, of the same images."""
    return run.settings.get("lesion_view"), run.steps, run.sites


def check_unchanged(ensemble: Ensemble, names: Collection[str]) -> None:
    """Raise UserError when the weights of these runs were replaced since they were looked up.

    To be called when nets or kept predictions have been loaded, before anything is made of them.
    """
    for run in ensemble.runs:
        if run.name in names and run_folder.weights_hash(run) != ensemble.weight_hashes[run.name]:
            raise run_folder.weights_changed(run)


def images_to_score(
    ensemble: Ensemble,
    eval_set: str,
    image_ids: Collection[str],
    limited: Callable[[Sequence[str]], Sequence[str]] = list,
    related: Related | None = None,
) -> ImagesToScore:
    """Which images these runs, found to be alike, may be scored on.

    `eval_set` is `fold` (what was held out, of each fold that every member has) or another set, of
    which `image_ids` are there; `limited` takes the ids of one part and gives those to score; no
    net may know an image that is `related` to one of them, see run_folder.check_unseen. Raises
    UserError: no fold is shared, an image is missing or known, or none is left.
    """
    parts: dict[int | None, list[str]] = {None: sorted(image_ids)}
    if eval_set == "fold":
        folds = ensemble.folds[ensemble.runs[0].name]
        shared = set.intersection(*({run.k_fold for run in member} for member in ensemble.members))
        if not shared:
            raise UserError(f"{' and '.join(ensemble.labels)}: no fold was trained for all.")
        parts = {k: run_folder.held_out_images(folds, k) for k in sorted(shared)}
    missing = sorted({i for part in parts.values() for i in part} - set(image_ids))
    if missing:
        raise UserError(
            f"data/ lacks {listed(missing)}, which the runs held out. Put the images back that "
            f"they were trained with."
        )
    parts = {k: list(limited(part)) for k, part in parts.items()}
    for run in ensemble.runs:
        part = parts.get(run.k_fold if eval_set == "fold" else None)
        if part is not None:
            run_folder.check_unseen(ensemble.folds[run.name], run.k_fold, part, related)
    return ImagesToScore(parts)


def missing_folds(ensemble: Ensemble) -> str:
    """Words for what was not trained, such as `; not trained: vgg16:0 folds 3, 4`, or nothing."""
    lines = []
    for label, member in zip(ensemble.labels, ensemble.members, strict=True):
        num_folds = run_folder.shared_setting(member, "num_folds")
        missing = set(range(num_folds)) - {run.k_fold for run in member}
        if missing:
            which = ", ".join(map(str, sorted(missing)))
            lines.append(f"{label} fold{'s' * (len(missing) > 1)} {which}")
    words = f"; not trained: {'; '.join(lines)}" if lines else ""
    unfinished = [run.name for run in ensemble.runs if not run.finished]
    return words + (f"; training unfinished: {', '.join(unfinished)}" if unfinished else "")


def described(ensemble: Ensemble, assignment: Assignment) -> str:
    """The runs that predict, which folds were not trained, and how many images are left out."""
    lines = ["predicting with " + ", ".join(run.name for run in ensemble.runs)]
    lines[0] += missing_folds(ensemble)
    if assignment.left_out:
        what = "them or their lesions" if ensemble.task == 3 else "them"
        lines.append(
            f"left out, as every run was trained on {what}: {len(assignment.left_out)} images"
        )
    return "\n".join(lines)


def assign_runs(
    ensemble: Ensemble,
    image_ids: Sequence[str],
    own_set: bool = False,
    related: Related | None = None,
) -> Assignment:
    """Which runs may predict which image: those trained on none of the images related to it.

    Left out is also an image that some member cannot predict: another ensemble would predict it.
    `own_set`: the images are those that the runs were trained and held out from (checked by the
    caller); `related` as in images_to_score. Raises UserError when no image is left.
    """
    related = related or {}
    seen = {
        run.name: {*run_folder.training_images(ensemble.folds[run.name], run.k_fold)}
        for run in ensemble.runs
    }
    members = [{run.name for run in member} for member in ensemble.members]
    groups: dict[tuple[str, ...], list[str]] = {}
    left_out = []
    for image_id in image_ids:
        known = related.get(image_id, {image_id})
        names = tuple(name for name, trained in seen.items() if trained.isdisjoint(known))
        if all(member.intersection(names) for member in members):
            groups.setdefault(names, []).append(image_id)
        else:
            left_out.append(image_id)
    if not groups:
        raise UserError(
            f"no image is left to predict: every run was trained on each of the {len(left_out)} "
            f"images, or on another of its lesion. Train more folds, raise --limit, or choose "
            f"another --pred-set."
        )
    return Assignment(groups, sorted(left_out), own_set)


def weights_of_runs(
    ensemble: Ensemble, names: Sequence[str], weights: Sequence[float]
) -> dict[str, float]:
    """Weight of each run of `names`: its member's, shared evenly among the folds that predict."""
    shares = {}
    for member, weight in zip(ensemble.members, weights, strict=True):
        predicting = [run.name for run in member if run.name in names]
        shares |= {name: weight / len(predicting) for name in predicting}
    return shares


def provenance(settings: dict, ensemble: Ensemble, assignment: Assignment) -> dict:
    """What decides the content of a prediction, as JSON takes it."""
    free = {"overwrite", "batch_size", "browse"}
    if ensemble.dataset == tasks.DEFAULT:
        free.add("dataset")  # as earlier code has it
    kept = {k: v for k, v in settings.items() if k not in free}
    return {
        "settings": json.loads(json.dumps(kept)),
        "weights": dict(ensemble.weight_hashes),
        "images_by_nets": {" ".join(names): ids for names, ids in assignment.groups.items()},
    }
