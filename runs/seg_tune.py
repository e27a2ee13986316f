"""Choose threshold, smoothing, component rule and ensemble weights on held-out predictions.

python3 runs/seg_tune.py --backbone vgg16
python3 runs/seg_tune.py --backbone vgg16 --ensemble densenet121:0
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from misc_utils.errors import UserError
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet169"  # of the runs to tune
    version: str = "0"  # of the runs
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    tta: bool = False  # tune for the mean over the 8 flips and quarter turns
    measure: Literal["threshold_jaccard", "jaccard", "dice"] = "threshold_jaccard"  # to raise
    search_size: int = 512
    """Longest side in pixels that masks are compared at during the search; the scores told at the
    end are at original size."""
    seed: int = 42  # parts an only fold is cut into


def main(settings: Settings) -> dict[str, float]:
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from datasets import ISIC2018
    from evaluation import bootstrap, tuned
    from evaluation.mask_scoring import score_maps
    from evaluation.mask_tuning import Choice, choose, choose_nested, shrunken
    from inference import ensemble, kept_logits
    from reports import eval_report
    from training.run_folder import check_same_data

    # 1 held-out predictions and truth
    nets = ensemble.find_ensemble(
        paths.model_data_dir(), 1, settings.backbone, settings.version, settings.ensemble
    )
    ensemble.check_alike(nets)
    size, views = nets.runs[0].settings["image_size"], 8 if settings.tta else 1
    images = ISIC2018.load_images(paths.data_dir(), 1, "training", size)
    check_same_data(nets.runs[0], images.fingerprint)
    truth_files = ISIC2018.list_truth_masks(paths.data_dir(), "training", images.image_ids)
    parts = ensemble.images_to_score(nets, "fold", images.image_ids)
    logits = kept_logits.gather_logits(nets, "fold", views, parts, predict=None)
    image_ids = sorted(image_id for part in parts.values() for image_id in part)
    part_of = {image_id: k_fold for k_fold, part in parts.items() for image_id in part}
    part = np.array([part_of[image_id] for image_id in image_ids])
    if len(parts) < 2:
        part = np.random.default_rng(settings.seed).permutation(len(image_ids)) % 5
    if len(np.unique(part)) < 2:
        raise UserError("tuning needs two held-out images at least.")
    row = dict(zip(images.image_ids, range(len(images.image_ids)), strict=True))

    def truth_of(image_id: str) -> np.ndarray:
        height, width = images.heights[row[image_id]], images.widths[row[image_id]]
        return ISIC2018.read_truth(truth_files[image_id], height, width) > 0

    def score(choice: Choice, some, truth, described: str | None = None) -> pd.DataFrame:
        def blend(image_id: str) -> np.ndarray:
            return kept_logits.blend_logits(logits, choice.weights, image_id)

        return score_maps(some, blend, truth, choice.rules, described)

    # 2 search, on all folds and once more without each
    small_truth_of, remembered = shrunken(truth_of, settings.search_size), {}
    with tqdm(desc="choices compared", unit="choice") as progress:

        def quick_score(choice: Choice) -> np.ndarray:
            if choice not in remembered:
                table = score(choice, image_ids, small_truth_of)
                remembered[choice] = table[settings.measure].to_numpy()
                progress.update()
            return remembered[choice]

        members = len(nets.members)
        best = choose(quick_score, members)
        nested = choose_nested(quick_score, members, part)

    # 3 what it is worth, at original size
    weights = bootstrap.resample(image_ids)
    plain_table = score(Choice((1.0,) * members), image_ids, truth_of, "not tuned")
    tables = []
    for name, choice in nested:
        some = [image_id for image_id, p in zip(image_ids, part, strict=True) if p == name]
        tables.append(score(choice, some, truth_of, f"tuned without part {name}"))
    nested_table = pd.concat(tables).loc[image_ids]
    tuned_table = score(best, image_ids, truth_of, "tuned on all")
    worth = {
        "not tuned": bootstrap.mask_table(plain_table, weights),
        "tuned on other folds": bootstrap.mask_table(nested_table, weights),
        "tuned on the same": bootstrap.mask_table(tuned_table, weights),
        "difference": bootstrap.mask_difference(plain_table, nested_table, weights),
    }

    # 4 store and report
    total = sum(best.weights)
    chosen = {"member_weights": [weight / total for weight in best.weights]} | asdict(best.rules)
    tuned.write_tuned(nets, views, chosen, worth)
    of = eval_report.described(nets, "fold", list(parts))
    print(f"{nets.name}, {len(image_ids)} images ({of})")
    for label, weight in zip(nets.labels, chosen["member_weights"], strict=True):
        print(f"  weight of {label}: {weight:.3f}")
    for name, value in asdict(best.rules).items():
        print(f"  {name}: {value}")
    if len(parts) < 2:
        print("one fold alone: cut into five parts, each tuned on the other four")
    print(eval_report.worth_text(worth, ("jaccard", "threshold_jaccard", "dice")))
    print(f"seg_predict.py uses these values from now on: {tuned.tuned_file(nets, views)}")
    return worth["tuned on other folds"]["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
