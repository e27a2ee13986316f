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
    k_fold: int | Literal["all"] = 0  # the fold held out; all: every fold there is, together
    version: str = "0"  # of the run
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images these nets did not train on; or a set whose truth lies in data/."""
    limit: int | None = None  # score only the first N (of each fold), in sorted order of the ids
    tta: bool = False  # mean over the 8 flips and quarter turns
    tuned: bool = False  # as seg_tune chose; not for the folds, on which it chose
    smoothing: float | None = None
    """Sigma of a Gaussian on the probability map, in pixels of a 224 px map; None: 1, or tuned."""
    threshold: float | None = None  # probability above which is lesion; None: 0.5, or tuned
    fill_holes: bool | None = None  # lesions have no holes; None: True, or tuned
    component: Literal["largest", "all"] | None = None
    """Connected parts that are kept; None: largest, or tuned."""
    batch_size: int = 32  # images per step


def main(settings: Settings) -> dict[str, float]:
    import numpy as np

    from datasets import ISIC2018
    from evaluation import bootstrap, mask_scoring, tuned
    from inference import ensemble, kept_logits, postprocess
    from reports import eval_report
    from training.run_folder import check_same_data

    # 1 runs and images
    nets = ensemble.find_ensemble(
        paths.model_data_dir(),
        1,
        settings.backbone,
        settings.version,
        settings.ensemble,
        settings.k_fold,
    )
    ensemble.check_alike(nets)
    fold_only, views = settings.eval_set == "fold", 8 if settings.tta else 1
    images_set, data_dir = "training" if fold_only else settings.eval_set, paths.data_dir()
    sizes = sorted({run.settings["image_size"] for run in nets.runs})
    images = {size: ISIC2018.load_images(data_dir, 1, images_set, size) for size in sizes}
    some = images[sizes[0]]
    truth_files = ISIC2018.list_truth_masks(data_dir, images_set, some.image_ids)
    if fold_only:
        check_same_data(nets.runs[0], some.fingerprint)
    parts = ensemble.images_to_score(nets, settings.eval_set, some.image_ids, settings.limit)
    image_ids = sorted(image_id for part in parts.values() for image_id in part)

    # 2 predict what is not kept from before
    def predict(run, image_ids):
        command_line.import_keras()
        from inference.prediction import Net, logits_of, predict_logits
        from models.trained import load_segmenter

        model = logits_of(load_segmenter(run.settings, run.weights))
        net = Net(model, images[run.settings["image_size"]])
        return predict_logits([net], image_ids, settings.batch_size, views)

    logits = kept_logits.gather_logits(
        nets, settings.eval_set, views, parts, predict, lambda run: some.fingerprint
    )

    # 3 score what is kept
    chosen = tuned.load_for_eval(nets, views, settings.tuned, settings.eval_set)
    weights = tuned.member_weights(nets, chosen)
    rules = tuned.choose_rules(asdict(settings), chosen)
    row = dict(zip(some.image_ids, range(len(some.image_ids)), strict=True))

    def logits_of_image(image_id: str) -> np.ndarray:
        return kept_logits.blend_logits(logits, weights, image_id)

    def truth_of(image_id: str) -> np.ndarray:
        height, width = some.heights[row[image_id]], some.widths[row[image_id]]
        return ISIC2018.read_truth(truth_files[image_id], height, width) > 0

    table = mask_scoring.score_maps(
        image_ids, logits_of_image, truth_of, rules, f"{nets.name}: score"
    )
    fold_of = {image_id: k_fold for k_fold, part in parts.items() for image_id in part}
    table.insert(0, "fold", [fold_of[image_id] for image_id in image_ids])
    scores = bootstrap.mask_table(table, bootstrap.resample(image_ids))
    means = scores["value"].to_dict()

    # 4 report
    used = asdict(settings) | {"member_weights": weights} | asdict(rules)
    intervals = {"intervals_95": {name: [low, high] for name, _, low, high in scores.itertuples()}}
    ending = settings.eval_set + "_tta" * settings.tta
    ensemble.write_scores(nets, ending, used, means | intervals, table)
    originals = ISIC2018.list_originals(data_dir, 1, images_set)

    def masks_of(image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth = truth_of(image_id)
        mask = postprocess.mask_of(logits_of_image(image_id), *truth.shape, rules)
        return ISIC2018.read_original(originals[image_id]), truth, mask

    file = eval_report.write_segmentation(nets, settings.eval_set, used, scores, table, masks_of)
    of = eval_report.described(nets, settings.eval_set, list(parts))
    print(f"{nets.name} on {len(table)} images ({of}), at original size; report: {file}")
    print(eval_report.scores_text(scores))
    print(eval_report.folds_text(table, ("jaccard", "threshold_jaccard")), end="")
    print(
        f"mean jaccard: {means['jaccard']:.3f}, threshold jaccard: {means['threshold_jaccard']:.3f}"
    )
    return means


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
