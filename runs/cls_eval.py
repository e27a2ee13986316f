"""Score classifiers by the challenge's rules, on images whose lesions they did not train on.

python3 runs/cls_eval.py --backbone densenet121 --k-fold 0
python3 runs/cls_eval.py --backbone densenet121 --k-fold all --ensemble vgg16:0
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the run to evaluate
    k_fold: command_line.KFold = 0  # folds held out; all: every fold there is, together
    version: str = "0"  # of the run
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images that the nets held out; or a set whose truth is in data/"""
    limit: command_line.Limit = None
    """score only N images (of each fold): the first of each class, in proportion"""
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    tuned: bool = False  # use what cls_tune chose; not on the folds that it chose on
    batch_size: int = 16  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on


def main(settings: Settings) -> dict[str, float]:
    import numpy as np
    import pandas as pd

    from datasets.folds import limit_labels
    from datasets.pictures import read_original
    from deploy import model_card
    from evaluation import calibration, class_evaluation, scores, tuned
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import classifier_inputs, open_dataset_of
    from inference.scope import find_scope
    from reports import class_report, facts

    # 1 runs and images
    scope = find_scope(paths.model_data_dir(), 3, settings, settings.k_fold, settings.eval_set)
    ensemble, classes = scope.ensemble, scope.ensemble.classes
    dataset = open_dataset_of(ensemble, paths.data_dir())
    chosen = tuned.load_for_eval(scope, settings.tuned)
    originals = dataset.list_images(3, scope.images_set)
    labels = dataset.load_labels(scope.images_set, list(originals))
    to_score = images_to_score(
        ensemble,
        settings.eval_set,
        labels,
        lambda image_ids: limit_labels({i: labels[i] for i in image_ids}, settings.limit),
        dataset.find_related(3, scope.images_set, trained_task=3),
    )
    image_ids = to_score.image_ids
    inputs, _ = classifier_inputs(
        dataset, paths.submissions_dir(), ensemble, scope.images_set, needed=image_ids
    )

    # 2 logits: read where they are kept, else predicted and kept
    logits = kept_logits.gather_logits(scope, to_score, inputs, settings.batch_size)
    log_probability = logits.stack(image_ids)  # (members, images, classes)

    # 3 score
    truth = np.array([labels[image_id] for image_id in image_ids])
    probability = calibration.blend(log_probability, chosen)
    lesions = ensemble.lesions if scope.held_out else dataset.groups_of(3, scope.images_set)
    table = pd.DataFrame(
        {
            "lesion": [lesions.get(image_id, image_id) for image_id in image_ids],
            "fold": [to_score.fold_of[image_id] for image_id in image_ids],
            "truth": [classes[label] for label in truth],
            **dict(zip(classes, probability.T, strict=True)),
        },
        index=pd.Index(image_ids, name="image"),
    )
    scored = class_evaluation.score(table, truth, log_probability, calibrate=scope.held_out)

    # 4 store and report
    used = asdict(settings) | {"chosen": chosen and chosen.to_json()}
    scores.write_scores(scope, used, scored.as_json(), table)
    file = class_report.write(
        scope, used, table, scored, lambda image_id: read_original(originals[image_id])
    )
    card = model_card.write_for(ensemble, paths.root())
    what = facts.described(scope, to_score.of_fold)
    print(f"{ensemble.name} on {len(table)} images ({what}); report: {file}")
    print(f"model card: {card}")
    print(class_report.text(scored, table))
    means = scored.overall["value"]
    print(f"accuracy: {means['accuracy']:.3f}, balanced accuracy: {means['balanced_accuracy']:.3f}")
    return means.to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
