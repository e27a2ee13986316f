"""A bundle: a folder of nets as ONNX or LiteRT files with all that their answers depend on.

Enters: a folder that runs/export.py wrote. Leaves: the Predictor that it was written from, whose
nets are run by what runtimes.py names; no Keras, no backend and no training data are needed.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.grad_cam import Head
from deploy.nets import ClassNet, Cut, MaskNet
from deploy.predictor import Predictor
from deploy.runtimes import RUNTIMES, Run, load_net
from deploy.unlikeness import Reference
from evaluation import calibration
from evaluation.calibration import ClassChoice
from inference.postprocess import PostProcessing
from misc_utils.errors import UserError

FORMAT = 1
DESCRIPTION = "bundle.json"
MASK_OUTPUTS = ("logits",)
CLASS_OUTPUTS = ("logits", "pooled", "features")  # as Classify gives them
IMAGE, METADATA = "image", "metadata"  # inputs
AGAIN = "Copy the whole folder again, or write it again with runs/export.py --overwrite."


@dataclass(frozen=True, eq=False)
class Bundle:
    """What is in a bundle; the nets are not loaded yet."""

    folder: Path
    content: Mapping[str, Any]  # of bundle.json
    net_format: str  # of the files of its nets, a key of RUNTIMES
    mask: bool  # whether the lesion is asked for
    classes: bool  # whether the class is
    names: Sequence[str]  # what is said to answer
    weight_hashes: Mapping[str, str]  # SHA-256 of the file of each net
    sha256: str  # of bundle.json, which holds that of every file an answer depends on


def read_bundle(folder: Path, mask: bool = True, classes: bool = True) -> Bundle:
    """The bundle in a folder; without `mask` or `classes` that half is not asked.

    Raises UserError where there is none, it is of another format, or has no such half.
    """
    file = folder / DESCRIPTION
    try:
        text = file.read_bytes()
        content = json.loads(text.decode("utf-8"))
        if content["format"] != FORMAT:
            raise UserError(
                f"{file}: a bundle of format {content['format']}, and this code reads format "
                f"{FORMAT}. Use the code that wrote it, or write it again with runs/export.py."
            )
        net_format = content.get("net_format", "onnx")  # the only one of earlier bundles
        if net_format not in RUNTIMES:
            raise UserError(
                f"{file}: its nets are {net_format} files, and this code runs "
                f"{' and '.join(RUNTIMES)}. Use the code that wrote it."
            )
        halves = {"masks": content["masks"], "classes": content["classes"]}
        wanted = {"masks": mask, "classes": classes}
        asked = [about for half, about in halves.items() if wanted[half] and about is not None]
        nets = [net for about in asked for net in about["nets"]]
        hashes = {net["name"]: content["files"][net["file"]] for net in nets}
        names = [about["name"] for about in asked]
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {DESCRIPTION} in it, so this is no bundle. Name the folder that "
            f"runs/export.py wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from None
    for half, net, flag in (("masks", "segmenter", "mask"), ("classes", "classifier", "classes")):
        if wanted[half] and halves[half] is None:
            raise UserError(f"{folder}: this bundle has no {net}. Give --no-{flag}.")
    digest = hashlib.sha256(text).hexdigest()
    return Bundle(folder, content, net_format, mask, classes, names, hashes, digest)


def is_whole(folder: Path) -> bool:
    """Whether there is a bundle in a folder, with every file as it was written."""
    try:
        bundle = read_bundle(folder, mask=False, classes=False)
        for name in bundle.content["files"]:
            _read(bundle, name)
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return False
    return True


def load_bundle(bundle: Bundle, views: int = 1) -> Predictor:
    """The nets of a bundle, with what was tuned for so many views of an image; see Predictor.

    Raises UserError when the runtime is missing, a file is missing or not the one that was written,
    or a classifier needs the lesion, which is not asked.
    """
    try:
        return _load(bundle, views)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(bundle.folder / DESCRIPTION, error) from None


def _load(bundle: Bundle, views: int) -> Predictor:
    masks = bundle.content["masks"] if bundle.mask else None
    classes = bundle.content["classes"] if bundle.classes else None
    mask_nets, rules = [], PostProcessing()
    if masks:
        chosen = masks["by_views"][str(views)]
        rules = PostProcessing(**chosen["rules"])
        folds = [net["training"] for net in masks["nets"]]
        weights = dict(zip(masks["trainings"], chosen["member_weights"], strict=True))
        for net in masks["nets"]:
            weight = weights[net["training"]] / folds.count(net["training"])
            mask_nets.append(_mask_net(bundle, net, weight))
    if not classes:
        return Predictor(mask_nets, [], (), rules, calibration.blend, views)
    views_seen = {net["lesion_view"] for net in classes["nets"]}
    if views_seen != {"whole"} and not masks:
        raise UserError(
            f"{classes['name']} sees the lesion alone ({', '.join(sorted(views_seen))}), so it "
            f"needs a segmenter to find it: do without --no-mask, or export it with one."
        )
    chosen = classes["by_views"][str(views)]
    factors = chosen["decision_weights"]
    how = ClassChoice(
        tuple(chosen["member_weights"]),
        chosen["temperature"],
        None if factors is None else tuple(factors),
    )
    members = {training: number for number, training in enumerate(classes["trainings"])}
    return Predictor(
        mask_nets,
        [_class_net(bundle, net, members[net["training"]]) for net in classes["nets"]],
        tuple(classes["classes"]),
        rules,
        partial(calibration.blend, how=how),
        views,
    )


def _mask_net(bundle: Bundle, net: Mapping[str, Any], weight: float) -> MaskNet:
    run = _runner(bundle, net, MASK_OUTPUTS)

    def segment(batch: np.ndarray) -> np.ndarray:
        return run({IMAGE: batch})[0]

    return MaskNet(net["name"], segment, net["image_size"], tuple(net["preprocessing"]), weight)


def _class_net(bundle: Bundle, net: Mapping[str, Any], member: int) -> ClassNet:
    about = bundle.content["classes"]
    cut_of_all = {key: about[key] for key in ("crop_margin", "edge_radius") if key in about}
    run = _runner(bundle, net, CLASS_OUTPUTS)
    known = net["metadata"]  # None: it takes the image alone
    row = None if known is None else np.asarray(known["nothing_known"], np.float32)

    def classify(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        taken = {IMAGE: batch}
        if row is not None:
            taken[METADATA] = np.repeat(row[None], len(batch), axis=0)
        return tuple(run(taken))

    weights = _arrays(bundle, net["head"])
    head = Head(*(weights[name] for name in ("hidden_kernel", "hidden_bias", "logits_kernel")))
    reference = None
    if net["reference"] is not None:
        features = _arrays(bundle, net["reference"]["file"])["features"]
        reference = Reference(features, net["reference"]["threshold"])
    return ClassNet(
        net["name"],
        member,
        classify,
        net["image_size"],
        head,
        tuple(net["preprocessing"]),
        net["lesion_view"],
        net["box_margin"],
        Cut(**net.get("cut", cut_of_all)),
        reference,
        None if known is None else tuple(known["sites"]),
    )


def _runner(bundle: Bundle, net: Mapping[str, Any], outputs: Sequence[str]) -> Run:
    file = net["file"]
    return load_net(bundle.net_format, bundle.folder / file, _read(bundle, file), outputs)


def _arrays(bundle: Bundle, name: str) -> Mapping[str, np.ndarray]:
    with np.load(io.BytesIO(_read(bundle, name)), allow_pickle=False) as arrays:
        return dict(arrays)


def _read(bundle: Bundle, name: str) -> bytes:
    """A file of the bundle; UserError unless it is there and as it was written."""
    file = bundle.folder / name
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file in this folder")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file. {AGAIN}") from None
    if hashlib.sha256(content).hexdigest() != bundle.content["files"][name]:
        raise UserError(
            f"{file}: not the file that was written into this bundle: its SHA-256 is another. "
            f"{AGAIN}"
        )
    return content


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: cannot be read as a bundle ({error!r}). {AGAIN}")
