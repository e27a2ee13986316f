"""Choose temperature, ensemble weights and, if wanted, decision weights on held-out predictions.

python3 runs/cls_tune.py --backbone densenet121
python3 runs/cls_tune.py --backbone densenet121 --ensemble vgg16:0 --decision-weights
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from misc_utils.errors import UserError
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the runs to tune
    version: str = "0"  # of the runs
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    tta: bool = False  # tune for the mean over the 8 flips and quarter turns
    decision_weights: bool = False
    """Also a factor per class, for the highest balanced accuracy; the table then holds scores that
    are no calibrated probabilities any more."""


def main(settings: Settings) -> dict[str, float]:
    import numpy as np

    from datasets import ISIC2018
    from evaluation import bootstrap, calibration, class_evaluation, tuned
    from inference import ensemble, kept_logits
    from reports import eval_report
    from training import run_folder

    # 1 held-out predictions and truth
    nets = ensemble.find_ensemble(
        paths.model_data_dir(), 3, settings.backbone, settings.version, settings.ensemble
    )
    ensemble.check_alike(nets)
    views = 8 if settings.tta else 1
    folds = run_folder.load_folds(nets.runs[0]).set_index("image", drop=False)
    parts = ensemble.images_to_score(nets, "fold", list(folds.index))
    logits = kept_logits.gather_logits(nets, "fold", views, parts, predict=None)
    image_ids = sorted(image_id for part in parts.values() for image_id in part)
    folds = folds.loc[image_ids]
    truth, part = folds["label"].to_numpy(), class_evaluation.parts_of(folds)
    if len(np.unique(part)) < 2:
        raise UserError("tuning needs two held-out lesions at least.")
    log_probability = kept_logits.stack_logits(logits, image_ids)  # (members, images, 7)

    # 2 fit, on all folds and once more without each
    def fit(rows: np.ndarray) -> dict:
        blend = calibration.fit_blend(log_probability[:, rows], truth[rows])
        chosen = {
            "member_weights": [float(weight) for weight in blend.weights],
            "temperature": float(blend.temperature),
            "decision_weights": None,
        }
        if settings.decision_weights:
            probability = tuned.class_probability(log_probability[:, rows], chosen)
            factors = calibration.fit_decision_weights(truth[rows], probability)
            chosen["decision_weights"] = [float(factor) for factor in factors]
        return chosen

    def apply(chosen: dict, rows: np.ndarray) -> np.ndarray:
        return tuned.class_probability(log_probability[:, rows], chosen)

    every = np.ones(len(truth), bool)
    chosen = fit(every)
    probabilities = {
        "not tuned": tuned.class_probability(log_probability, None),
        "tuned on other folds": calibration.nested(part, fit, apply),
        "tuned on the same": apply(chosen, every),
    }

    # 3 what it is worth
    weights = bootstrap.resample(folds["lesion"].tolist())
    worth = {
        name: class_evaluation.overall_table(truth, probability, weights, ISIC2018.CLASSES)
        for name, probability in probabilities.items()
    }
    before, after = list(probabilities.values())[:2]
    worth["difference"] = bootstrap.class_difference(truth, before, after, weights)

    # 4 store and report
    tuned.write_tuned(nets, views, chosen, worth)
    print(f"{nets.name}, {len(truth)} images ({eval_report.described(nets, 'fold', list(parts))})")
    for label, weight in zip(nets.labels, chosen["member_weights"], strict=True):
        print(f"  weight of {label}: {weight:.3f}")
    print(f"  temperature: {chosen['temperature']:.3f}")
    if chosen["decision_weights"]:
        pairs = zip(ISIC2018.CLASSES, chosen["decision_weights"], strict=True)
        print("  decision weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in pairs))
    if len(parts) < 2:
        print("one fold alone: cut into five parts, each tuned on the other four")
    measures = ("balanced_accuracy", "accuracy", "negative_log_likelihood", "calibration_error")
    print(eval_report.worth_text(worth, measures))
    print(f"cls_predict.py uses these values from now on: {tuned.tuned_file(nets, views)}")
    return worth["tuned on other folds"]["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
