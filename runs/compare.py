"""Compare trainings or ensembles of one task on the same held-out images, with intervals.

python3 runs/compare.py vgg16:0 densenet121:0 vgg16:0+densenet121:0
python3 runs/compare.py --task 3 densenet121:0-whole densenet121:0-crop
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)
import tyro

from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    which: tyro.conf.Positional[command_line.Runs] = ("vgg16:0", "densenet121:0")
    """each backbone:version, or several joined by +; differences are to the first"""
    task: Literal[1, 2, 3] = 1  # of the runs
    k_fold: command_line.KFold = "all"  # folds held out
    tta: bool = False  # scores of the mean over 8 flips and quarter turns
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on


def main(settings: Settings) -> dict[str, float]:
    from evaluation import comparison, scores
    from inference.ensemble import Ensemble, check_alike, find_ensemble, parse_label
    from inference.scope import Scope
    from reports import comparison_report

    # 1 what the evaluations wrote
    model_data, scopes = paths.model_data_dir(), []
    for text in settings.which:
        first, *more = text.split("+")
        name = *parse_label(first), more, settings.k_fold, settings.dataset
        scopes.append(Scope(find_ensemble(model_data, settings.task, *name), "fold", settings.tta))
    members = tuple(member for scope in scopes for member in scope.ensemble.members)
    check_alike(Ensemble(members, model_data))
    stored = {"+".join(scope.ensemble.labels): scores.read_scores(scope) for scope in scopes}
    comparison.check_same_rules({name: used["settings"] for name, (used, _) in stored.items()})
    tables = {name: table for name, (_, table) in stored.items()}
    comparison.check_same_images(tables)

    # 2 scores, and differences image by image
    compare = {1: comparison.compare_masks, 2: comparison.compare_attributes}
    overall, differences = compare.get(settings.task, comparison.compare_classes)(tables)

    # 3 report
    count = len(next(iter(tables.values())))
    file = comparison_report.write(model_data / "comparisons", scopes, overall, differences, count)
    print(f"{count} held-out images, 95 % intervals; report: {file}")
    print(comparison_report.text(overall, differences))
    return differences["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
