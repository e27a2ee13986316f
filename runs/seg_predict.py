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
    """crops: bounding box of the lesion, background black, and crops.csv; mask: 0/255 masks"""
    backbone: Literal[*BACKBONES] = "densenet169"  # of the runs that predict
    version: str = "0"  # of the runs
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    task: Literal[1, 2, 3] = 3  # that the images belong to; 2: masks of attributes
    pred_set: Literal["training", "validation", "test"] = "training"  # set to predict
    limit: command_line.Limit = None
    """only the first N by id; with known Task 3 labels the first of each class, in proportion"""
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    margin: float = 0.0  # added around the bounding box, as a share of its longer side
    edge: Literal["hard", "feather"] = "hard"
    """of crops; hard: black around the lesion; feather: a fade to black, in a folder of its own"""
    edge_radius: float = 0.05  # feather: width of the fade, as a share of the lesion's longer side
    format: Literal["png", "jpeg", "webp", "tiff"] = "png"
    """of crops; jpeg (quality 95, 4:4:4) is lossy, the others are not; masks are always PNG"""
    tuned: bool = True  # use what seg_tune chose for the four rules below that are None
    smoothing: command_line.Number = None
    """sigma of the Gaussian on the probability map, in pixels of a 224 px map; None: tuned, or 1"""
    threshold: command_line.Number = None  # of the probability; None: tuned, or 0.5
    fill_holes: bool | None = None  # holes become lesion; None: tuned, or True
    component: Literal["largest", "all"] | None = None
    """connected parts that are kept; None: tuned, or largest"""
    batch_size: int = 32  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from tqdm import tqdm

    from datasets import lesion_crops
    from datasets.boxes import bounding_box, radius_of_edge
    from datasets.tasks import TASKS
    from evaluation import tuned
    from inference import ensemble, kept_logits, submission
    from inference.inputs import open_dataset_of, segmenter_inputs
    from inference.postprocess import mask_of
    from inference.prediction import begun, work_behind
    from inference.scope import Scope
    from misc_utils.files import sha256

    # 1 runs and rules
    deciding = submission.deciding_settings(asdict(settings))
    edge_radius = radius_of_edge(settings.edge, settings.edge_radius)
    trained_task = 2 if settings.task == 2 else 1
    runs = ensemble.find_ensemble(
        paths.model_data_dir(),
        trained_task,
        settings.backbone,
        settings.version,
        settings.ensemble,
        dataset=settings.dataset,
    )
    channels = TASKS[trained_task].channels
    scope = Scope(runs, "fold", settings.tta)
    found = tuned.load_tuned(scope, settings.tuned)
    chosen = found.chosen if found else None
    rules = tuned.choose_rules(asdict(settings), chosen, trained_task)
    if found:
        print(f"tuned values: {found.file}; in force: {rules}")

    # 2 images, and which run predicts which
    dataset, which = open_dataset_of(runs, paths.data_dir()), (settings.task, settings.pred_set)
    inputs = segmenter_inputs(dataset, runs, *which)
    images = next(iter(inputs.values())).images
    files = dataset.list_images(*which)
    image_ids = dataset.limited(*which, images.image_ids, settings.limit)
    if settings.output == "crops":
        sizes = {image_id: images.size_of(image_id) for image_id in image_ids}
        lesion_crops.check_sizes(settings.format, sizes)
    related = dataset.find_related(*which, trained_task)
    own_set = which == (trained_task, "training")
    assignment = ensemble.assign_runs(runs, image_ids, own_set, related)
    print(ensemble.described(runs, assignment))

    def write(image_id: str, logits: np.ndarray) -> tuple[dict[str, str], lesion_crops.CropRow]:
        size = images.size_of(image_id)
        masks = {name: mask_of(logits, *size, rules, k) for k, name in enumerate(channels)}
        shown = np.maximum.reduce(list(masks.values()))  # of attributes: where there is any
        box = bounding_box(shown, settings.margin, edge_radius)
        written = submission.write_product(
            settings, result.folder, image_id, masks, box, files[image_id]
        )
        digests = {file.name: sha256(file) for file in written}
        return digests, lesion_crops.row_of(image_id, box, shown)

    # 3 predict and write; nothing is written, nor deleted, before a net has predicted
    used = deciding | {"tuned": chosen and chosen.to_json()} | asdict(rules)
    made_by = ensemble.provenance(used, runs, assignment)
    total, name = assignment.count, submission.product_folder(settings)
    with submission.claimed_folder(
        paths.submissions_dir(), name, made_by, images.fingerprint, settings.overwrite
    ) as result:
        if result.done:
            print(f"{len(result.done)} of {total} are there already")
        weights, size = tuned.member_weights(runs, chosen), settings.batch_size
        batches = kept_logits.stream_logits(scope, assignment, weights, inputs, size, result.done)
        batches = begun(batches)
        result.begin(total)
        with ThreadPoolExecutor() as threads:
            written = work_behind(threads, write, batches, waiting=2 * settings.batch_size)
            for one in tqdm(written, name, total, unit="image", initial=len(result.done)):
                lesion_crops.note_image(result.journal, *one)
        rows = lesion_crops.rows_of(result.journal)
        empty = sum(row.lesion_pixels == 0 for row in rows)
        if settings.output == "crops":
            lesion_crops.write_crops_table(result.folder, rows)
        left_out = len(assignment.left_out)
        result.finish({"images": len(rows), "left_out": left_out, "empty_masks": empty})

    # 4 report
    if empty:
        shown = "lesion" if trained_task == 1 else "attribute"
        what = "; their crop is the whole image" if settings.output == "crops" else ""
        print(f"warning: no {shown} found in {empty} images{what}")
    examples = sorted(row.image for row in rows)[:12]
    sheet = draw_examples(settings, channels, result.folder, files, examples)
    products = "crops" if settings.output == "crops" else "masks"
    many = f"{len(rows)} images, {len(channels)}" if len(channels) > 1 else len(rows)
    print(f"{many} {products} in {result.folder}; some of them: {sheet}")


def draw_examples(settings: Settings, channels, folder, originals, image_ids: list[str]):
    """Draw some of the masks or crops on a sheet beside their folder; its file."""
    import numpy as np

    from datasets.lesion_crops import crop_file
    from datasets.pictures import read_original
    from inference.submission import read_mask
    from reports import figures

    sheet = folder.with_name(f"{folder.name}_examples.png")
    if settings.output == "crops":
        files = [crop_file(folder, image_id, settings.format) for image_id in image_ids]
        pictures = [read_original(file) for file in files]
    else:
        pictures = []
        for image_id in image_ids:
            masks = [read_mask(folder, image_id, name) for name in channels]
            image = read_original(originals[image_id])
            pictures.append(figures.outline(image, None, np.maximum.reduce(masks)))
    figures.draw_sheet(sheet, pictures, image_ids)
    return sheet


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
