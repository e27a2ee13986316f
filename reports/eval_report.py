"""What an evaluation says: lines for the terminal, and the facts and pictures of its report.

Enters: the runs that were scored, their scores with intervals, a row per image. Leaves: text, and
`<name>_report_<set>.html` in the folder of the run, training or ensemble.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import tuned
from inference.ensemble import Ensemble, missing_folds
from inference.postprocess import PostProcessing
from inference.scope import views_of
from misc_utils.errors import UserError
from reports import figures, report
from reports.report import Shown
from training import run_folder

GALLERY = 8  # pictures in each part of a gallery
INTERVALS = "Intervals: percentiles of 2,000 bootstrap resamples of the {}."

COMMON_LIMITS = (
    "People: skin tones, ages and body sites are those of the archive, most of them of light skin; "
    "nothing here says how the nets do on others.",
    "Cameras and clinics other than those the training images come from, photographs taken without "
    "a dermatoscope, and images with more than one lesion.",
    "Anything that is none of the classes or no lesion at all: the nets answer all the same.",
    "The intervals tell what other images of the same kind would change, not what another training "
    "with another seed would.",
)
FOLD_LIMITS = (
    "The epoch whose weights were kept was chosen on these held-out images by {monitor}, so the "
    "scores are a little too high.",
    "Held-out images come from the same sources as those trained on.",
)
TASK_1_LIMIT = (
    "Which Task 1 images show the same lesion is not known; two photographs of one lesion may have "
    "come into different folds."
)


def described(ensemble: Ensemble, images: str, folds: Sequence[int | None]) -> str:
    """Words for what was scored: `fold 0, held out`, `folds 0, 1, held out`, `the test set`."""
    if images != "fold":
        return f"the {images} set"
    which = ", ".join(map(str, folds))
    missing = missing_folds(ensemble) if len(ensemble.runs) > len(ensemble.members) else ""
    return f"fold{'s' * (len(folds) > 1)} {which}, held out{missing}"


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


def about(ensemble: Ensemble, images: str, used: Mapping, count: int) -> dict[str, dict]:
    """Named lists of facts: what was scored, data and folds, settings, what made it."""
    first = ensemble.runs[0]
    folds = ensemble.folds[first.name]
    data = {"data fingerprint": first.data_fingerprint}
    if first.truth_fingerprint:
        data["truth fingerprint"] = first.truth_fingerprint
    data["folds fingerprint"] = run_folder.folds_fingerprint(folds)
    sizes = folds["fold"].value_counts().sort_index()
    data["images in each fold"] = ", ".join(f"{k}: {n:,}" for k, n in sizes.items())
    facts = {
        "Scored": {
            "images": f"{count:,}",
            "runs": ", ".join(run.name for run in ensemble.runs),
            "views of each image": "8 flips and turns" if used["tta"] else "1",
        },
        "Data and folds": data,
        "Settings of the evaluation": dict(used),
    }
    for member in ensemble.members:
        settings = member[0].settings
        name = f"{settings['backbone']}, version {settings['version']}"
        facts[f"Settings of the training: {name}"] = dict(settings)
    facts["Made with"] = first.made_with
    facts["Weights (SHA-256)"] = dict(ensemble.weight_hashes)
    return facts


def limits(ensemble: Ensemble, images: str) -> list[str]:
    """What these scores do not tell."""
    lines = list(COMMON_LIMITS)
    if images == "fold":
        monitors = sorted({run.settings["monitor"] for run in ensemble.runs})
        lines += [line.format(monitor=" and ".join(monitors)) for line in FOLD_LIMITS]
        if ensemble.task == 1:
            lines.append(TASK_1_LIMIT)
    return lines


def histories(ensemble: Ensemble) -> dict[str, pd.DataFrame]:
    """The course of each training, by name of the run."""
    return {run.name: pd.read_csv(run.history) for run in ensemble.runs if run.history.exists()}


def write_segmentation(
    ensemble: Ensemble,
    images: str,
    used: Mapping,
    scores: pd.DataFrame,
    table: pd.DataFrame,
    masks_of: Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Path:
    """Write the report of a Task 1 evaluation.

    Args:
        ensemble: what was scored.
        images: the set.
        used: settings as they were in force.
        scores: from bootstrap.mask_table.
        table: from mask_scoring.score_maps.
        masks_of: image id -> image (H, W, 3), truth and predicted mask (H, W).
    """
    ranked = table["jaccard"].sort_values(kind="stable").index.tolist()
    middle = max((len(ranked) - GALLERY) // 2, 0)
    parts = {
        "Worst": ranked[:GALLERY],
        "Around the median": ranked[middle : middle + GALLERY],
        "Best": ranked[-GALLERY:][::-1],
    }

    def shown(image_id: str) -> Shown:
        picture = figures.outline(*masks_of(image_id))
        return Shown(image_id, f"Jaccard {table.jaccard[image_id]:.3f}", picture)

    columns, notes = tuned_columns(ensemble, images, used)
    file = ensemble.file(f"report_{images}{'_tta' * used['tta']}.html")
    report.write_segmentation_report(
        file,
        title=f"{ensemble.name}: {described(ensemble, images, scored_folds(table))}",
        about=about(ensemble, images, used, len(table)),
        scores=scores,
        images=table,
        galleries={name: [shown(i) for i in some] for name, some in parts.items()},
        histories=histories(ensemble),
        columns=columns,
        limits=limits(ensemble, images),
        notes=[INTERVALS.format("images"), *notes],
    )
    return file


def worth_text(worth: Mapping[str, pd.DataFrame], measures: Sequence[str]) -> str:
    """A table: a row per way of tuning, a column per measure with its interval."""
    rows = {}
    for name, table in worth.items():
        rows[name] = {
            measure.replace("_", " "): f"{row.value:.3f}"
            + ("" if np.isnan(row.low) else f" ({row.low:.3f} to {row.high:.3f})")
            for measure, row in table.reindex(list(measures)).dropna(how="all").iterrows()
        }
    return pd.DataFrame.from_dict(rows, orient="index").to_string(na_rep="")


def tuned_columns(ensemble: Ensemble, images: str, used: Mapping) -> tuple[dict, list[str]]:
    """The scores tuned on other folds, and a note, where these held-out images were tuned on."""
    plain = asdict(PostProcessing())
    other_rules = any(used.get(rule, value) != value for rule, value in plain.items())
    if images != "fold" or used["limit"] is not None or other_rules:
        return {}, []  # other images or rules than those that were tuned on
    try:
        found = tuned.load_tuned(ensemble, views_of(used["tta"]))
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


def scored_folds(table: pd.DataFrame) -> list:
    """Folds of the images in a table of scores."""
    return sorted(table["fold"].unique())
