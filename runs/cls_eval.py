"""Score one fold's classifier by the challenge's rules.

python3 runs/cls_eval.py --backbone densenet121 --k-fold 0
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
    k_fold: int = 0  # the fold held out
    version: str = "0"  # of the run
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images this net did not train on; or a set whose truth lies in data/."""
    limit: int | None = None  # score only N of them, the first ones of each class
    tta: bool = False  # mean over the 8 flips and quarter turns
    batch_size: int = 16  # images per step


def main(settings: Settings) -> dict[str, float]:
    import numpy as np
    import pandas as pd
    from scipy.special import softmax
    from tqdm import tqdm

    from datasets import ISIC2018
    from datasets.ISIC2018.folds import limit_labels
    from misc_utils import figures, run_folder, scoring, submission
    from misc_utils.prediction import logits_of, predict_logits
    from models.trained import load_classifier

    # 1 run and images
    run = run_folder.find_run(
        paths.model_data_dir(), 3, settings.backbone, settings.version, settings.k_fold
    )
    folds = run_folder.load_folds(run)
    fold_only = settings.eval_set == "fold"
    images_set, data_dir = "training" if fold_only else settings.eval_set, paths.data_dir()
    view = run.settings["lesion_view"]
    crops = submission.load_view_crops(paths.submissions_dir(), images_set, view)
    run_folder.check_same_crops([run], crops.maker if crops else None)
    image_ids = list(ISIC2018.list_originals(data_dir, 3, images_set))
    labels = ISIC2018.load_labels(data_dir, images_set, image_ids)
    if fold_only:
        labels = {i: labels[i] for i in run_folder.held_out_images(folds, run.k_fold)}
    labels = limit_labels(labels, settings.limit)
    images = ISIC2018.load_view(
        data_dir,
        images_set,
        run.settings["image_size"],
        view,
        crops,
        run.settings["box_margin"],
        needed=list(labels),
    )
    if fold_only:
        run_folder.check_same_data(run, images.fingerprint)
    run_folder.check_unseen(folds, run.k_fold, list(labels))

    # 2 predict and score
    net = logits_of(load_classifier(run.settings, run.weights))
    rows, views = images.rows(labels), 8 if settings.tta else 1
    logits = []
    with tqdm(total=len(rows), desc=run.name, unit="image") as progress:
        for some, values in predict_logits([net], images.array, rows, settings.batch_size, views):
            logits.append(values)
            progress.update(len(some))
    probability = softmax(np.concatenate(logits).astype(np.float64), axis=1)
    scores = scoring.score_classes(np.array(list(labels.values())), probability)

    # 3 report
    classes = ISIC2018.CLASSES
    table = pd.DataFrame(probability, columns=list(classes), index=list(labels))
    table = table.rename_axis("image")
    table.insert(0, "truth", [classes[label] for label in labels.values()])
    means = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}
    run_folder.write_scores(run, settings.eval_set, asdict(settings), means, table)
    of = f"fold {run.k_fold}, held out" if fold_only else f"the {settings.eval_set} set"
    figure = run.file(f"confusion_{settings.eval_set}.png")
    figures.draw_confusion(figure, scores.confusion, classes, f"{run.name}, {of}")
    print(f"{run.name} on {len(rows)} images ({of}); more in {run.folder}")
    print("rows: truth, columns: prediction (the class of the largest probability)")
    columns = [*classes, "tie"]
    confusion = pd.DataFrame(scores.confusion, index=list(classes), columns=columns)
    confusion = confusion.drop(columns=[] if confusion["tie"].any() else ["tie"])
    confusion["precision"], confusion["recall"] = scores.precision, scores.recall
    print(confusion.to_string(float_format="{:.3f}".format, na_rep="none"))
    print(f"accuracy: {scores.accuracy:.3f}, balanced accuracy: {scores.balanced_accuracy:.3f}")
    return means


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
