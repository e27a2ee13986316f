"""Compare what a classifier is best shown: whole image, box, crop, or crop with a soft edge.

python3 runs/cls_views.py --train.backbone densenet121 --train.folds 0 1

Trains each view on the same folds as a version of its own (0-whole, 0-box, ...), scores it, and
compares; what is trained already is not trained again. Box and crop need `python3
runs/seg_predict.py` first, feather also with --edge feather.
"""

from dataclasses import dataclass, field, replace
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
    """what is compared; differences are to the first"""
    tta: bool = False  # score the mean over 8 flips and quarter turns
    train: cls_train.Settings = field(default_factory=cls_train.Settings)
    """settings of each training; its view, and the version's ending, are filled in"""


def main(settings: Settings) -> dict[str, float]:
    from datasets import lesion_crops
    from datasets.catalogue import open_dataset
    from datasets.dataset import check_steps
    from training import run_folder
    from training.loop import plan_folds

    dataset = open_dataset(paths.data_dir(), settings.train.dataset, settings.train.own)

    # 1 what there is: crops for every view, and no earlier training with other settings
    if len(set(settings.views)) < max(len(settings.views), 2):
        raise UserError(f"--views {' '.join(settings.views)}: name two different ones or more.")
    if settings.train.devices == "hosts":
        raise UserError(
            "--train.devices hosts: views are compared by one process. Train each view by itself "
            "(cls_train.py --lesion-view), then compare them (compare.py)."
        )
    for view in settings.views:
        check_steps(settings.train.preprocess, moved=view == "whole")
    plans = {}
    for view in settings.views:
        limit, name = settings.train.limit, dataset.name
        flags = run_folder.segmenter_flags(paths.model_data_dir(), limit, name)
        lesion_crops.load_view_crops(paths.submissions_dir(), "training", view, flags, name)
        version = f"{settings.train.version}-{view}"
        view_settings = replace(settings.train, version=version, lesion_view=view)
        plans[view] = plan_folds(paths.model_data_dir(), 3, view_settings)

    # 2 train and score each view
    backbone = settings.train.backbone
    for plan in plans.values():
        cls_train.train(plan, dataset)
        check_finished(plan)
        version = plan.settings.version
        which = {"tta": settings.tta, "dataset": dataset.name}
        cls_eval.main(cls_eval.Settings(backbone, "all", version, **which))

    # 3 compare
    which = tuple(f"{backbone}:{plan.settings.version}" for plan in plans.values())
    return compare.main(compare.Settings(which, 3, tta=settings.tta, dataset=dataset.name))


def check_finished(plan) -> None:
    """Raise UserError while another process trains a fold of the plan: half a net is no match."""
    from training import run_folder

    settings = plan.settings
    found = run_folder.list_runs(plan.model_data, plan.task, settings.dataset)
    runs = {run.name: run for run in found}
    for k_fold in plan.k_folds:
        name = run_folder.run_name(
            plan.task, settings.backbone, k_fold, settings.version, settings.dataset
        )
        if name not in runs or not runs[name].finished:
            raise UserError(
                f"{name} is being trained by another process. Repeat the command, without "
                f"--train.overwrite, when that one has ended."
            )


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
