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

    which: tyro.conf.Positional[tuple[str, ...]] = ("vgg16:0", "densenet121:0")
    """Each backbone:version, or several with + between them; differences are to the first."""
    task: Literal[1, 3] = 1  # of the runs
    k_fold: int | Literal["all"] = "all"  # the fold held out; all: every fold there is
    tta: bool = False  # scores of the mean over the 8 flips and quarter turns


def main(settings: Settings) -> dict[str, float]:
    from evaluation import comparison
    from inference import ensemble
    from inference.ensemble import Ensemble
    from reports import comparison_report

    # 1 what the evaluations wrote
    several = []
    for text in settings.which:
        first, *more = text.split("+")
        backbone, version = ensemble.parse_label(first)
        several.append(
            ensemble.find_ensemble(
                paths.model_data_dir(), settings.task, backbone, version, more, settings.k_fold
            )
        )
    everything = tuple(member for nets in several for member in nets.members)
    ensemble.check_alike(Ensemble(everything, paths.model_data_dir()))
    ending = "fold" + "_tta" * settings.tta
    read = {"+".join(nets.labels): ensemble.read_scores(nets, ending) for nets in several}
    comparison.check_same_rules({name: content["settings"] for name, (content, _) in read.items()})
    tables = {name: table for name, (_, table) in read.items()}
    comparison.check_same_images(tables)

    # 2 scores, and differences image by image
    compare = comparison.compare_masks if settings.task == 1 else comparison.compare_classes
    scores, differences = compare(tables)

    # 3 report
    count = len(next(iter(tables.values())))
    file = comparison_report.write(
        paths.model_data_dir() / "comparisons", several, scores, differences, count, settings.tta
    )
    print(f"{count} held-out images, 95 % intervals; report: {file}")
    print(comparison_report.text(scores, differences))
    return differences["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
