"""Score U-Nets at original size, by the challenge's rules, on images they did not train on.

python3 runs/seg_eval.py --backbone vgg16 --k-fold 1
python3 runs/seg_eval.py --backbone vgg16 --k-fold all --ensemble densenet121:0
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet169"  # of the run to evaluate
    k_fold: command_line.KFold = 0  # folds held out; all: every fold there is, together
    version: str = "0"  # of the run
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images that the nets held out; or a set whose truth is in data/"""
    limit: command_line.Limit = None  # score only the first N images by id (of each fold)
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    tuned: bool = False  # use what seg_tune chose; not on the folds that it chose on
    smoothing: command_line.Number = None
    """sigma of the Gaussian on the probability map, in pixels of a 224 px map; None: 1, or tuned"""
    threshold: command_line.Number = None  # of the probability; None: 0.5, or tuned
    fill_holes: bool | None = None  # holes become lesion; None: True, or tuned
    component: Literal["largest", "all"] | None = None
    """connected parts that are kept; None: largest, or tuned"""
    batch_size: int = 32  # images per step


def main(settings: Settings) -> dict[str, float]:
    import numpy as np

    from datasets import ISIC2018
    from datasets.folds import limit_images
    from evaluation import bootstrap, scores, tuned
    from evaluation.mask_scoring import score_masks
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import segmenter_inputs
    from inference.postprocess import mask_of
    from inference.scope import find_scope
    from reports import facts, mask_report

    # 1 runs, rules and images
    scope = find_scope(paths.model_data_dir(), 1, settings, settings.k_fold, settings.eval_set)
    ensemble, data_dir = scope.ensemble, paths.data_dir()
    chosen = tuned.load_for_eval(scope, settings.tuned)
    weights = tuned.member_weights(ensemble, chosen)
    rules = tuned.choose_rules(asdict(settings), chosen)
    inputs = segmenter_inputs(data_dir, ensemble, 1, scope.images_set)
    images = next(iter(inputs.values()))
    truth = ISIC2018.list_truth(data_dir, scope.images_set, images)
    to_score = images_to_score(
        ensemble,
        settings.eval_set,
        images.image_ids,
        lambda image_ids: limit_images(image_ids, settings.limit),
        ISIC2018.find_trained(data_dir, 1, scope.images_set, trained_task=1),
    )

    # 2 logits: read where they are kept, else predicted and kept
    logits = kept_logits.gather_logits(scope, to_score, inputs, settings.batch_size)

    # 3 score
    def mask_for(image_id: str, height: int, width: int) -> np.ndarray:
        return mask_of(logits.blend(image_id, weights), height, width, rules)

    described = f"{ensemble.name}: score"
    table = score_masks(to_score.image_ids, truth.read, {"all": mask_for}, described)["all"]
    table.insert(0, "fold", [to_score.fold_of[image_id] for image_id in table.index])
    lesions = [ensemble.lesions.get(image_id, image_id) for image_id in to_score.image_ids]
    overall = bootstrap.mask_table(table, bootstrap.resample(lesions))
    means = overall["value"].to_dict()

    # 4 store and report
    used = asdict(settings) | {"member_weights": weights} | asdict(rules)
    intervals = {name: [low, high] for name, _, low, high in overall.itertuples()}
    scores.write_scores(scope, used, means | {"intervals_95": intervals}, table)
    originals = ISIC2018.list_originals(data_dir, 1, scope.images_set)

    def masks_of(image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask = mask_for(image_id, *images.size_of(image_id))
        return ISIC2018.read_original(originals[image_id]), truth.read(image_id), mask

    file = mask_report.write(scope, used, overall, table, masks_of)
    what = facts.described(scope, to_score.of_fold)
    print(f"{ensemble.name} on {len(table)} images ({what}), at original size; report: {file}")
    print(facts.scores_text(overall))
    print(facts.folds_text(table, ("jaccard", "threshold_jaccard")), end="")
    print(
        f"mean jaccard: {means['jaccard']:.3f}, threshold jaccard: {means['threshold_jaccard']:.3f}"
    )
    return means


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
