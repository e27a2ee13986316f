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
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    tta: bool = False  # tune for the mean over 8 flips and quarter turns
    measure: Literal["threshold_jaccard", "jaccard", "dice"] = "threshold_jaccard"  # to maximise
    search_size: int = 512
    """longest side in pixels that masks are compared at during the search; the scores reported at
    the end are at original size"""
    seed: int = 42  # for splitting a single fold into parts


def main(settings: Settings) -> dict[str, float]:
    from dataclasses import replace

    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from datasets import ISIC2018
    from evaluation import bootstrap, tuned
    from evaluation.mask_scoring import score_maps
    from evaluation.mask_tuning import Choice, choose, choose_nested, shrunken
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import segmenter_inputs
    from inference.scope import find_scope
    from reports import eval_report

    # 1 held-out predictions and truth
    scope = find_scope(paths.model_data_dir(), 1, settings)
    ensemble, members = scope.ensemble, len(scope.ensemble.members)
    images = next(iter(segmenter_inputs(paths.data_dir(), ensemble, 1, "training").values()))
    truth = ISIC2018.list_truth(paths.data_dir(), "training", images)
    to_score = images_to_score(ensemble, "fold", images.image_ids)
    logits = kept_logits.gather_logits(scope, to_score, inputs=None)
    image_ids = to_score.image_ids
    part = np.array([to_score.fold_of[image_id] for image_id in image_ids])
    if len(to_score.folds) < 2:
        part = np.random.default_rng(settings.seed).permutation(len(image_ids)) % 5
    if len(np.unique(part)) < 2:
        raise UserError("tuning needs two held-out images at least.")

    def score(choice: Choice, scored_ids, truth_of, described=None) -> pd.DataFrame:
        def blend(image_id: str) -> np.ndarray:
            return logits.blend(image_id, choice.weights)

        return score_maps(scored_ids, blend, truth_of, choice.rules, described)

    # 2 search, on all folds and once more without each
    small_truth_of, remembered = shrunken(truth.read, settings.search_size), {}
    with tqdm(desc="choices compared", unit="choice") as progress:

        def quick_score(choice: Choice) -> np.ndarray:
            if choice not in remembered:
                table = score(choice, image_ids, small_truth_of)
                remembered[choice] = table[settings.measure].to_numpy()
                progress.update()
            return remembered[choice]

        best = choose(quick_score, members)
        nested = choose_nested(quick_score, members, part)

    # 3 what it is worth, at original size
    weights = bootstrap.resample(image_ids)
    plain_table = score(Choice((1.0,) * members), image_ids, truth.read, "not tuned")
    tables = []
    for name, choice in nested:
        scored_ids = [image_id for image_id, p in zip(image_ids, part, strict=True) if p == name]
        tables.append(score(choice, scored_ids, truth.read, f"tuned without part {name}"))
    nested_table = pd.concat(tables).loc[image_ids]
    tuned_table = score(best, image_ids, truth.read, "tuned on all")
    worth = {
        "not tuned": bootstrap.mask_table(plain_table, weights),
        "tuned on other folds": bootstrap.mask_table(nested_table, weights),
        "tuned on the same": bootstrap.mask_table(tuned_table, weights),
        "difference": bootstrap.mask_difference(plain_table, nested_table, weights),
    }

    # 4 store and report
    total = sum(best.weights)
    best = replace(best, weights=tuple(weight / total for weight in best.weights))
    file = tuned.write_tuned(scope, best, worth)
    what = eval_report.described(ensemble, "fold", to_score.folds)
    print(f"{ensemble.name}, {len(image_ids)} images ({what})")
    for label, weight in zip(ensemble.labels, best.weights, strict=True):
        print(f"  weight of {label}: {weight:.3f}")
    for name, value in asdict(best.rules).items():
        print(f"  {name}: {value}")
    if len(to_score.folds) < 2:
        print("a single fold: split into five parts, each tuned on the other four")
    print(eval_report.worth_text(worth, ("jaccard", "threshold_jaccard", "dice")))
    print(f"seg_predict.py uses these values from now on: {file}")
    return worth["tuned on other folds"]["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
