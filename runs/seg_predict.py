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
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    task: Literal[1, 3] = 3  # whose images
    pred_set: Literal["training", "validation", "test"] = "training"  # which of them
    limit: int | None = None  # only N images: the first, or of known classes the first by share
    tta: bool = False  # mean over the 8 flips and quarter turns
    margin: float = 0.0  # added around the bounding box, as a share of its longer side
    edge: Literal["hard", "feather"] = "hard"
    """Of crops. hard: black around the lesion; feather: a fade to black, in a folder of its own."""
    edge_radius: float = 0.05  # feather: width of the fade, as a share of the lesion's longer side
    format: Literal["png", "jpeg", "webp", "tiff"] = "png"
    """Of crops; jpeg (quality 95, 4:4:4) is lossy, the others are not. Masks are PNG always."""
    tuned: bool = True  # what seg_tune chose, where it has run, for the four that are None
    smoothing: float | None = None
    """Sigma of a Gaussian on the probability map, in pixels of a 224 px map; None: tuned, or 1."""
    threshold: float | None = None  # probability above which is lesion; None: tuned, or 0.5
    fill_holes: bool | None = None  # lesions have no holes; None: tuned, or True
    component: Literal["largest", "all"] | None = None
    """Connected parts that are kept; None: tuned, or largest."""
    batch_size: int = 32  # images per step
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from functools import cache
    from itertools import chain, islice
    from pathlib import Path

    import numpy as np
    from tqdm import tqdm

    from datasets import ISIC2018, lesion_crops
    from datasets.boxes import bounding_box, cut_lesion, radius_of_edge
    from evaluation import tuned
    from inference import ensemble, kept_logits, postprocess, submission
    from inference.prediction import Net, logits_of, work_behind
    from misc_utils import provenance
    from reports import figures
    from training import run_folder

    # 1 runs and images
    deciding = submission.deciding_settings(asdict(settings))
    edge_radius = radius_of_edge(settings.edge, settings.edge_radius)
    nets = ensemble.find_ensemble(
        paths.model_data_dir(), 1, settings.backbone, settings.version, settings.ensemble
    )
    data_dir, submissions = paths.data_dir(), paths.submissions_dir()
    images = {
        size: ISIC2018.load_images(data_dir, settings.task, settings.pred_set, size)
        for size in sorted({run.settings["image_size"] for run in nets.runs})
    }
    some = next(iter(images.values()))
    row_of = {image_id: row for row, image_id in enumerate(some.image_ids)}
    files = ISIC2018.list_originals(data_dir, settings.task, settings.pred_set)
    image_ids = ISIC2018.limited(
        data_dir, settings.task, settings.pred_set, some.image_ids, settings.limit
    )
    own_set = settings.task == 1 and settings.pred_set == "training"
    if own_set:
        for run in nets.runs:
            run_folder.check_same_data(run, some.fingerprint)
    groups, left_out = ensemble.assign_runs(nets, image_ids)
    print(f"predicting with {ensemble.names_of(nets)}")
    if left_out:
        print(f"left out, as every net there is was trained on them: {len(left_out)} images")

    # 2 where to, and how
    views = 8 if settings.tta else 1
    content = tuned.load_tuned(nets, views) if settings.tuned else None
    chosen = content["chosen"] if content else None
    rules = tuned.choose_rules(asdict(settings), chosen)
    weights = tuned.member_weights(nets, chosen)
    if chosen:
        print(f"tuned values: {tuned.tuned_file(nets, views)}; in force: {rules}")
    crops = settings.output == "crops"
    used = deciding | {"tuned": chosen} | asdict(rules)
    made_by = ensemble.provenance(used, nets, groups)
    which = settings.task, settings.pred_set
    name = (
        lesion_crops.crop_folder(*which, settings.edge) if crops else submission.mask_folder(*which)
    )
    with provenance.claimed(submissions, name):
        folder = submissions / name
        journal = provenance.open_journal(
            submissions, name, made_by, some.fingerprint, settings.overwrite
        )
        done = submission.done_images(folder, journal)
        total = len(image_ids) - len(left_out)
        if done:
            print(f"{len(done)} of {total} are there already")

        def write(image_id: str, logits: np.ndarray) -> tuple[Path, str, lesion_crops.CropRow]:
            height, width = (int(side[row_of[image_id]]) for side in (some.heights, some.widths))
            mask = postprocess.mask_of(logits, height, width, rules)
            box = bounding_box(mask, settings.margin, edge_radius)
            if crops:
                original = ISIC2018.read_original(files[image_id])
                crop = cut_lesion(original, mask, box, edge_radius)
                file = lesion_crops.write_crop(folder, image_id, crop, settings.format)
            else:
                file = submission.write_mask(folder, image_id, mask, height, width)
            place = (box.top, box.left, box.height, box.width, height, width)
            row = lesion_crops.CropRow(image_id, *place, int(np.count_nonzero(mask)))
            return file, submission.file_hash(file), row

        # 3 predict and write
        @cache
        def net_of(run) -> Net:
            from models.trained import load_segmenter

            model = logits_of(load_segmenter(run.settings, run.weights))
            return Net(model, images[run.settings["image_size"]])

        batches = kept_logits.stream_logits(
            nets, groups, weights, views, own_set, net_of, settings.batch_size, done
        )
        # nothing is written, nor deleted, before a net has predicted
        batches = chain(list(islice(batches, 1)), batches)
        submission.open_folder(submissions, name, made_by, settings.overwrite)
        if len(done) < total:
            provenance.write_record(submissions, name, made_by, complete=False)
        with ThreadPoolExecutor() as threads:
            written = work_behind(threads, write, batches, waiting=2 * settings.batch_size)
            for one in tqdm(written, name, total, unit="image", initial=len(done)):
                lesion_crops.note_image(journal, *one)

        # 4 report
        table = lesion_crops.rows_of(journal)
        empty = sum(row.lesion_pixels == 0 for row in table)
        if crops:
            lesion_crops.write_crops_table(folder, table)
        summary = {"images": len(table), "left_out": len(left_out), "empty_masks": empty}
        journal.close()
        submission.close_folder(submissions, name, made_by, summary)
    if empty:
        print(f"warning: no lesion found in {empty} images; their crop is the whole image")
    shown = sorted(row.image for row in table)[:12]
    sheet = folder.with_name(f"{name}_examples.png")
    if crops:
        cut = [lesion_crops.crop_file(folder, image_id, settings.format) for image_id in shown]
        figures.draw_crops(sheet, [ISIC2018.read_original(file) for file in cut], shown)
    else:
        masks = [submission.read_mask(folder, image_id) for image_id in shown]
        pictures = [ISIC2018.read_original(files[image_id]) for image_id in shown]
        figures.draw_overlays(sheet, pictures, None, masks, shown)
    print(f"{len(table)} {'crops' if crops else 'masks'} in {folder}; some of them: {sheet}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
