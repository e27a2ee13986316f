"""Classify a set of images and write the submission table.

python3 runs/cls_predict.py --backbone densenet121 --pred-set test
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the runs that predict
    version: str = "0"  # of the runs
    pred_set: Literal["training", "validation", "test"] = "test"  # Task 3 images to classify
    limit: int | None = None  # only N images: the first, or of known classes the first by share
    tta: bool = False  # mean over the 8 flips and quarter turns
    batch_size: int = 16  # images per step
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    import numpy as np
    from scipy.special import softmax
    from tqdm import tqdm

    from datasets import ISIC2018
    from misc_utils import class_table, prediction, provenance, run_folder, submission
    from models.trained import load_classifier

    # 1 runs and images
    runs = run_folder.find_runs(paths.model_data_dir(), 3, settings.backbone, settings.version)
    view = run_folder.same(runs, "lesion_view")
    crops = submission.load_view_crops(paths.submissions_dir(), settings.pred_set, view)
    run_folder.check_same_crops(runs, crops.maker if crops else None)
    data_dir = paths.data_dir()
    there = list(ISIC2018.list_originals(data_dir, 3, settings.pred_set))
    image_ids = ISIC2018.limited(data_dir, 3, settings.pred_set, there, settings.limit)
    images = ISIC2018.load_view(
        data_dir,
        settings.pred_set,
        run_folder.same(runs, "image_size"),
        view,
        crops,
        run_folder.same(runs, "box_margin"),
        needed=image_ids,
    )
    training = settings.pred_set == "training"
    lesions = ISIC2018.load_lesions(data_dir, there) if training else None
    splits = {run.k_fold: run_folder.load_folds(run) for run in runs}
    groups, left_out = prediction.assign_nets(image_ids, splits, lesions)
    print(run_folder.which_folds(runs))
    if left_out:
        print(
            f"left out, as every net there is was trained on their lesions: {len(left_out)} images"
        )

    made_by = prediction.provenance(asdict(settings), runs, groups)
    table = submission.class_file(settings.pred_set)
    if not settings.overwrite:
        provenance.check_maker(paths.submissions_dir(), table, made_by)

    # 2 predict
    nets = {
        run.k_fold: prediction.logits_of(load_classifier(run.settings, run.weights)) for run in runs
    }
    logits = {}
    total, views = len(image_ids) - len(left_out), 8 if settings.tta else 1
    with tqdm(total=total, desc=f"task3_{settings.pred_set}", unit="image") as progress:
        for k_folds, ids in groups.items():
            some_nets, rows = [nets[k] for k in k_folds], images.rows(ids)
            for some, values in prediction.predict_logits(
                some_nets, images.array, rows, settings.batch_size, views
            ):
                logits.update(zip((images.image_ids[row] for row in some), values, strict=True))
                progress.update(len(some))
    predicted = sorted(logits)
    probability = softmax(np.stack([logits[i] for i in predicted]).astype(np.float64), axis=1)

    # 3 write
    expected = expected_images(data_dir, settings, predicted)
    submitted, probability = class_table.add_missing_image(predicted, probability, expected)
    if len(submitted) > len(predicted):
        print(f"{submitted[-1]} is scored with weight 0 and no image: given the mean of all rows")
    file = submission.write_classes(
        paths.submissions_dir(),
        settings.pred_set,
        submitted,
        probability,
        ISIC2018.CLASSES,
        expected_ids=expected,
        made_by=made_by,
        overwrite=settings.overwrite,
    )
    print(f"{len(predicted)} images classified: {file}")


def expected_images(data_dir, settings: Settings, predicted: list[str]) -> list[str]:
    """Ids the submission must have: those of the truth where it is known, else the predicted."""
    from datasets import ISIC2018

    partial = settings.limit is not None or settings.pred_set == "training"
    if not partial and ISIC2018.raw.labels_file(data_dir, settings.pred_set).exists():
        return list(ISIC2018.load_labels(data_dir, settings.pred_set, None))
    if not partial and settings.pred_set == "test" and len(predicted) == 1511:  # all there are
        return [*predicted, ISIC2018.raw.UNRELEASED]
    return predicted


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
