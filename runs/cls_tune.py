"""Choose temperature, ensemble weights and, if wanted, decision weights on held-out predictions.

python3 runs/cls_tune.py --backbone densenet121
python3 runs/cls_tune.py --backbone densenet121 --ensemble vgg16:0 --decision-weights
"""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from misc_utils.errors import UserError
from models.backbones import BACKBONES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the runs to tune
    version: str = "0"  # of the runs
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    tta: bool = False  # tune for the mean over 8 flips and quarter turns
    decision_weights: bool = False
    """also choose a factor per class, for the highest balanced accuracy; the table then holds
    scores that are no longer calibrated"""
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on


def main(settings: Settings) -> dict[str, float]:
    import numpy as np

    from deploy import model_card
    from evaluation import bootstrap, calibration, class_evaluation, tuned
    from evaluation.calibration import ClassChoice
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import open_dataset_of
    from inference.scope import find_scope
    from reports import facts

    # 1 held-out predictions and truth, which may have been corrected since training
    scope = find_scope(paths.model_data_dir(), 3, settings)
    ensemble = scope.ensemble
    folds = ensemble.folds[ensemble.runs[0].name].set_index("image", drop=False)
    to_score = images_to_score(ensemble, "fold", list(folds.index))
    logits = kept_logits.gather_logits(scope, to_score, inputs=None)
    folds = folds.loc[to_score.image_ids]
    try:
        labels = open_dataset_of(ensemble, paths.data_dir()).known_labels("training")
    except UserError as error:
        log.warning("%s Tuned by the labels of then, as folds.csv has them.", error)
        labels = {}
    truth = np.array([labels.get(i, label) for i, label in folds["label"].items()])
    part = calibration.parts_of(folds["fold"], folds["lesion"])
    if len(np.unique(part)) < 2:
        raise UserError("tuning needs two held-out lesions at least.")
    log_probability = logits.stack(to_score.image_ids)  # (members, images, classes)

    # 2 fit, on all folds and once more without each
    def fit(rows: np.ndarray) -> ClassChoice:
        choice = calibration.fit_blend(log_probability[:, rows], truth[rows])
        if not settings.decision_weights:
            return choice
        factors = calibration.fit_decision_weights(truth[rows], apply(choice, rows))
        return replace(choice, decision_weights=tuple(map(float, factors)))

    def apply(choice: ClassChoice, rows: np.ndarray) -> np.ndarray:
        return calibration.blend(log_probability[:, rows], choice)

    every = np.ones(len(truth), bool)
    chosen = fit(every)
    probabilities = {
        "not tuned": calibration.blend(log_probability),
        "tuned on other folds": calibration.nested(part, fit, apply),
        "tuned on the same": apply(chosen, every),
    }

    # 3 what it is worth
    weights = bootstrap.resample(folds["lesion"].tolist())
    worth = {
        name: class_evaluation.overall_table(truth, probability, weights, ensemble.classes)
        for name, probability in probabilities.items()
    }
    before, after = list(probabilities.values())[:2]
    worth["difference"] = class_evaluation.difference_table(truth, before, after, weights)

    # 4 store and report
    default = calibration.equal_weights(len(log_probability))
    decisive = "balanced_accuracy" if settings.decision_weights else "negative_log_likelihood"
    chosen, worth, dropped = tuned.keep_gain(worth, decisive, chosen, default)
    tuned.write_tuned(scope, chosen, worth)
    model_card.write_for(scope.ensemble, paths.root())
    measures = ["balanced_accuracy", "accuracy", "negative_log_likelihood", "calibration_error"]
    print(facts.tuning_text(scope, to_score.of_fold, len(truth), chosen, worth, measures, dropped))
    return worth["tuned on other folds"]["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
