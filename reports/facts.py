"""The facts that reports share, and lines of scores for the terminal.

Enters: what was scored, scores with intervals, a row per image. Leaves: text, named lists of facts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from datasets.tasks import script
from evaluation import tuned
from inference.ensemble import Ensemble, missing_folds
from inference.postprocess import PostProcessing
from inference.scope import Scope
from misc_utils.errors import UserError
from reports.parts import Frame
from training import run_folder

INTERVALS = "Intervals: percentiles of 2,000 bootstrap resamples of the {}."

COMMON_LIMITS = (
    "People: skin tones, ages and body sites are those of the training images, in the ISIC Archive "
    "mostly light skin; nothing here says how the nets do on others.",
    "Cameras and clinics other than those the training images come from, photographs taken without "
    "a dermatoscope, and images with more than one lesion.",
    "Images of none of the classes, or without a lesion: the nets answer all the same.",
    "The intervals say how much other images of the same kind would change the scores, not how "
    "much another training with another seed would.",
)
FOLD_LIMITS = (
    "The epoch whose weights were kept was chosen on these held-out images by {monitor}, so the "
    "scores are a little too high.",
    "Held-out images come from the same sources as those trained on.",
)
UNGROUPED_LIMIT = (
    "Which images show the same lesion is not known; two photographs of one lesion may have come "
    "into different folds."
)


def described(scope: Scope, folds: Collection[int | None]) -> str:
    """Words for what was scored: `fold 0, held out`, `folds 0, 1, held out`, `the test set`."""
    if not scope.held_out:
        return f"the {scope.eval_set} set"
    ensemble, which = scope.ensemble, ", ".join(map(str, folds))
    missing = missing_folds(ensemble) if len(ensemble.runs) > len(ensemble.members) else ""
    return f"fold{'s' * (len(folds) > 1)} {which}, held out{missing}"


def frame(scope: Scope, used: Mapping, fold: pd.Series, notes: Sequence[str]) -> Frame:
    """Title, facts and notes of an evaluation's report.

    Args:
        scope: what was scored.
        used: settings as they were in force.
        fold: of each image.
        notes: what was resampled, in words; then further notes.
    """
    return Frame(
        title=f"{scope.ensemble.name}: {described(scope, sorted(fold.unique()))}",
        about=about(scope, used, len(fold)),
        histories=histories(scope.ensemble),
        limits=limits(scope),
        notes=[INTERVALS.format(notes[0]), *notes[1:]],
    )


def scores_text(scores: pd.DataFrame) -> str:
    """A line per measure: its value and 95 % interval."""
    lines = [f"{'':28} {'':>6}  95 % interval"]
    for name, value, low, high in scores.itertuples():
        ends = "" if np.isnan(low) else f"  {low:.3f} to {high:.3f}"
        lines.append(f"{name.replace('_', ' '):28} {value:6.3f}{ends}")
    return "\n".join(lines)


def folds_text(table: pd.DataFrame, measures: Sequence[str]) -> str:
    """Mean of the measures on each fold, where there are several; else nothing."""
    if table["fold"].nunique() < 2:
        return ""
    means = table.groupby("fold")[list(measures)].mean()
    lines = [
        f"fold {fold}: " + ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in means)
        for fold, row in means.iterrows()
    ]
    return "\n".join(lines) + "\n"


def about(scope: Scope, used: Mapping | None, count: int) -> dict[str, dict]:
    """Named lists of facts: what was scored, data and folds, settings, what made it."""
    ensemble = scope.ensemble
    first = ensemble.runs[0]
    folds = ensemble.folds[first.name]
    data = {"data set": first.dataset, "data fingerprint": first.data_fingerprint}
    if first.truth_fingerprint:
        data["truth fingerprint"] = first.truth_fingerprint
    data["folds fingerprint"] = run_folder.folds_fingerprint(folds)
    sizes = folds["fold"].value_counts().sort_index()
    data["images in each fold"] = ", ".join(f"{k}: {n:,}" for k, n in sizes.items())
    facts = {
        "Scored": {
            "images": f"{count:,}",
            "runs": ", ".join(run.name for run in ensemble.runs),
            "views of each image": "8 flips and turns" if scope.tta else "1",
        },
        "Data and folds": data,
    }
    if used is not None:
        facts["Settings of the evaluation"] = dict(used)
    for member in ensemble.members:
        settings = member[0].settings
        name = f"{settings['backbone']}, version {settings['version']}"
        facts[f"Settings of the training: {name}"] = dict(settings)
    facts["Made with"] = first.made_with
    facts["Weights (SHA-256)"] = dict(ensemble.weight_hashes)
    return facts


def limits(scope: Scope) -> list[str]:
    """What these scores say nothing about."""
    lines, ensemble = list(COMMON_LIMITS), scope.ensemble
    if scope.held_out:
        monitors = sorted({run.settings["monitor"] for run in ensemble.runs})
        lines += [line.format(monitor=" and ".join(monitors)) for line in FOLD_LIMITS]
        if "lesion" not in ensemble.folds[ensemble.runs[0].name]:
            lines.append(UNGROUPED_LIMIT)
    return lines


def histories(ensemble: Ensemble) -> dict[str, pd.DataFrame]:
    """The course of each training, by name of the run."""
    return {run.name: pd.read_csv(run.history) for run in ensemble.runs if run.history.exists()}


def interval_text(row: pd.Series, sign: str = "") -> str:
    """`0.828 (0.811 to 0.845)` of a row value, low, high; `sign` "+" shows that of each number."""
    ends = "" if np.isnan(row.low) else f" ({row.low:{sign}.3f} to {row.high:{sign}.3f})"
    return f"{row.value:{sign}.3f}{ends}"


def tuning_text(
    scope: Scope,
    folds: Collection[int | None],
    count: int,
    chosen: tuned.Choice,
    worth: Mapping[str, pd.DataFrame],
    measures: Sequence[str],
    dropped: str,
) -> str:
    """What was tuned on `count` held-out images of these folds, and a table of its worth.

    `dropped` says why the defaults stay, if they do, see tuned.keep_gain.
    """
    ensemble, values = scope.ensemble, chosen.to_json()
    lines = [f"{ensemble.name}, {count} images ({described(scope, folds)})"]
    for label, weight in zip(ensemble.labels, values.pop("member_weights"), strict=True):
        lines.append(f"  weight of {label}: {weight:.3f}")
    if factors := values.pop("decision_weights", None):
        pairs = zip(ensemble.classes, factors, strict=True)
        values["decision weights"] = ", ".join(f"{name} {factor:.2f}" for name, factor in pairs)
    for name, value in values.items():
        lines.append(f"  {name}: " + (f"{value:.3f}" if isinstance(value, float) else str(value)))
    if len(folds) < 2:
        lines.append("a single fold: split into five parts, each tuned on the other four")
    cells = {
        how: table.reindex(measures).dropna(how="all").apply(interval_text, axis=1)
        for how, table in worth.items()
    }
    rows = pd.DataFrame.from_dict(cells, orient="index", columns=measures)
    columns = [name.replace("_", " ") for name in measures]
    lines.append(rows.set_axis(columns, axis=1).to_string(na_rep=""))
    lines += [dropped] if dropped else []
    predict = script(ensemble.task, "predict")
    return "\n".join(
        [*lines, f"{predict} uses these values from now on: {tuned.tuned_file(scope)}"]
    )


def tuned_columns(scope: Scope, used: Mapping) -> tuple[dict, list[str]]:
    """The scores tuned on other folds, and a note, where these held-out images were tuned on."""
    plain = asdict(PostProcessing())
    other_rules = any(used.get(rule, value) != value for rule, value in plain.items())
    if not scope.held_out or used["limit"] is not None or other_rules:
        return {}, []  # other images or rules than those that were tuned on
    try:
        found = tuned.load_tuned(scope)
    except UserError as error:  # of weights of before; the scores here are none the worse for it
        return {}, [str(error)]
    if found is None:
        return {}, []
    name = "tuned on other folds"
    worth = pd.DataFrame.from_dict(found.worth[name], orient="index").astype(float)
    note = (
        f"Tuned values were chosen on all of these images: {found}. What they are worth is in the "
        f"column “{name}”: each fold was scored with values chosen without it."
    )
    return {name: worth}, [note]
