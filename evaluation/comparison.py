"""Several trainings or ensembles on the same images: their scores, and paired differences.

Enters: of each the table its evaluation wrote, a row per image. Leaves: scores and differences with
95 % intervals over the same resamples of lesions (of images where these are not known), and a
report. A paired interval is narrower than two scores' intervals suggest, as both are right and
wrong on much the same images.
"""

from collections.abc import Mapping

import pandas as pd

from evaluation import attribute_scoring, bootstrap
from evaluation.class_evaluation import NOT_CLASSES
from evaluation.tuned import RULES
from misc_utils.errors import UserError

CLASS_MEASURES = ("accuracy", "balanced_accuracy", "macro_auc", "macro_ap")


def check_same_rules(settings: Mapping[str, Mapping]) -> None:
    """Raise UserError when the scores were made by different post-processing: it would be compared.

    `settings` are those of each evaluation, as it stored them.
    """
    (first, reference), *others = settings.items()
    for name, other in others:
        for key in RULES:
            if reference.get(key) != other.get(key):
                raise UserError(
                    f"{first} was scored with {key} {reference.get(key)} and {name} with "
                    f"{other.get(key)}. Score both alike before they are compared."
                )


def check_same_images(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raise UserError unless there are two tables or more, of one set of images and one truth."""
    if len(tables) < 2:
        raise UserError("a comparison needs two different trainings or ensembles.")
    (first, table), *others = tables.items()
    for name, other in others:
        if set(table.index) != set(other.index):
            differ = sorted(set(table.index) ^ set(other.index))
            raise UserError(
                f"{first} was scored on {len(table)} images and {name} on {len(other)}, "
                f"{len(differ)} of them not shared, such as {differ[0]}. Score both on the same "
                f"folds, without --limit."
            )
        for key in {"truth", "lesion_share"} & set(table) & set(other):
            differ = table.index[table[key] != other.loc[table.index, key]]
            if len(differ):
                raise UserError(
                    f"{first} and {name} were scored with another truth for {len(differ)} images, "
                    f"such as {differ[0]}: it has changed in between. Score both again."
                )


def compare_masks(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Task 1: scores, index (name, measure); differences to the first, index (pair, measure)."""
    (first, reference), *others = tables.items()
    weights = bootstrap.resample(list(reference.get("lesion", reference.index)))
    aligned = {name: table.loc[reference.index] for name, table in tables.items()}
    scores = {name: bootstrap.mask_table(table, weights) for name, table in aligned.items()}
    differences = {
        f"{name} - {first}": bootstrap.mask_difference(reference, aligned[name], weights)
        for name, _ in others
    }
    return _joined(scores), _joined(differences)


def compare_attributes(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Task 2; the same two tables."""
    (first, reference), *others = tables.items()
    weights = bootstrap.resample(list(reference.get("lesion", reference.index)))
    aligned = {name: table.loc[reference.index] for name, table in tables.items()}
    scores = {
        name: attribute_scoring.score_attributes(table, weights) for name, table in aligned.items()
    }
    differences = {
        f"{name} - {first}": attribute_scoring.attribute_difference(
            reference, aligned[name], weights
        )
        for name, _ in others
    }
    return _joined(scores), _joined(differences)


def compare_classes(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Task 3, resampled by lesion; the same two tables."""
    first, reference = next(iter(tables.items()))
    classes = [name for name in reference.columns if name not in NOT_CLASSES]
    truth = reference["truth"].map(classes.index).to_numpy()
    weights = bootstrap.resample(reference["lesion"].tolist())
    names, measures = list(tables), list(CLASS_MEASURES)
    probability = {name: tables[name].loc[reference.index, classes].to_numpy() for name in names}
    scores = {
        name: bootstrap.class_tables(truth, probability[name], weights, classes)[0].loc[measures]
        for name in names
    }
    differences = {
        f"{name} - {first}": bootstrap.class_difference(
            truth, probability[first], probability[name], weights
        ).loc[measures]
        for name in names[1:]
    }
    return _joined(scores), _joined(differences)


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["name", "measure"])
