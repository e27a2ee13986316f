"""Weight files of one's own that a training starts from.

Enters: a weight file, mostly of a run; a net; the split of a training. Leaves: the net with the
file's weights, where no image that is to be held out is behind them.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import pandas as pd

from datasets.catalogue import DATASETS
from misc_utils.errors import UserError
from misc_utils.files import sha256
from misc_utils.messages import listed
from models.backbones import backbone, names_file
from models.weights import load_matching
from training import run_folder

RELEASED = set(DATASETS) - {"folder"}  # where an id means the same image

log = logging.getLogger(__name__)


def start_from(model: keras.Model, backbone_name: str, file: Path) -> None:
    """Set the encoder's weights from a file, and those of all further layers that fit.

    UserError where the encoder does not fit, see load_matching.
    """
    bottom = model.get_layer(backbone(backbone_name).bottom[1])
    encoder = keras.Model(model.get_layer("image").output, bottom.output)
    left = load_matching(model, file, [layer.name for layer in encoder.layers])
    log.info(
        "weights from %s%s", file, f", but of {listed(left)}, which start anew" if left else ""
    )


def check_start(file: Path, folds: pd.DataFrame, k_folds: Sequence[int], dataset: str) -> None:
    """UserError where a fold holds out what the file's net, or one behind it, was trained on.

    Images are compared by their ids, and lesions by theirs; those of an own folder mean something
    in that folder alone. Where it cannot be known what a file was trained on, a warning says so.
    """
    trained, unknown = _images_behind(file, dataset)
    for k_fold in k_folds:
        part = folds.loc[folds["fold"] == k_fold]
        held_out = {key: _known_as(part.get(key, ())) for key in trained}
        seen = sorted(set().union(*(held_out[key] & trained[key] for key in trained)))
        if seen:
            raise UserError(
                f"--weights {file}: its net was trained on {listed(seen)}, which fold {k_fold} "
                f"holds out: scores would be too good. Name the run that held out the same fold, "
                f"with --folds {k_fold}, or one of other images."
            )
    if unknown is not None:
        log.warning(
            "%s: not known whether its net was trained on images that are held out here. If it "
            "was, scores will be too good.",
            unknown,
        )


def _known_as(ids: Iterable[str]) -> set[str]:
    """Ids as they are compared: ISIC 2019 names smaller copies of images of the Archive so."""
    return {image_id.removesuffix("_downsampled") for image_id in ids}


def _images_behind(file: Path, dataset: str) -> tuple[dict[str, set[str]], Path | None]:
    """Ids of images and lesions behind a file, and the first file of which they are not known."""
    trained: dict[str, set[str]] = {"image": set(), "lesion": set()}
    while True:
        try:
            run = run_folder.read_run(file.parent / "settings.json")
            folds = run_folder.load_folds(run)
        except UserError:
            return trained, file
        if run.dataset != dataset and not {run.dataset, dataset} <= RELEASED:
            return trained, file
        for key, ids in trained.items():
            ids.update(_known_as(folds.loc[folds["fold"] != run.k_fold].get(key, ())))
        if not names_file(run.settings.get("weights", "none")):
            return trained, None
        file = Path(run.settings["weights"])
        # a run that was trained again since is another one
        if not file.is_file() or sha256(file) != run.record.get("weights_sha256"):
            return trained, file
