"""Segment a set of images: write cropped lesions, or with `mask` the masks alone.

python3 runs/seg_predict.py --backbone vgg16 --pred-set test
python3 runs/seg_predict.py mask --task 1 --pred-set test
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)
import tyro

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    output: tyro.conf.Positional[Literal["crops", "mask"]] = "crops"
    """crops: bounding box of the lesion, background black, and crops.csv; mask: 0/255 masks."""
    backbone: Literal[*BACKBONES] = "densenet169"  # of the runs that predict
    version: str = "0"  # of the runs
    task: Literal[1, 3] = 3  # whose images
    pred_set: Literal["training", "validation", "test"] = "training"  # which of them
    limit: int | None = None  # only N images: the first, or of known classes the first by share
    tta: bool = False  # mean over the 8 flips and quarter turns
    margin: float = 0.0  # added around the bounding box, as a share of its longer side
    smoothing: float = 1.0  # sigma of a Gaussian on the probability map, in pixels of a 224 px map
    threshold: float = 0.5  # probability above which a pixel is lesion
    fill_holes: bool = True  # lesions have no holes
    component: Literal["largest", "all"] = "largest"  # connected parts that are kept
    batch_size: int = 32  # images per step
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from scipy.special import expit
    from tqdm import tqdm

    from datasets import ISIC2018
    from misc_utils import figures, prediction, run_folder, submission
    from misc_utils.postprocess import PostProcessing, bounding_box, cut_lesion, lesion_mask
    from models.trained import load_segmenter

    # 1 runs and images
    runs = run_folder.find_runs(paths.model_data_dir(), 1, settings.backbone, settings.version)
    images = ISIC2018.load_images(
        paths.data_dir(), settings.task, settings.pred_set, run_folder.same(runs, "image_size")
    )
    files = ISIC2018.list_originals(paths.data_dir(), settings.task, settings.pred_set)
    splits = {run.k_fold: run_folder.load_folds(run) for run in runs}
    image_ids = ISIC2018.limited(
        paths.data_dir(), settings.task, settings.pred_set, images.image_ids, settings.limit
    )
    groups, left_out = prediction.assign_nets(image_ids, splits)
    print(run_folder.which_folds(runs))
    if left_out:
        print(f"left out, as every net there is was trained on them: {len(left_out)} images")

    # 2 where to
    crops = settings.output == "crops"
    made_by = prediction.provenance(asdict(settings), runs, groups)
    names = submission.crop_folder if crops else submission.mask_folder
    name = names(settings.task, settings.pred_set)
    folder = submission.open_folder(paths.submissions_dir(), name, made_by, settings.overwrite)
    rules = PostProcessing(
        settings.smoothing, settings.threshold, settings.fill_holes, settings.component
    )

    def write(row: int, logits: np.ndarray) -> submission.CropRow:
        image_id, height, width = images.image_ids[row], images.heights[row], images.widths[row]
        mask = lesion_mask(expit(logits[..., 0]), height, width, rules)
        box = bounding_box(mask, settings.margin)
        if crops:
            original = ISIC2018.read_original(files[image_id])
            submission.write_crop(folder, image_id, cut_lesion(original, mask, box))
        else:
            submission.write_mask(folder, image_id, mask, height, width)
        place = (box.top, box.left, box.height, box.width)
        return submission.CropRow(image_id, *place, height, width, int(np.count_nonzero(mask)))

    # 3 predict and write
    table: list[submission.CropRow] = []
    nets = {
        run.k_fold: prediction.logits_of(load_segmenter(run.settings, run.weights)) for run in runs
    }
    views, total = 8 if settings.tta else 1, len(image_ids) - len(left_out)
    with tqdm(total=total, desc=name, unit="image") as progress, ThreadPoolExecutor() as threads:
        for k_folds, ids in groups.items():
            some_nets, rows = [nets[k] for k in k_folds], images.rows(ids)
            for some, logits in prediction.predict_logits(
                some_nets, images.array, rows, settings.batch_size, views
            ):
                table += threads.map(write, some, logits)
                progress.update(len(some))

    # 4 report
    empty = sum(row.lesion_pixels == 0 for row in table)
    if crops:
        submission.write_crops_table(folder, table)
    summary = {"images": len(table), "left_out": len(left_out), "empty_masks": empty}
    submission.close_folder(paths.submissions_dir(), name, made_by, summary)
    if empty:
        print(f"warning: no lesion found in {empty} images; their crop is the whole image")
    shown = sorted(row.image for row in table)[:12]
    sheet = folder.with_name(f"{name}_examples.png")
    if crops:
        cut = [ISIC2018.read_original(folder / f"{image_id}.png") for image_id in shown]
        figures.draw_crops(sheet, cut, shown)
    else:
        masks = [submission.read_mask(folder, image_id) for image_id in shown]
        pictures = [ISIC2018.read_original(files[image_id]) for image_id in shown]
        figures.draw_overlays(sheet, pictures, None, masks, shown)
    print(f"{len(table)} {'crops' if crops else 'masks'} in {folder}; some of them: {sheet}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
