"""The split into folds, without reading or writing files.

Enters: image ids, for Task 3 also their labels and lesions, and a seed. Leaves: a table with one
row per image, in sorted order of the ids, and its fold. The run of fold k holds fold k out and
trains on the others. `num_folds` = 1 is a hold-out: fold 0, a fifth of the images, is held out, and
fold 1 is always trained on.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from misc_utils.errors import UserError
from misc_utils.messages import counted

log = logging.getLogger(__name__)

HOLD_OUT_PARTS = 5  # one part in five is held out when num_folds is 1


def split_images(
    image_ids: Sequence[str], num_folds: int, seed: int, lesions: Mapping[str, str] = {}
) -> pd.DataFrame:
    """Task 1: columns image, fold; the sizes of the folds differ by at most one image.

    Images of one lesion {image id: lesion id} come into the fold of the first of them; then there
    is a column lesion, and the sizes may differ more. Raises UserError when there are fewer images
    than folds.
    """
    image_ids = sorted(image_ids)
    parts = _parts(num_folds)
    if len(image_ids) < parts:
        raise UserError(f"{len(image_ids)} images cannot be split into {parts} folds.")
    fold = np.empty(len(image_ids), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(image_ids))
    for k, rows in enumerate(np.array_split(order, parts)):
        fold[rows] = k
    table = pd.DataFrame({"image": image_ids, "fold": _merged(fold, num_folds)})
    lesion = pd.Series([lesions.get(image_id, image_id) for image_id in image_ids])
    if lesion.duplicated().any():
        table.insert(1, "lesion", lesion)
        table["fold"] = table.groupby("lesion")["fold"].transform("first")
    return table


def split_lesions(
    labels: Mapping[str, int],
    lesions: Mapping[str, str],
    num_folds: int,
    seed: int,
    classes: Sequence[str],
    group: str = "lesion",
) -> pd.DataFrame:
    """Task 3: columns image, lesion, label, fold; no lesion in two folds, classes spread evenly.

    Args:
        labels: {image id: class index}.
        lesions: {image id: lesion id}, for at least the ids of `labels`.
        num_folds: see the module.
        seed: of the split.
        classes: their names, for messages.
        group: what `lesions` are; of one `patient` several diagnoses are no contradiction.

    Raises:
        UserError when there are fewer lesions than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    image_ids, parts = sorted(labels), _parts(num_folds)
    label = np.array([labels[image_id] for image_id in image_ids])
    lesion = np.array([lesions[image_id] for image_id in image_ids])
    if len(set(lesion)) < parts:
        raise UserError(f"{len(set(lesion))} lesions cannot be split into {parts} folds.")
    if group == "lesion":
        _tell_contradictions(image_ids, label, lesion, classes)
    fold = np.empty(len(image_ids), dtype=np.int64)
    most = np.bincount(label).max()
    if most < parts:
        raise UserError(
            f"{parts} folds need a class with {parts} images; the largest class has {most}."
        )
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class may have fewer images than there are folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for k, (_, rows) in enumerate(splitter.split(image_ids, label, lesion)):
            fold[rows] = k
    fold = _merged(fold, num_folds)
    return pd.DataFrame({"image": image_ids, "lesion": lesion, "label": label, "fold": fold})


def _tell_contradictions(
    image_ids: list[str], label: np.ndarray, lesion: np.ndarray, classes: Sequence[str]
) -> None:
    """Log, with some of the images, the lesions that have more than one diagnosis."""
    table = pd.DataFrame({"image": image_ids, "label": label, "lesion": lesion})
    several = table.groupby("lesion")["label"].nunique()
    wrong = table[table["lesion"].isin(several[several > 1].index)]
    if len(wrong):
        rows = [f"{row.lesion} {row.image} {classes[row.label]}" for row in wrong.itertuples()]
        log.warning(
            "%d lesions have more than one diagnosis; one of them must be wrong (lesion, image, "
            "class): %s",
            wrong["lesion"].nunique(),
            counted(rows),
        )


def limit_images(image_ids: Iterable[str], limit: int | None) -> list[str]:
    """The first `limit` ids in sorted order; all of them when `limit` is None."""
    return sorted(image_ids)[:limit]


def limit_labels(labels: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """At most `limit` images, of each class its first ones in sorted order of the ids.

    The number per class is its share of all images, rounded by largest remainder, and at least one
    where `limit` allows.
    """
    if limit is None or limit >= len(labels):
        return dict(sorted(labels.items()))
    classes, counts = np.unique(list(labels.values()), return_counts=True)
    share = counts * limit / counts.sum()
    taken = np.floor(share).astype(np.int64)
    taken[np.argsort(taken - share, kind="stable")[: limit - taken.sum()]] += 1
    if limit >= len(classes):
        for k in np.flatnonzero(taken == 0):
            taken[np.argmax(taken)] -= 1
            taken[k] = 1
    kept: list[str] = []
    for value, number in zip(classes, taken, strict=True):
        kept += sorted(image_id for image_id, label in labels.items() if label == value)[:number]
    return {image_id: labels[image_id] for image_id in sorted(kept)}


def _parts(num_folds: int) -> int:
    if num_folds < 1:
        raise UserError(f"num_folds must be 1 (one hold-out) or more, not {num_folds}.")
    return HOLD_OUT_PARTS if num_folds == 1 else num_folds


def _merged(fold: np.ndarray, num_folds: int) -> np.ndarray:
    return np.minimum(fold, 1) if num_folds == 1 else fold


def check_fold_numbers(folds: Sequence[int] | str, num_folds: int) -> list[int]:
    """The folds to train, in the order given; every fold for `all`.

    Nothing is read for it, so that scripts can check first. UserError for num_folds below 1, for a
    number that no fold has, and when no fold is given.
    """
    _parts(num_folds)
    if folds == "all":
        return list(range(num_folds))
    unknown = sorted(set(folds) - set(range(num_folds)))
    if unknown or not folds:
        raise UserError(
            f"folds are numbered 0 to {num_folds - 1} (num_folds is {num_folds}); there is no fold "
            f"{', '.join(map(str, unknown)) or 'given'}."
        )
    return list(dict.fromkeys(folds))
