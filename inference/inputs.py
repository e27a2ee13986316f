"""The cached images that each run of an ensemble takes.

Enters: trained runs, a set of images. Leaves: {name of a run: its images}, checked to be those it
was trained with where they are from the same set.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import ISIC2018, lesion_crops
from datasets.cache import Cached
from inference.ensemble import Ensemble
from training import run_folder

Inputs = dict[str, Cached]


def segmenter_inputs(data_dir: Path, ensemble: Ensemble, task: int, images: str) -> Inputs:
    """Images of `task` in the set `images`, at the size of each run.

    Raises UserError when they are the training images of Task 1, but others than trained with.
    """
    sizes = {run.image_size for run in ensemble.runs}
    of_size = {size: ISIC2018.load_images(data_dir, task, images, size) for size in sorted(sizes)}
    inputs = {run.name: of_size[run.image_size] for run in ensemble.runs}
    if task == 1 and images == "training":
        for run in ensemble.runs:
            run_folder.check_same_data(run, inputs[run.name].fingerprint)
    return inputs


def classifier_inputs(
    data_dir: Path,
    submissions: Path,
    ensemble: Ensemble,
    images: str,
    needed: Sequence[str],
    limit: int | None = None,
) -> tuple[Inputs, dict[str, Path]]:
    """Task 3 images of the set `images` as each run sees them, and the crops some of them are.

    Raises UserError when crops are missing for images that are `needed`, were made otherwise than
    those trained with, or when training images are others than trained with. `limit` is named in
    the command that makes missing crops.
    """
    inputs, crop_files = {}, {}
    for member in ensemble.members:
        view, margin, size = (
            run_folder.shared_setting(member, key)
            for key in ("lesion_view", "box_margin", "image_size")
        )
        flags = run_folder.segmenter_flags(ensemble.folder.parent, limit)
        crops = lesion_crops.load_view_crops(submissions, images, view, flags)
        run_folder.check_same_crops(member, crops.maker if crops else None)
        seen = ISIC2018.load_view(data_dir, images, size, view, crops, margin, needed=needed)
        inputs |= {run.name: seen for run in member}
        crop_files |= crops.files if crops else {}
    if images == "training":
        for run in ensemble.runs:
            run_folder.check_same_data(run, inputs[run.name].fingerprint)
    return inputs, crop_files
