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
    task: Literal[1, 2] = 1  # 1: the lesion; 2: attributes
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on


def main(settings: Settings) -> dict[str, float]:
    import numpy as np

    from datasets.folds import limit_images
    from datasets.pictures import read_original
    from datasets.tasks import TASKS
    from deploy import model_card
    from evaluation import attribute_scoring, bootstrap, scores, tuned
    from inference import kept_logits
    from inference.ensemble import images_to_score
    from inference.inputs import open_dataset_of, segmenter_inputs
    from inference.postprocess import mask_of
    from inference.scope import find_scope
    from reports import attribute_report, facts, mask_report

    # 1 runs, rules and images
    task, k_fold = settings.task, settings.k_fold
    scope = find_scope(paths.model_data_dir(), task, settings, k_fold, settings.eval_set)
    ensemble, channels = scope.ensemble, TASKS[task].channels
    dataset = open_dataset_of(ensemble, paths.data_dir())
    chosen = tuned.load_for_eval(scope, settings.tuned)
    weights = tuned.member_weights(ensemble, chosen)
    rules = tuned.choose_rules(asdict(settings), chosen, task)
    inputs = segmenter_inputs(dataset, ensemble, task, scope.images_set)
    images = next(iter(inputs.values())).images
    truth = dataset.list_truth(task, scope.images_set, images)
    to_score = images_to_score(
        ensemble,
        settings.eval_set,
        images.image_ids,
        lambda image_ids: limit_images(image_ids, settings.limit),
        dataset.find_related(task, scope.images_set, trained_task=task),
    )

    # 2 logits: read where they are kept, else predicted and kept
    logits = kept_logits.gather_logits(scope, to_score, inputs, settings.batch_size)

    # 3 score
    def masks_for(image_id: str, height: int, width: int) -> dict[str, np.ndarray]:
        maps = logits.blend(image_id, weights)
        return {name: mask_of(maps, height, width, rules, k) for k, name in enumerate(channels)}

    def truth_of(image_id: str) -> dict[str, np.ndarray]:
        return {name: truth.read(image_id, name) for name in channels}

    image_ids, described = to_score.image_ids, f"{ensemble.name}: score"
    score, measure = (score_lesions, bootstrap.mask_table)
    if task == 2:
        score, measure = attribute_scoring.count_table, attribute_scoring.score_attributes
    table = score(image_ids, truth_of, masks_for, channels, described)
    table.insert(0, "fold", [to_score.fold_of[image_id] for image_id in table.index])
    lesions = ensemble.lesions if scope.held_out else dataset.groups_of(task, scope.images_set)
    table.insert(1, "lesion", [lesions.get(image_id, image_id) for image_id in table.index])
    overall = measure(table, bootstrap.resample(list(table["lesion"])))
    means = overall["value"].to_dict()

    # 4 store and report
    used = asdict(settings) | {"member_weights": weights} | asdict(rules)
    intervals = {name: [low, high] for name, _, low, high in overall.itertuples()}
    scores.write_scores(scope, used, means | {"intervals_95": intervals}, table)
    originals = dataset.list_images(task, scope.images_set)

    def shown(image_id: str) -> tuple[np.ndarray, dict, dict]:
        masks = masks_for(image_id, *images.size_of(image_id))
        return read_original(originals[image_id]), truth_of(image_id), masks

    write = mask_report.write if task == 1 else attribute_report.write
    file = write(scope, used, overall, table, shown)
    card = model_card.write_for(ensemble, paths.root())
    what = facts.described(scope, to_score.of_fold)
    print(f"{ensemble.name} on {len(table)} images ({what}), at original size; report: {file}")
    print(f"model card: {card}")
    print(facts.scores_text(overall))
    if task == 1:
        print(facts.folds_text(table, TASKS[task].measures), end="")
    print(", ".join(f"{said}: {means[name]:.3f}" for name, said in LAST_LINE[task].items()))
    return means


# Of each task the measures of the last line, and their words
LAST_LINE = {
    1: {"jaccard": "mean jaccard", "threshold_jaccard": "threshold jaccard"},
    2: {"jaccard": "mean jaccard of the attributes", "micro_jaccard": "of all together"},
}


def score_lesions(image_ids, truth_of, masks_for, channels, described):
    """The table of mask_scoring.score_masks, of what gives {channel: mask}."""
    from evaluation.mask_scoring import score_masks

    (name,) = channels
    rules = {"all": lambda *which: masks_for(*which)[name]}
    return score_masks(image_ids, lambda i: truth_of(i)[name], rules, described)["all"]


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
