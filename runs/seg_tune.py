"""Choose threshold, smoothing, component rule and ensemble weights on held-out predictions.

python3 runs/seg_tune.py --backbone vgg16
python3 runs/seg_tune.py --backbone vgg16 --ensemble densenet121:0
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

    backbone: Literal[*BACKBONES] = "densenet169"  # of the runs to tune
    version: str = "0"  # of the runs
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    tta: bool = False  # tune for the mean over 8 flips and quarter turns
    measure: Literal["threshold_jaccard", "jaccard", "dice"] = "threshold_jaccard"  # to maximise
    search_size: int = 512
    """longest side in pixels that masks are compared at during the search; the scores reported at
    the end are at original size"""
    seed: int = 42  # for splitting a single fold into parts
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on


def main(settings: Settings) -> dict[str, float]:
    from dataclasses import replace
    from functools import cache

    import numpy as np
    from tqdm import tqdm

    from deploy import model_card
    from evaluation import bootstrap, tuned
    from evaluation.calibration import parts_of
    from evaluation.mask_scoring import MaskFor, score_masks
    from evaluation.mask_tuning import MaskChoice, choose, choose_nested, shrunken
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import open_dataset_of, segmenter_inputs
    from inference.postprocess import mask_of
    from inference.scope import find_scope
    from reports import facts

    # 1 held-out predictions and truth
    scope = find_scope(paths.model_data_dir(), 1, settings)
    ensemble, members = scope.ensemble, len(scope.ensemble.members)
    dataset = open_dataset_of(ensemble, paths.data_dir())
    images = next(iter(segmenter_inputs(dataset, ensemble, 1, "training").values())).images
    truth = dataset.list_truth(1, "training", images)
    related = dataset.find_related(1, "training", trained_task=1)
    to_score = images_to_score(ensemble, "fold", images.image_ids, related=related)
    logits = kept_logits.gather_logits(scope, to_score, inputs=None)
    image_ids = to_score.image_ids
    lesions = [ensemble.lesions[image_id] for image_id in image_ids]
    part = parts_of(list(map(to_score.fold_of.get, image_ids)), lesions, settings.seed)
    if len(np.unique(part)) < 2:
        raise UserError("tuning needs two held-out images at least.")

    def mask_by(choices: dict[str, MaskChoice]) -> MaskFor:
        def mask_for(image_id: str, height: int, width: int) -> np.ndarray:
            choice = choices[image_id]
            return mask_of(logits.blend(image_id, choice.weights), height, width, choice.rules)

        return mask_for

    # 2 search, on all folds and once more without each
    small_truth_of = shrunken(truth.read, settings.search_size)
    with tqdm(desc="choices compared", unit="choice") as progress:

        @cache
        def quick_score(choice: MaskChoice) -> np.ndarray:
            progress.update()
            rules = {"one": mask_by(dict.fromkeys(image_ids, choice))}
            tables = score_masks(image_ids, small_truth_of, rules)
            return tables["one"][settings.measure].to_numpy()

        best = choose(quick_score, members)
        nested = dict(choose_nested(quick_score, members, part))

    # 3 what it is worth, at original size
    rules = {
        "not tuned": mask_by(dict.fromkeys(image_ids, MaskChoice((1.0,) * members))),
        "tuned on other folds": mask_by(
            {image_id: nested[p] for image_id, p in zip(image_ids, part, strict=True)}
        ),
        "tuned on the same": mask_by(dict.fromkeys(image_ids, best)),
    }
    tables = score_masks(image_ids, truth.read, rules, "score")
    weights = bootstrap.resample(lesions)
    worth = {name: bootstrap.mask_table(table, weights) for name, table in tables.items()}
    before, after = tables["not tuned"], tables["tuned on other folds"]
    worth["difference"] = bootstrap.mask_difference(before, after, weights)

    # 4 store and report
    total = sum(best.weights)
    best = replace(best, weights=tuple(weight / total for weight in best.weights))
    default = MaskChoice((1 / members,) * members)
    best, worth, dropped = tuned.keep_gain(worth, settings.measure, best, default)
    tuned.write_tuned(scope, best, worth)
    model_card.write_for(scope.ensemble, paths.root())
    measures, folds, count = (
        ["jaccard", "threshold_jaccard", "dice"],
        to_score.of_fold,
        len(image_ids),
    )
    print(facts.tuning_text(scope, folds, count, best, worth, measures, dropped))
    return worth["tuned on other folds"]["value"].to_dict()


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
