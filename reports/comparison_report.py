"""What a comparison of trainings or ensembles says: lines for the terminal, and its report.

Enters: scores and paired differences with their intervals. Leaves: text, and an HTML file.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from inference.ensemble import Ensemble, shortened
from reports import eval_report, report


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
    name = shortened("_against_".join(nets.name for nets in several) + "_tta" * tta)
    about = {}
    for nets in several:
        facts = eval_report.about(nets, "fold", {"tta": tta}, count)
        del facts["Settings of the evaluation"]
        label = "+".join(nets.labels)
        about |= {f"{label}: {part.lower()}": values for part, values in facts.items()}
    file, task = folder / f"{name}.html", several[0].task
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


def _interval(row: pd.Series, sign: str = "") -> str:
    return f"{row.value:{sign}.3f} ({row.low:{sign}.3f} to {row.high:{sign}.3f})"
