"""Score classifiers by the challenge's rules, on images whose lesions they did not train on.

python3 runs/cls_eval.py --backbone densenet121 --k-fold 0
python3 runs/cls_eval.py --backbone densenet121 --k-fold all --ensemble vgg16:0
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from misc_utils.errors import UserError
from misc_utils.messages import listed
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the run to evaluate
    k_fold: int | Literal["all"] = 0  # the fold held out; all: every fold there is, together
    version: str = "0"  # of the run
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images these nets did not train on; or a set whose truth lies in data/."""
    limit: int | None = None  # score only N images (of each fold), the first ones of each class
    tta: bool = False  # mean over the 8 flips and quarter turns
    tuned: bool = False  # as cls_tune chose; not for the folds, on which it chose
    batch_size: int = 16  # images per step


def main(settings: Settings) -> dict[str, float]:
    import numpy as np
    import pandas as pd

    from datasets import ISIC2018, lesion_crops
    from datasets.folds import limit_labels
    from evaluation import class_evaluation, tuned
    from inference import ensemble, kept_logits
    from reports import class_report, eval_report
    from training import run_folder

    # 1 runs and images
    nets = ensemble.find_ensemble(
        paths.model_data_dir(),
        3,
        settings.backbone,
        settings.version,
        settings.ensemble,
        settings.k_fold,
    )
    ensemble.check_alike(nets)
    fold_only, views = settings.eval_set == "fold", 8 if settings.tta else 1
    images_set, data_dir = "training" if fold_only else settings.eval_set, paths.data_dir()
    originals = ISIC2018.list_originals(data_dir, 3, images_set)
    labels = ISIC2018.load_labels(data_dir, images_set, list(originals))
    parts = ensemble.images_to_score(nets, settings.eval_set, list(labels))
    missing = {image_id for part in parts.values() for image_id in part} - set(labels)
    if missing:
        raise UserError(
            f"data/ lacks {listed(sorted(missing))} that the run held out. Put the images it was "
            f"trained with back."
        )
    parts = {
        k_fold: list(limit_labels({i: labels[i] for i in part}, settings.limit))
        for k_fold, part in parts.items()
    }
    image_ids = sorted(image_id for part in parts.values() for image_id in part)
    images = {}
    for member in nets.members:
        view, margin = (run_folder.same(member, key) for key in ("lesion_view", "box_margin"))
        size = run_folder.same(member, "image_size")
        crops = lesion_crops.load_view_crops(paths.submissions_dir(), images_set, view)
        run_folder.check_same_crops(member, crops.maker if crops else None)
        seen = ISIC2018.load_view(data_dir, images_set, size, view, crops, margin, needed=image_ids)
        if fold_only:
            run_folder.check_same_data(member[0], seen.fingerprint)
        images |= {run.name: seen for run in member}

    # 2 predict what is not kept from before
    def predict(run, image_ids):
        command_line.import_keras()
        from inference.prediction import Net, logits_of, predict_logits
        from models.trained import load_classifier

        net = Net(logits_of(load_classifier(run.settings, run.weights)), images[run.name])
        return predict_logits([net], image_ids, settings.batch_size, views)

    logits = kept_logits.gather_logits(
        nets, settings.eval_set, views, parts, predict, lambda run: images[run.name].fingerprint
    )
    log_probability = kept_logits.stack_logits(logits, image_ids)  # (members, images, 7)

    # 3 score what is kept
    chosen = tuned.load_for_eval(nets, views, settings.tuned, settings.eval_set)
    probability = tuned.class_probability(log_probability, chosen)
    truth = np.array([labels[image_id] for image_id in image_ids])
    fold_of = {image_id: k_fold for k_fold, part in parts.items() for image_id in part}
    table = pd.DataFrame(probability, columns=list(ISIC2018.CLASSES), index=image_ids)
    table = table.rename_axis("image")
    table.insert(0, "truth", [ISIC2018.CLASSES[label] for label in truth])
    table.insert(0, "fold", [fold_of[image_id] for image_id in image_ids])
    lesions = ISIC2018.load_lesions(data_dir, image_ids) if fold_only else {}
    table.insert(0, "lesion", [lesions.get(image_id, image_id) for image_id in image_ids])
    scored = class_evaluation.score(table, truth, log_probability, chosen, calibrate=fold_only)

    # 4 report
    used = asdict(settings) | {"chosen": chosen}
    ending = settings.eval_set + "_tta" * settings.tta
    ensemble.write_scores(nets, ending, used, scored.as_json(), table)
    file = class_report.write(
        nets,
        settings.eval_set,
        used,
        table,
        scored,
        lambda image_id: ISIC2018.read_original(originals[image_id]),
    )
    of = eval_report.described(nets, settings.eval_set, list(parts))
    print(f"{nets.name} on {len(table)} images ({of}); report: {file}")
    print(class_report.text(scored, table))
    means = scored.overall["value"]
    print(f"accuracy: {means['accuracy']:.3f}, balanced accuracy: {means['balanced_accuracy']:.3f}")
    return means.to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
