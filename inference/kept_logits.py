"""Logits that were predicted once, kept with their run: scored, tuned on and averaged ever after.

Enters: a run, the logits its net gives the images of a set. Leaves: `<run>_logits_<set>.npy`,
float16 (N, S, S, 1) of masks or float32 (N, C) of classes, memory-mapped, and beside it a JSON file
with the ids of the rows and what they depend on. The set `fold` is the run's held-out images.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inference.ensemble import Ensemble, check_unchanged, weights_of_runs
from inference.prediction import Net, mean_logits, predict_logits
from misc_utils.errors import UserError
from misc_utils.files import locked, new_array, partial_file, remove_partials, write_text
from training import run_folder
from training.run_folder import Run

FORMAT = 1

Logits = dict[str, np.ndarray]  # {image id: (S, S, 1) or (C,)}
# image ids -> batches of ids with their logits, as prediction.predict_logits yields them
Predict = Callable[[Sequence[str]], Iterable[tuple[Sequence[str], np.ndarray]]]


def load_logits(
    run: Run, images: str, views: int, needed: Sequence[str], data: str | None = None
) -> Logits | None:
    """What is kept of the set `images` with 1 or 8 views; None where it is not true any more.

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
    """Predict the images, keep their logits in the run's folder, and give them back.

    Arguments as in load_logits; `predict` is asked for `image_ids`.
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
        with partial_file(array_file) as partial:
            order = _predict_into(partial, run, image_ids, predict)
        if made_by != _made_by(run, data):
            raise UserError(run_folder.changed(run))
        write_text(record_file, json.dumps({"made_by": made_by, "image_ids": order}))
        kept = load_logits(run, images, views, order, data)
        if kept is None:
            raise UserError(run_folder.changed(run))
        return kept


def _predict_into(file: Path, run: Run, image_ids: Sequence[str], predict: Predict) -> list[str]:
    """Write the logits of the images into a new `.npy`; the ids in order of its rows."""
    kind = np.float16 if run.record["task"] == 1 else np.float32
    array, order = None, []
    with tqdm(total=len(image_ids), desc=f"{run.name}: predict", unit="image") as progress:
        for some, logits in predict(image_ids):
            if array is None:
                array = new_array(file, kind, (len(image_ids), *logits.shape[1:]))
            array[len(order) : len(order) + len(some)] = logits
            order += some
            progress.update(len(some))
    array.flush()
    return order


def gather_logits(
    ensemble: Ensemble,
    images: str,
    views: int,
    parts: Mapping[int | None, Sequence[str]],
    predict: Callable[[Run, Sequence[str]], Iterable] | None,
    data_of: Callable[[Run], str] | None = None,
) -> list[list[Logits]]:
    """Of each member of an ensemble the logits of its folds, for blend_logits.

    Args:
        ensemble: whose.
        images: the set; of `fold` each run gives what it held out.
        views: 1 or 8.
        parts: from ensemble.images_to_score.
        predict: Predict for a run, asked for what is not kept; None: that is an error.
        data_of: fingerprint of the images a run sees; None: those it was trained and held out from.

    Raises:
        UserError without `predict`, naming the command that makes what is not kept; and when
        weights were replaced meanwhile.
    """
    members: list[list[Logits]] = []
    for member in ensemble.members:
        members.append([])
        for run in member:
            part = parts.get(run.k_fold if images == "fold" else None)
            if part is None:
                continue  # a fold that other members lack
            data = data_of(run) if data_of and images != "fold" else None
            kept = load_logits(run, images, views, part, data)
            if kept is None and predict is None:
                raise UserError(_not_kept(run, views))
            if kept is None:
                kept = keep_logits(run, images, views, part, partial(predict, run), data)
            members[-1].append(kept)
    check_unchanged(ensemble, ensemble.weights)
    return members


def stream_logits(
    ensemble: Ensemble,
    groups: Mapping[tuple[str, ...], Sequence[str]],
    weights: Sequence[float],
    views: int,
    own_set: bool,
    net_of: Callable[[Run], Net],
    batch_size: int,
    done: Collection[str] = (),
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blended logits of images, batch by batch, each by the runs that may predict it.

    Args:
        ensemble: whose runs predict.
        groups: {names of runs: image ids}, from ensemble.assign_runs.
        weights: of the members.
        views: 1 or 8.
        own_set: the images are those the runs were trained and held out from (checked by the
            caller): what a run held out is read from what is kept, and kept if it was not.
        net_of: loads the net of a run; asked only for runs that must predict.
        batch_size: images per step.
        done: images that are not asked for, see prediction.predict_logits.
    """
    runs = {run.name: run for run in ensemble.runs}
    held_out = {
        name: set(run_folder.held_out_images(run_folder.load_folds(run), run.k_fold))
        for name, run in runs.items()
    }
    for names, image_ids in groups.items():
        shares = weights_of_runs(ensemble, names, weights)
        by_all = set.intersection(*(held_out[name] for name in names)) if own_set else set()
        stored = [image_id for image_id in image_ids if image_id in by_all]
        fresh = [image_id for image_id in image_ids if image_id not in by_all]
        left = [image_id for image_id in stored if image_id not in done]
        if left:
            kept = [
                _held_out(ensemble, runs[name], stored, views, net_of, batch_size) for name in names
            ]
            check_unchanged(ensemble, names)
            for start in range(0, len(left), batch_size):
                some = left[start : start + batch_size]
                parts = [np.stack([logits[i] for i in some]) for logits in kept]
                yield some, mean_logits(parts, [shares[name] for name in names])
        if set(fresh) - set(done):
            nets = [replace(net_of(runs[name]), weight=shares[name]) for name in names]
            check_unchanged(ensemble, names)
            yield from predict_logits(nets, fresh, batch_size, views, done)


def _held_out(
    ensemble: Ensemble,
    run: Run,
    image_ids: Sequence[str],
    views: int,
    net_of: Callable[[Run], Net],
    batch_size: int,
) -> Logits:
    kept = load_logits(run, "fold", views, image_ids)
    if kept is not None:
        return kept

    def predict(some: Sequence[str]) -> Iterator:
        net = net_of(run)  # perhaps loaded a while ago
        check_unchanged(ensemble, [run.name])
        return predict_logits([net], some, batch_size, views)

    return keep_logits(run, "fold", views, image_ids, predict)


def blend_logits(
    members: Sequence[Sequence[Logits]], weights: Sequence[float], image_id: str
) -> np.ndarray:
    """Mean logits of one image, float32 (S, S, 1) or (C,).

    Args:
        members: of each training the logits of its folds; the mean is taken over those that hold
            the image (held-out sets: one fold does).
        weights: of the trainings.
        image_id: which image.
    """
    means = []
    for folds in members:
        there = [logits[image_id][None] for logits in folds if image_id in logits]
        means.append(mean_logits(there, [1.0] * len(there)))
    return mean_logits(means, weights)[0]


def stack_logits(members: Sequence[Sequence[Logits]], image_ids: Sequence[str]) -> np.ndarray:
    """Log-probabilities float64 (M, N, C) of M members, N images and C classes."""
    each = [[blend_logits([folds], [1.0], image_id) for image_id in image_ids] for folds in members]
    return np.asarray(each, dtype=np.float64)


def _made_by(run: Run, data: str | None) -> dict:
    data = run.record["data_fingerprint"] if data is None else data
    return {"format": FORMAT, "weights": run_folder.weights_hash(run), "data": data}


def _not_kept(run: Run, views: int) -> str:
    script = "seg_eval.py" if run.record["task"] == 1 else "cls_eval.py"
    return (
        f"{run.folder}: the held-out predictions of these weights are not there. Make them: "
        f"python3 runs/{script} --backbone {run.settings['backbone']} --version "
        f"{run.settings['version']} --k-fold {run.k_fold}{' --tta' * (views == 8)}"
    )


def _files(run: Run, images: str, views: int):
    ending = f"logits_{images}{'_tta' if views == 8 else ''}"
    return run.file(f"{ending}.npy"), run.file(f"{ending}.json")
