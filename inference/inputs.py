"""What each run of an ensemble takes of the images of a set.

Enters: trained runs, a set of images. Leaves: {name of a run: its inputs}, checked to be those it
was trained with where they are from the same set.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import lesion_crops
from datasets.catalogue import open_dataset
from datasets.dataset import Dataset, Inputs
from datasets.own_settings import OwnFolder
from inference.ensemble import Ensemble
from training import run_folder

InputsOfRuns = dict[str, Inputs]


def open_dataset_of(ensemble: Ensemble, data_dir: Path) -> Dataset:
    """The data set that these runs were trained on; an own folder where they found it."""
    own = dict(ensemble.runs[0].settings.get("own", {}))
    told = OwnFolder(**own | {"classes": tuple(own.get("classes", ()))})
    return open_dataset(data_dir, ensemble.dataset, told, ensemble.classes)


def segmenter_inputs(dataset: Dataset, ensemble: Ensemble, task: int, images: str) -> InputsOfRuns:
    """Images of `task` in the set `images`, at the size of each run.

    Raises UserError when they are the training images of the runs, but others than trained with.
    """
    looks = {(run.image_size, run.steps) for run in ensemble.runs}
    seen = {look: Inputs(dataset.load_images(task, images, *look)) for look in sorted(looks)}
    inputs = {run.name: seen[run.image_size, run.steps] for run in ensemble.runs}
    if (task, images) == (ensemble.task, "training"):
        for run in ensemble.runs:
            run_folder.check_same_data(run, inputs[run.name].fingerprint)
    return inputs


def classifier_inputs(
    dataset: Dataset,
    submissions: Path,
    ensemble: Ensemble,
    images: str,
    needed: Sequence[str],
    limit: int | None = None,
) -> tuple[InputsOfRuns, dict[str, Path]]:
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
        flags = run_folder.segmenter_flags(ensemble.folder.parent, limit, dataset.name)
        crops = lesion_crops.load_view_crops(submissions, images, view, flags, dataset.name)
        run_folder.check_same_crops(member, crops.maker if crops else None)
        steps, sites = member[0].steps, member[0].sites
        seen = dataset.load_view(images, size, view, crops, margin, needed, steps)
        taken = dataset.load_inputs(seen, images, sites)
        inputs |= {run.name: taken for run in member}
        crop_files |= crops.files if crops else {}
    if images == "training":
        for run in ensemble.runs:
            run_folder.check_same_data(run, inputs[run.name].fingerprint)
    return inputs, crop_files
