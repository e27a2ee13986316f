"""Logits that were predicted once, kept with their run: scored, tuned on and averaged afterwards.

Enters: a run, the logits that its net gives for the images of a set. Leaves:
`<run>_logits_<set>.npy`, float16 (N, S, S, C) of masks or float32 (N, C) of classes, memory-mapped,
and beside it a JSON file with the ids of the rows and what they depend on. The set `fold` is the
run's held-out images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from datasets.dataset import Inputs
from datasets.tasks import TASKS
from inference.ensemble import Assignment, Ensemble, ImagesToScore, check_unchanged, weights_of_runs
from inference.prediction import Net, load_net, mean_logits, predict_logits
from inference.scope import Scope
from misc_utils.errors import UserError
from misc_utils.files import locked, new_array, partial_file, remove_partials, write_text
from training import run_folder
from training.run_folder import Run

if TYPE_CHECKING:  # it imports Keras
    from training.loop import TrainedFold

FORMAT = 1
HOLDS = {kind: (np.finfo(kind).min, np.finfo(kind).max) for kind in (np.float16, np.float32)}

Logits = dict[str, np.ndarray]  # {image id: (S, S, C) or (C,)}
# image ids -> batches of ids with their logits, as prediction.predict_logits yields them
Predict = Callable[[Sequence[str]], Iterable[tuple[Sequence[str], np.ndarray]]]


@dataclass(frozen=True, eq=False)
class EnsembleLogits:
    """Of each member of an ensemble the logits of its folds."""

    members: Sequence[Sequence[Logits]]

    def blend(self, image_id: str, weights: Sequence[float]) -> np.ndarray:
        """Mean logits of one image, float32 (S, S, C) or (C,), by the `weights` of the members.

        The mean of a member is taken over those of its folds that hold the image (held-out sets:
        one fold does).
        """
        means = []
        for folds in self.members:
            found = [logits[image_id][None] for logits in folds if image_id in logits]
            means.append(mean_logits(found, [1.0] * len(found)))
        return mean_logits(means, weights)[0]

    def stack(self, image_ids: Sequence[str]) -> np.ndarray:
        """Log-probabilities float64 (M, N, C) of M members, N images and C classes."""
        each = [EnsembleLogits([folds]) for folds in self.members]
        rows = [[one.blend(image_id, [1.0]) for image_id in image_ids] for one in each]
        return np.asarray(rows, dtype=np.float64)


def load_logits(
    run: Run, images: str, views: int, needed: Sequence[str], data: str | None = None
) -> Logits | None:
    """What is kept of the set `images` with 1 or 8 views; None where it is no longer true.

    That is: nothing is kept, an image of `needed` is not in it, or weights or images have changed
    since. `data` is the fingerprint of the images; None: that of the images the run was trained
    and held out from.
    """
    array_file, record_file = _files(run, images, views)
    try:
        text = record_file.read_text(encoding="utf-8")
        array = np.load(array_file, mmap_mode="r", allow_pickle=False)
        if text != record_file.read_text(encoding="utf-8"):
            return None  # another process is replacing both
        record = json.loads(text)
        image_ids, made_by = record["image_ids"], record["made_by"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if made_by != _made_by(run, data) or len(image_ids) != len(array):
        return None
    if not set(needed) <= set(image_ids):
        return None
    return dict(zip(image_ids, np.asarray(array), strict=True))


def keep_logits(
    run: Run,
    images: str,
    views: int,
    image_ids: Sequence[str],
    predict: Predict,
    data: str | None = None,
) -> Logits:
    """Predict the images, keep their logits in the run's folder, and return them.

    Arguments as in load_logits; `predict` is asked for `image_ids`. UserError when the weights were
    replaced meanwhile.
    """
    array_file, record_file = _files(run, images, views)
    waiting = f"{run.name}: waiting for another process that is predicting the same"
    with locked(run.folder.parent, array_file.stem, wait=waiting):
        kept = load_logits(run, images, views, image_ids, data)
        if kept is not None:
            return kept  # by that process
        made_by = _made_by(run, data)
        remove_partials(run.folder, array_file.name, record_file.name)
        record_file.unlink(missing_ok=True)
        with partial_file(array_file) as partial_array:
            order = _predict_into(partial_array, run, image_ids, predict)
        if made_by != _made_by(run, data):
            raise run_folder.weights_changed(run)
        write_text(record_file, json.dumps({"made_by": made_by, "image_ids": order}))
        kept = load_logits(run, images, views, order, data)
        if kept is None:
            raise run_folder.weights_changed(run)
        return kept


def keep_held_out(fold: TrainedFold, inputs: Inputs, batch_size: int) -> None:
    """Keep the logits that the net of a fold just trained gives the images it held out."""
    nets = [Net(fold.logits_model, inputs.images, metadata=inputs.metadata)]
    predict = partial(predict_logits, nets, batch_size=batch_size, views=1)
    keep_logits(fold.run, "fold", 1, fold.held_out, predict)


def _predict_into(file: Path, run: Run, image_ids: Sequence[str], predict: Predict) -> list[str]:
    """Write the logits of the images into a new `.npy`; the ids in order of its rows."""
    kind = np.float16 if TASKS[run.task].kind == "masks" else np.float32
    array, order = None, []
    with tqdm(total=len(image_ids), desc=f"{run.name}: predict", unit="image") as progress:
        for batch_ids, logits in predict(image_ids):
            if array is None:
                array = new_array(file, kind, (len(image_ids), *logits.shape[1:]))
            # beyond what float16 holds a logit says no more, while infinity spoils every mean
            array[len(order) : len(order) + len(batch_ids)] = np.clip(logits, *HOLDS[kind])
            order += batch_ids
            progress.update(len(batch_ids))
    array.flush()
    return order


def gather_logits(
    scope: Scope, to_score: ImagesToScore, inputs: Mapping[str, Inputs] | None, batch_size: int = 1
) -> EnsembleLogits:
    """The logits of the images to score, of each fold of each member: read, or predicted and kept.

    Of `fold` each run gives what it held out. `inputs` are {name of a run: what it takes};
    without them, what is not kept is a UserError that names the command to make it. UserError also
    when weights were replaced meanwhile.
    """

    def predict_with(run: Run) -> Predict:
        return lambda image_ids: predict_logits(
            [load_net(run, inputs[run.name])], image_ids, batch_size, scope.views
        )

    members: list[list[Logits]] = []
    for member in scope.ensemble.members:
        members.append([])
        for run in member:
            image_ids = to_score.of_fold.get(run.k_fold if scope.held_out else None)
            if image_ids is None:
                continue  # a fold that other members lack
            data = None if scope.held_out else inputs[run.name].fingerprint
            key = run, scope.eval_set, scope.views, image_ids
            kept = load_logits(*key, data)
            if kept is None and inputs is None:
                raise UserError(
                    f"{run.folder}: the held-out predictions of these weights are missing. Make "
                    f"them: {scope.command('eval')}"
                )
            if kept is None:
                kept = keep_logits(*key, predict_with(run), data)
            members[-1].append(kept)
    check_unchanged(scope.ensemble, scope.ensemble.weight_hashes)
    return EnsembleLogits(members)


def stream_logits(
    scope: Scope,
    assignment: Assignment,
    weights: Sequence[float],
    inputs: Mapping[str, Inputs],
    batch_size: int,
    done: Collection[str] = (),
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blended logits of images, batch by batch, each by the runs that may predict it.

    Of the runs' own set, what a run held out is read from what is kept, and kept if it was not.
    `weights` are those of the members; `inputs` {name of a run: what it takes}, of which nets
    are loaded only if they must predict; `done` images are not wanted, see predict_logits.
    """
    ensemble, views = scope.ensemble, scope.views
    runs = {run.name: run for run in ensemble.runs}

    @cache
    def net_of(name: str) -> Net:
        return load_net(runs[name], inputs[name])

    def held_out_logits(name: str, image_ids: Sequence[str]) -> Logits:
        def predict(wanted: Sequence[str]) -> Iterator:
            net = net_of(name)  # perhaps loaded a while ago
            check_unchanged(ensemble, [name])
            return predict_logits([net], wanted, batch_size, views)

        key = runs[name], "fold", views, image_ids
        kept = load_logits(*key)
        return keep_logits(*key, predict) if kept is None else kept

    for names, image_ids in assignment.groups.items():
        shares = weights_of_runs(ensemble, names, weights)
        by_all = _held_out_by_all(ensemble, names) if assignment.own_set else set()
        stored = [image_id for image_id in image_ids if image_id in by_all]
        fresh = [image_id for image_id in image_ids if image_id not in by_all]
        wanted = [image_id for image_id in stored if image_id not in done]
        if wanted:
            kept = EnsembleLogits([[held_out_logits(name, stored)] for name in names])
            check_unchanged(ensemble, names)
            for start in range(0, len(wanted), batch_size):
                batch_ids = wanted[start : start + batch_size]
                logits = [kept.blend(i, [shares[name] for name in names]) for i in batch_ids]
                yield batch_ids, np.stack(logits)
        if set(fresh) - set(done):
            nets = [replace(net_of(name), weight=shares[name]) for name in names]
            check_unchanged(ensemble, names)
            yield from predict_logits(nets, fresh, batch_size, views, done)


def _held_out_by_all(ensemble: Ensemble, names: Sequence[str]) -> set[str]:
    """Images that every run of `names` held out."""
    held_out = (
        set(run_folder.held_out_images(ensemble.folds[run.name], run.k_fold))
        for run in ensemble.runs
        if run.name in names
    )
    return set.intersection(*held_out)


def _made_by(run: Run, data: str | None) -> dict:
    data = run.data_fingerprint if data is None else data
    return {"format": FORMAT, "weights": run_folder.weights_hash(run), "data": data}


def _files(run: Run, images: str, views: int) -> tuple[Path, Path]:
    ending = f"logits_{images}{'_tta' if views == 8 else ''}"
    return run.file(f"{ending}.npy"), run.file(f"{ending}.json")
