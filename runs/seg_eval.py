"""Score one fold's U-Net at original size, by the challenge's rules.

python3 runs/seg_eval.py --backbone vgg16 --k-fold 1
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
    k_fold: int = 0  # the fold held out
    version: str = "0"  # of the run
    eval_set: Literal["fold", "validation", "test"] = "fold"
    """fold: the images this net did not train on; or a set whose truth lies in data/."""
    limit: int | None = None  # score only the first N of them, in sorted order of the ids
    tta: bool = False  # mean over the 8 flips and quarter turns
    smoothing: float = 1.0  # sigma of a Gaussian on the probability map, in pixels of a 224 px map
    threshold: float = 0.5  # probability above which a pixel is lesion
    fill_holes: bool = True  # lesions have no holes
    component: Literal["largest", "all"] = "largest"  # connected parts that are kept
    batch_size: int = 32  # images per step


def main(settings: Settings) -> dict[str, float]:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import pandas as pd
    from scipy.special import expit
    from tqdm import tqdm

    from datasets import ISIC2018
    from misc_utils import figures, run_folder, scoring
    from misc_utils.postprocess import PostProcessing, lesion_mask
    from misc_utils.prediction import logits_of, predict_logits
    from models.trained import load_segmenter

    # 1 run and images
    run = run_folder.find_run(
        paths.model_data_dir(), 1, settings.backbone, settings.version, settings.k_fold
    )
    folds = run_folder.load_folds(run)
    fold_only = settings.eval_set == "fold"
    images_set = "training" if fold_only else settings.eval_set
    images = ISIC2018.load_images(paths.data_dir(), 1, images_set, run.settings["image_size"])
    truth_files = ISIC2018.list_truth_masks(paths.data_dir(), images_set, images.image_ids)
    if fold_only:
        run_folder.check_same_data(run, images.fingerprint)
        image_ids = run_folder.held_out_images(folds, run.k_fold)
    else:
        image_ids = sorted(images.image_ids)
    image_ids = image_ids[: settings.limit]
    run_folder.check_unseen(folds, run.k_fold, image_ids)

    # 2 predict and score
    rules = PostProcessing(
        settings.smoothing, settings.threshold, settings.fill_holes, settings.component
    )
    net = logits_of(load_segmenter(run.settings, run.weights))

    def score(row: int, logits: np.ndarray) -> dict[str, float]:
        height, width = images.heights[row], images.widths[row]
        truth = ISIC2018.read_truth(truth_files[images.image_ids[row]], height, width)
        return scoring.score_mask(truth > 0, to_mask(row, logits) > 0)

    def to_mask(row: int, logits: np.ndarray) -> np.ndarray:
        probability = expit(logits[..., 0].astype(np.float32))
        return lesion_mask(probability, images.heights[row], images.widths[row], rules)

    scores: dict[str, dict] = {}
    maps: dict[str, np.ndarray] = {}
    rows, views = images.rows(image_ids), 8 if settings.tta else 1
    progress = tqdm(total=len(rows), desc=run.name, unit="image")
    with progress, ThreadPoolExecutor() as threads:
        for some, logits in predict_logits([net], images.array, rows, settings.batch_size, views):
            for row, result, logit in zip(
                some, threads.map(score, some, logits), logits, strict=True
            ):
                scores[images.image_ids[row]] = result
                maps[images.image_ids[row]] = logit.astype(np.float16)
            progress.update(len(some))

    # 3 report
    table = pd.DataFrame.from_dict(scores, orient="index").rename_axis("image")
    means = scoring.mean_scores(list(scores.values()))
    run_folder.write_scores(run, settings.eval_set, asdict(settings), means, table)
    ranked = table["jaccard"].sort_values().index.tolist()
    shown = list(dict.fromkeys(ranked[:4] + middle(ranked, 4) + ranked[-4:]))
    shown_rows = images.rows(shown)
    sizes = [(images.heights[row], images.widths[row]) for row in shown_rows]
    originals = ISIC2018.list_originals(paths.data_dir(), 1, images_set)
    figures.draw_overlays(
        run.file(f"overlays_{settings.eval_set}.png"),
        [ISIC2018.read_original(originals[image_id]) for image_id in shown],
        [ISIC2018.read_truth(truth_files[i], *size) for i, size in zip(shown, sizes, strict=True)],
        [to_mask(row, maps[i]) for row, i in zip(shown_rows, shown, strict=True)],
        [f"{image_id}  Jaccard {table.jaccard[image_id]:.2f}" for image_id in shown],
    )
    of = f"fold {run.k_fold}, held out" if fold_only else f"the {settings.eval_set} set"
    print(f"{run.name} on {len(rows)} images ({of}), at original size; more in {run.folder}")
    print(
        f"mean jaccard: {means['jaccard']:.3f}, threshold jaccard: {means['threshold_jaccard']:.3f}"
    )
    return means


def middle(ranked: list[str], count: int) -> list[str]:
    """The `count` items around the median of a ranked list."""
    start = max((len(ranked) - count) // 2, 0)
    return ranked[start : start + count]


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
