"""Compare what a classifier is best shown: whole image, box, crop, or crop with a soft edge.

python3 runs/cls_views.py --train.backbone densenet121 --train.folds 0 1

Trains each view on the same folds as a version of its own (0-whole, 0-box, ...), scores it, and
compares; what is trained already is not trained again. Box and crop need `python3
runs/seg_predict.py` first, feather also with --edge feather.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)
import cls_eval
import cls_train
import compare

from misc_utils import command_line
from misc_utils.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    views: tuple[Literal["whole", "box", "crop", "feather"], ...] = (
        "whole",
        "box",
        "crop",
        "feather",
    )
    """What is compared; differences are to the first."""
    tta: bool = False  # score the mean over the 8 flips and quarter turns
    train: cls_train.Settings = field(default_factory=cls_train.Settings)
    """Settings of each training; the view, and its name behind the version, are put in."""


def main(settings: Settings) -> dict[str, float]:
    from datasets import lesion_crops
    from datasets.folds import check_fold_numbers
    from training import claim

    # 1 what there is: crops for every view, and no training of before with other settings
    trainings = {
        view: replace(settings.train, version=f"{settings.train.version}-{view}", lesion_view=view)
        for view in settings.views
    }
    k_folds = check_fold_numbers(settings.train.folds, settings.train.num_folds)
    replaced = {}
    for view, train in trainings.items():
        lesion_crops.load_view_crops(paths.submissions_dir(), "training", view)
        replaced[view] = claim.check_settings(
            paths.model_data_dir(), 3, asdict(train), k_folds, train.overwrite
        )

    # 2 train and score each view
    backbone = settings.train.backbone
    for view, train in trainings.items():
        cls_train.main(train, replaced[view])
        check_finished(train, k_folds)
        cls_eval.main(cls_eval.Settings(backbone, "all", train.version, tta=settings.tta))

    # 3 compare
    which = tuple(f"{backbone}:{train.version}" for train in trainings.values())
    return compare.main(compare.Settings(which, task=3, tta=settings.tta))


def check_finished(train: cls_train.Settings, k_folds: Sequence[int]) -> None:
    """Raise UserError while another process trains one of these folds: half a net is no match."""
    from training import run_folder

    runs = {run.name: run for run in run_folder.list_runs(paths.model_data_dir(), 3)}
    for k_fold in k_folds:
        name = run_folder.run_name(3, train.backbone, k_fold, train.version)
        if name not in runs or not runs[name].record["finished"]:
            raise UserError(
                f"{name} is being trained by another process. Start the same command again, "
                f"without --train.overwrite, when that one has ended."
            )


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
