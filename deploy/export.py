"""From trained nets to a bundle: files, their description, and proof that they answer alike.

Enters: a Predictor of Keras nets and the trainings it was loaded from. Leaves: a folder with a file
per net, `<net>_head.npz` and `<net>_reference.npz` of each classifier, `bundle.json` (see
bundle.py); how far its answers are from those of Keras.
"""

import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets import metadata
from datasets.pictures import read_original
from deploy import litert_file, onnx_file
from deploy.answers import NOT_FOR_DIAGNOSIS
from deploy.bundle import CLASS_OUTPUTS, DESCRIPTION, FORMAT, MASK_OUTPUTS, is_whole
from deploy.load import Trained, choice_for, how_cut
from deploy.nets import TAKES, ClassNet, MaskNet
from deploy.predictor import Predictor
from deploy.runtimes import RUNTIMES
from evaluation.calibration import equal_weights
from evaluation.mask_tuning import MaskChoice
from inference.ensemble import Ensemble
from inference.inputs import open_dataset_of
from inference.tta import VIEWS
from misc_utils import files, messages, provenance
from misc_utils.errors import UserError
from training import run_folder

log = logging.getLogger(__name__)

CONVERTERS = {"onnx": onnx_file, "litert": litert_file}  # by the format of the files
LEAST_ALIKE = 0.999  # share of the pixels of each mask that must be those of Keras
# most that a probability may differ from that of Keras, of weights as they are and as float16
MOST_APART = {False: 1e-4, True: 1e-2}


def lacking(net_format: str) -> str:
    """What must be installed to write files of a format, and how; empty where it is there."""
    converter = CONVERTERS[net_format]
    return messages.lacking(converter.PACKAGES, converter.REQUIREMENTS)


def check_packages(net_format: str) -> None:
    """UserError unless nets can be converted here; Keras is loaded for it."""
    if said := lacking(net_format):
        raise UserError(f"to export, {said}\n{RUNTIMES[net_format].machines}".strip())
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"nets are exported with TensorFlow, whatever they were trained with; KERAS_BACKEND is "
            f"{keras.backend.backend()}. Set it to tensorflow (packages: requirements.txt)."
        )


def in_float32(trained: Trained) -> Trained:
    """The same trainings, computing in float32 whatever they were trained in: bundles do."""

    def changed(ensemble: Ensemble | None) -> Ensemble | None:
        if ensemble is None:
            return None
        members = [
            tuple(
                replace(
                    run, record=run.record | {"settings": run.settings | {"precision": "float32"}}
                )
                for run in member
            )
            for member in ensemble.members
        ]
        return replace(ensemble, members=tuple(members))

    return Trained(changed(trained.segmenter), changed(trained.classifier))


def is_there(submissions: Path, name: str) -> bool:
    """Whether a bundle of this name was written to its end, and each file is as it was written."""
    record = provenance.record_of(submissions, name)
    return (
        record.exists()
        and provenance.read_record(record)["complete"]
        and is_whole(submissions / name)
    )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` after the block; else it is deleted.

    The caller holds a lock, so that no other process writes the same.
    """
    new = folder.with_name(f".exported_{folder.name}")
    if new.exists():  # of a process that was killed
        shutil.rmtree(new)
    new.mkdir(parents=True)
    try:
        with files.told_of(folder):
            yield new
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_nets(
    folder: Path, predictor: Predictor, trained: Trained, net_format: str, half: bool
) -> dict[str, Any]:
    """Write the nets of a Predictor, what explains them, and bundle.json; returns its content.

    `predictor` was loaded from `trained` for one view, in float32; `net_format` is a key of
    CONVERTERS; `half` stores float16 weights.
    """
    from training import environment  # loads Keras

    converter = CONVERTERS[net_format]
    hashes: dict[str, str] = {}

    def write(name: str, content: bytes) -> str:
        file = folder / name
        with files.partial_file(file) as partial:
            partial.write_bytes(content)
        hashes[name] = files.sha256(file)
        return name

    nets = [*predictor.mask_nets, *predictor.class_nets]
    masks, classes = trained.segmenter, trained.classifier
    with tqdm(total=len(nets), desc="exporting", unit="net") as progress:

        def written(net: MaskNet | ClassNet, outputs: Sequence[str]) -> dict[str, Any]:
            about = {"net": net.name, "use": NOT_FOR_DIAGNOSIS}
            content = converter.convert(net.model, net.name, outputs, about, half)
            progress.update()
            return {
                "name": net.name,
                "file": write(net.name + converter.ENDING, content),
                "image_size": net.image_size,
                "preprocessing": list(net.steps),
            }

        content: dict[str, Any] = {
            "format": FORMAT,
            "net_format": net_format,
            "use": NOT_FOR_DIAGNOSIS,
            "takes": TAKES,
            "masks": masks
            and _about_masks(masks, predictor, lambda net: written(net, MASK_OUTPUTS)),
            "classes": classes
            and _about_classes(
                classes, predictor, lambda net: written(net, CLASS_OUTPUTS) | _explain(net, write)
            ),
        }
    content |= {"half": half, "made_from": _made_from(trained), "made_with": environment.describe()}
    return write_description(folder, content | {"files": hashes})


def write_description(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write bundle.json; its content."""
    files.write_text(folder / DESCRIPTION, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content


def _about_masks(
    runs: Ensemble, predictor: Predictor, written: Callable[[MaskNet], dict]
) -> dict[str, Any]:
    by_views = {}
    for views in (1, VIEWS):
        found = choice_for(runs, views)
        chosen = found or MaskChoice((1.0,) * len(runs.members))
        weights = list(chosen.weights)
        rules = {"rules": asdict(chosen.rules), "tuned": found is not None}
        by_views[str(views)] = {"member_weights": weights} | rules
    trainings = _trainings(runs)
    nets = [written(net) | {"training": trainings[net.name]} for net in predictor.mask_nets]
    about = {"name": runs.name, "trainings": runs.labels}
    return about | {"by_views": by_views, "nets": nets}


def _about_classes(
    runs: Ensemble, predictor: Predictor, written: Callable[[ClassNet], dict]
) -> dict[str, Any]:
    by_views = {}
    for views in (1, VIEWS):
        found = choice_for(runs, views)
        chosen = found or equal_weights(len(runs.members))
        by_views[str(views)] = chosen.to_json() | {"tuned": found is not None}
    trainings = _trainings(runs)
    nets = [written(net) | {"training": trainings[net.name]} for net in predictor.class_nets]
    about = {"name": runs.name, "classes": list(runs.classes), "trainings": runs.labels}
    cuts = {net.cut for net in predictor.class_nets}
    about |= asdict(cuts.pop()) if len(cuts) == 1 else {}  # where earlier code looks for it
    return about | {"by_views": by_views, "nets": nets}


def _trainings(runs: Ensemble) -> dict[str, str]:
    """{name of a run: the training that it is a fold of}."""
    return {run.name: run.label for run in runs.runs}


def _explain(net: ClassNet, write: Callable[[str, bytes], str]) -> dict[str, Any]:
    """What a classifier sees, what explains its answer, and the training images it was shown."""
    numbers = None if net.sites is None else metadata.width(net.sites)
    reference = net.reference
    return {
        "lesion_view": net.lesion_view,
        "box_margin": net.box_margin,
        "cut": asdict(net.cut),
        "head": write(f"{net.name}_head.npz", _packed(asdict(net.head))),
        "reference": reference
        and {
            "file": write(f"{net.name}_reference.npz", _packed({"features": reference.features})),
            "images": len(reference.features),
            "threshold": reference.threshold,
        },
        "metadata": numbers
        and {"sites": list(net.sites), "nothing_known": metadata.nothing_known(numbers).tolist()},
    }


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _made_from(trained: Trained) -> dict[str, Any]:
    """The runs: their weights, data and split by hash, and what they were trained with."""
    return {
        run.name: {
            "weights_sha256": ensemble.weight_hashes[run.name],
            "dataset": run.dataset,
            "data_fingerprint": run.data_fingerprint,
            "folds_fingerprint": run_folder.folds_fingerprint(ensemble.folds[run.name]),
            "fold": run.k_fold,
            "made_with": run.made_with,
        }
        for ensemble in trained.both
        for run in ensemble.runs
    }


def tuned_values(trained: Trained) -> dict[str, Any]:
    """What was tuned for these trainings, by number of views, as JSON takes it."""
    return {
        runs.name: {
            str(views): chosen.to_json() if (chosen := choice_for(runs, views)) else None
            for views in (1, VIEWS)
        }
        for runs in trained.both
    }


def cuts_of_lesions(root: Path, trained: Trained) -> dict[str, Any]:
    """How each classifier that sees the lesion alone takes it cut, as JSON takes it."""
    if trained.classifier is None:
        return {}
    cuts = how_cut(root / "submissions", trained.classifier)
    seen = {run.name: run.settings["lesion_view"] for run in trained.classifier.runs}
    return {name: asdict(cut) for name, cut in cuts.items() if seen[name] != "whole"}


@dataclass(frozen=True)
class Parity:
    """How far the answers of a bundle are from those of Keras; None: there are no such answers."""

    images: int
    source: str  # where they are from, in words
    least_alike: float | None  # share of the pixels of a mask that are the same, 0..1
    most_apart: float | None  # difference of the probability of a class
    heat_apart: float | None  # difference of a place of the map of where the nets looked, 0..1
    unlikeness_apart: float | None

    def text(self, half: bool) -> str:
        """For the terminal: what was found and what is allowed."""
        lines = [f"compared with Keras on {self.images} {self.source}:"]
        if self.least_alike is not None:
            lines.append(
                f"  masks: {100 * self.least_alike:.4f} % of the pixels alike in the worst "
                f"(at least {100 * LEAST_ALIKE:g} % wanted)"
            )
        for what, value, allowed in (
            ("probabilities", self.most_apart, f" ({MOST_APART[half]:g} at most allowed)"),
            ("maps of where the nets looked", self.heat_apart, ""),
            ("unlikeness", self.unlikeness_apart, ""),
        ):
            if value is not None:
                lines.append(f"  {what}: {value:.1e} apart at most{allowed}")
        return "\n".join(lines)

    def check(self, half: bool) -> None:
        """UserError unless the answers are alike."""
        wrong = self.least_alike is not None and not self.least_alike >= LEAST_ALIKE
        if wrong or (self.most_apart is not None and not self.most_apart <= MOST_APART[half]):
            way = "Do without --half." if half else "Export nets with another backbone."
            raise UserError(
                f"the files do not answer as the nets they were made from, so no bundle was "
                f"written. {self.text(half)}\n{way}"
            )


def compare(
    expected: Predictor, found: Predictor, images: Sequence[np.ndarray], source: str, batch: int
) -> Parity:
    """How far the answers of `found`, nets of a bundle, are from those of `expected`, by Keras.

    Its classifiers are shown the lesion as Keras finds it: where a pixel of the mask is another,
    the crop may be, and what they say of it would not be about them. `images` are uint8 (H, W, 3),
    `batch` of them are asked at once; the last batch is filled up, so that Keras sees one size.
    """
    masks = replace(found, class_nets=())
    needs_mask = any(net.lesion_view != "whole" for net in found.class_nets)
    classes = replace(found, mask_nets=expected.mask_nets if needs_mask else ())
    alike, apart, heat, unlike = [], [], [], []
    waiting = iter(images)
    while part := list(islice(waiting, batch)):
        part += [part[0]] * (batch - len(part))
        wanted = expected.predict_batch(part)
        if found.mask_nets:
            pairs = zip(wanted, masks.predict_batch(part), strict=True)
            alike += [float((one.mask == other.mask).mean()) for one, other in pairs]
        if found.class_nets:
            for one, other in zip(wanted, classes.predict_batch(part), strict=True):
                names = one.probability
                apart += [abs(names[name] - other.probability[name]) for name in names]
                heat.append(float(np.abs(one.heat - other.heat).max()))
                if one.unlikeness is not None:
                    unlike.append(abs(one.unlikeness - other.unlikeness))
    worst = [float(np.max(values)) if values else None for values in (apart, heat, unlike)]
    return Parity(len(images), source, min(alike, default=None), *worst)


def images_to_compare(root: Path, trained: Trained, count: int) -> tuple[list[np.ndarray], str]:
    """Up to `count` images uint8 (H, W, 3), and what they are in words.

    Training images, evenly from all of them; where they are not there, drawn ones.
    """
    runs = trained.classifier or trained.segmenter
    try:
        originals = open_dataset_of(runs, root / "data").list_images(runs.task, "training")
        chosen = list(originals.values())[:: max(1, len(originals) // count)][:count]
        return [read_original(file) for file in chosen], f"training images of {runs.dataset}"
    except UserError as error:
        log.warning("compared on drawn images, as those of the training cannot be had: %s", error)
    from datasets.challenge import CLASSES
    from datasets.synthetic import draw_lesion, draw_photograph

    random = np.random.default_rng(0)
    lesions = [draw_lesion(random, CLASSES[k % len(CLASSES)]) for k in range(count)]
    return [draw_photograph(random, lesion, (300, 450))[0] for lesion in lesions], "drawn images"
