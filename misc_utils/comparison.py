"""Several trainings or ensembles on the same images: their scores, and paired differences.

Enters: of each the table its evaluation wrote, a row per image. Leaves: scores and differences with
95 % intervals over the same resamples of lesions (Task 1: images), and a report. A paired interval
is narrower than two scores' intervals suggest, as both are right and wrong on much the same images.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from errors import UserError
from misc_utils import bootstrap, eval_report, report
from misc_utils.class_report import NOT_CLASSES
from misc_utils.ensemble import LONGEST_NAME, Ensemble
from misc_utils.tuned import RULES

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
    weights = bootstrap.resample(list(reference.index))
    aligned = {name: table.loc[reference.index] for name, table in tables.items()}
    scores = {name: bootstrap.mask_table(table, weights) for name, table in aligned.items()}
    differences = {
        f"{name} - {first}": bootstrap.mask_difference(reference, aligned[name], weights)
        for name, _ in others
    }
    return _joined(scores), _joined(differences)


def compare_classes(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Task 3, resampled by lesion; the same two tables."""
    (first, reference), *others = tables.items()
    classes = [name for name in reference.columns if name not in NOT_CLASSES]
    truth = reference["truth"].map(classes.index).to_numpy()
    weights = bootstrap.resample(reference["lesion"].tolist())
    probability = {
        name: table.loc[reference.index, classes].to_numpy() for name, table in tables.items()
    }
    scores = {
        name: bootstrap.class_tables(truth, each, weights, classes)[0].loc[list(CLASS_MEASURES)]
        for name, each in probability.items()
    }
    differences = {}
    for name, _ in others:
        table = bootstrap.class_difference(truth, probability[first], probability[name], weights)
        differences[f"{name} - {first}"] = table.loc[list(CLASS_MEASURES)]
    return _joined(scores), _joined(differences)


def text(scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Both tables as lines; a difference whose interval crosses zero is called undecided."""
    lines = []
    for (name, measure), row in scores.iterrows():
        lines.append(f"{name}: {measure.replace('_', ' ')} {_interval(row)}")
    for (pair, measure), row in differences.iterrows():
        decided = "" if row.low > 0 or row.high < 0 else ", undecided"
        lines.append(f"{pair}: {measure.replace('_', ' ')} {_interval(row, '+')}{decided}")
    return "\n".join(lines)


def write(
    folder: Path,
    several: Sequence[Ensemble],
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    count: int,
    tta: bool,
) -> Path:
    """Write the report into `folder`, named after all that is compared."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "_against_".join(nets.name for nets in several) + "_tta" * tta
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    about = {}
    for nets in several:
        facts = eval_report.about(nets, "fold", {"tta": tta}, count)
        del facts["Settings of the evaluation"]
        label = "+".join(nets.labels)
        about |= {f"{label}: {part.lower()}": values for part, values in facts.items()}
    file, task = folder / f"{name}.html", several[0].runs[0].record["task"]
    report.write_comparison_report(
        file,
        title=f"Task {task}: {' against '.join('+'.join(nets.labels) for nets in several)}",
        about=about,
        scores=scores,
        differences=differences,
        histories={name: h for nets in several for name, h in eval_report.histories(nets).items()},
        limits=eval_report.limits(several[0], "fold"),
        notes=[
            "Differences are paired: the same images, and the same resamples of them, for both. "
            "An interval that holds zero leaves open which is better."
        ],
    )
    return file


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["name", "measure"])


def _interval(row: pd.Series, sign: str = "") -> str:
    return f"{row.value:{sign}.3f} ({row.low:{sign}.3f} to {row.high:{sign}.3f})"
