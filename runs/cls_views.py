"""Compare what a classifier is best shown: whole image, box, crop, or crop with a soft edge.

python3 runs/cls_views.py --train.backbone densenet121 --train.folds 0 1

Trains each view on the same folds as a version of its own (0-whole, 0-box, ...), scores it, and
compares. Box and crop need `python3 runs/seg_predict.py` first, feather also with --edge feather.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)
import cls_eval
import cls_train
import compare

from errors import UserError
from misc_utils import command_line


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
    from datasets.ISIC2018.folds import check_fold_numbers
    from misc_utils import lesion_crops, run_folder

    # 1 what there is: crops for every view, and trainings of before
    for view in settings.views:
        lesion_crops.load_view_crops(paths.submissions_dir(), "training", view)
    backbone, versions = settings.train.backbone, {}
    k_folds = check_fold_numbers(settings.train.folds, settings.train.num_folds)
    finished = {
        (run.settings["version"], run.k_fold): run
        for run in run_folder.list_runs(paths.model_data_dir(), 3)
        if run.record["finished"] and run.settings["backbone"] == backbone
    }

    # 2 train and score each view
    for view in settings.views:
        versions[view] = version = f"{settings.train.version}-{view}"
        missing = tuple(k for k in k_folds if (version, k) not in finished)
        there = [k for k in k_folds if k not in missing]
        for k in there if not settings.train.overwrite else ():
            check_same_settings(finished[version, k], settings.train)
        if there and not settings.train.overwrite:
            print(f"{version}: trained before: fold {', '.join(map(str, there))}")
        else:
            missing = tuple(k_folds)
        if missing:
            cls_train.main(
                replace(settings.train, version=version, lesion_view=view, folds=missing)
            )
        cls_eval.main(cls_eval.Settings(backbone, "all", version, tta=settings.tta))

    # 3 compare
    which = tuple(f"{backbone}:{version}" for version in versions.values())
    return compare.main(compare.Settings(which, task=3, tta=settings.tta))


def check_same_settings(run, train: cls_train.Settings) -> None:
    """Raise UserError when a run of before was trained in another way than is wanted now."""
    for key, wanted in asdict(train).items():
        if key in ("version", "lesion_view", "folds", "workers", "overwrite"):
            continue
        if run.settings.get(key) != wanted:
            raise UserError(
                f"{run.name} was trained with {key} {run.settings.get(key)}, not {wanted}. Choose "
                f"another --train.version, or --train.overwrite to train all views anew."
            )


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
