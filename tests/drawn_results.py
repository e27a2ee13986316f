"""Results of drawn makers, runs without a net, and a look at what lies in a folder."""

import numpy as np

from datasets import lesion_crops
from datasets.lesion_crops import CropRow
from inference import submission
from training import claim

IDS = ["ISIC_0000003", "ISIC_0000001", "ISIC_0000002"]
MADE_BY = {
    "settings": {"threshold": 0.5, "pred_set": "test", "limit": None},
    "weights": {"task1_tiny_k0_v0": "ab12"},
    "images_by_nets": {"folds 0": IDS},
}


def create_run(model_data, task, k_fold, settings, folds, facts):
    """A run that has begun, in place of any of the same name."""
    claim.check_settings(model_data, task, settings, [k_fold], overwrite=True)
    replaced = claim.stamp_runs(model_data, task, settings, [k_fold])
    with claim.claim_run(model_data, task, k_fold, settings, folds, facts, replaced) as run:
        claim.begin_run(run, folds)
    return run


def changed(**settings):
    return MADE_BY | {"settings": MADE_BY["settings"] | settings}


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def make_crops(folder, name="task3_test_crops", made_by=MADE_BY, rows=None):
    target = submission.open_folder(folder, name, made_by, False)
    rows = rows or [CropRow(image_id, 1, 2, 3, 4, 10, 20, 7) for image_id in IDS]
    format = made_by["settings"].get("format", "png")
    for row in rows:
        lesion_crops.write_crop(target, row.image, np.full((3, 4, 3), 9, np.uint8), format)
    lesion_crops.write_crops_table(target, rows)
    submission.close_folder(folder, name, made_by, {"images": len(rows)})
