"""Answers for single images: load once, then ask for each.

Enters: nets, rules for masks, how class probabilities are blended; images uint8 RGB (H, W, 3) of
any size. Leaves: for each a Prediction: the lesion, the class and how sure, where the nets looked,
whether the image is unlike those they were trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.boxes import Box, bounding_box, cut_box, cut_lesion, widen
from datasets.pictures import read_image, resize
from datasets.preprocessing import preprocess
from deploy.grad_cam import look
from deploy.nets import ClassNet, MaskNet
from inference import tta
from inference.postprocess import PostProcessing, mask_of
from inference.prediction import mean_logits

# log-probabilities (M, N, C) of the members of an ensemble -> probabilities (N, C)
Blend = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the nets say of one image; None for what was not asked or cannot be known."""

    height: int  # of the image, in pixels
    width: int
    mask: np.ndarray | None = None  # of the lesion, uint8 {0, 255} (height, width)
    mask_agreement: float | None = None  # mean Jaccard index of each net's mask with this, 0..1
    box: Box | None = None  # around the lesion; the whole image where none was found
    probability: dict[str, float] | None = None  # of each class
    decided: str | None = None  # the class of the largest
    agreement: float | None = None  # share of the nets (and views) that decide the same, 0..1
    spread: float | None = None  # standard deviation of its probability over nets (and views)
    heat: np.ndarray | None = None  # where they looked, float32 (h, w) 0..1, of what they saw
    seen: np.ndarray | None = None  # what the first of them saw, uint8 (S, S, 3)
    unlikeness: float | None = None  # of the training images; 1 is passed by 5 % of new lesions

    @property
    def unlike(self) -> bool | None:
        """Whether the image is unlike the training images; it says nothing of right or wrong."""
        return None if self.unlikeness is None else self.unlikeness > 1


@dataclass(frozen=True, eq=False)
class Predictor:
    """Nets that answer together.

    Attributes:
        mask_nets: find the lesion; none: no masks.
        class_nets: tell the class; none: no classes. UserError of load functions where they need a
            mask and there are no mask_nets.
        classes: names, in the order of the probabilities.
        rules: from probability to mask.
        blend: of the members of an ensemble, calibrated where it was tuned.
        views: 1, or 8 for all flips and quarter turns.
    """

    mask_nets: Sequence[MaskNet]
    class_nets: Sequence[ClassNet]
    classes: tuple[str, ...]
    rules: PostProcessing
    blend: Blend
    views: int = 1

    @property
    def names(self) -> list[str]:
        """Of the nets that answer."""
        return [net.name for net in (*self.mask_nets, *self.class_nets)]

    def predict(self, image: bytes | np.ndarray) -> Prediction:
        """The answer for one image: the bytes of a file, or uint8 RGB (H, W, 3).

        Raises ValueError for bytes that are no picture, see pictures.read_image.
        """
        picture = read_image(image)[0] if isinstance(image, bytes) else image
        return self.predict_batch([picture])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """The same for several images uint8 RGB (H, W, 3); one answer does not depend on others.

        Nets are asked for as many images at once as there are: give batches of one size.
        """
        predictions = [Prediction(*image.shape[:2]) for image in images]
        if self.mask_nets:
            predictions = self._with_masks(images, predictions)
        if self.class_nets:
            predictions = self._with_classes(images, predictions)
        return predictions

    def _with_masks(
        self, images: Sequence[np.ndarray], predictions: list[Prediction]
    ) -> list[Prediction]:
        batches: dict[tuple, np.ndarray] = {}
        maps = []
        for net in self.mask_nets:
            look_of = net.image_size, net.steps
            if look_of not in batches:
                small = [resize(preprocess(image, net.steps), net.image_size) for image in images]
                batches[look_of] = np.stack(small)
            turned = [
                tta.undo(net.segment(tta.view(batches[look_of], k)), k) for k in range(self.views)
            ]
            maps.append(np.mean(turned, axis=0))
        weights = [net.weight for net in self.mask_nets]
        together = mean_logits(maps, weights)
        answered = []
        for row, prediction in enumerate(predictions):
            size = prediction.height, prediction.width
            mask = mask_of(together[row], *size, self.rules)
            agreement = None
            if len(maps) > 1:  # at the nets' own size: of the shape, not of single pixels
                side = together.shape[1:3]
                whole = mask_of(together[row], *side, self.rules) > 0
                each = [mask_of(part[row], *side, self.rules) > 0 for part in maps]
                agreement = float(np.mean([_jaccard(whole, one) for one in each]))
            box = bounding_box(mask)
            answered.append(replace(prediction, mask=mask, box=box, mask_agreement=agreement))
        return answered

    def _with_classes(
        self, images: Sequence[np.ndarray], predictions: list[Prediction]
    ) -> list[Prediction]:
        batches: dict[tuple, np.ndarray] = {}
        log_probability, heats, distances, first_seen = [], [], [], None
        for net in self.class_nets:
            look_of = net.image_size, net.steps, net.lesion_view, net.box_margin, net.cut
            if look_of not in batches:
                batches[look_of] = np.stack(
                    [self._seen(net, *pair) for pair in zip(images, predictions, strict=True)]
                )
            batch = batches[look_of]
            first_seen = batch if first_seen is None else first_seen
            outputs = [net.classify(tta.view(batch, k)) for k in range(self.views)]
            log_probability.append([_log_softmax(logits) for logits, _, _ in outputs])
            heats.append((net, outputs[0]))
            if net.reference is not None:
                distance = net.reference.distance(outputs[0][1])
                distances.append(distance / max(net.reference.threshold, 1e-6))
        each = np.asarray(log_probability)  # (nets, views, N, C)
        members = sorted({net.member for net in self.class_nets})
        of_member = [
            np.mean(
                [
                    each[k].mean(axis=0)
                    for k, net in enumerate(self.class_nets)
                    if net.member == member
                ],
                axis=0,
            )
            for member in members
        ]
        probability = self.blend(np.asarray(of_member))
        decided = probability.argmax(axis=1)
        flat = np.exp(each.reshape(-1, *each.shape[2:]))  # (nets x views, N, C)
        agreement = (flat.argmax(axis=2) == decided).mean(axis=0)
        spread = flat[:, np.arange(len(images)), decided].std(axis=0)
        heat = _mean_heat([look(net.head, out[2], out[1], decided) for net, out in heats])
        unlike = np.mean(distances, axis=0) if distances else None
        several = len(flat) > 1
        return [
            replace(
                prediction,
                probability=dict(zip(self.classes, map(float, probability[row]), strict=True)),
                decided=self.classes[decided[row]],
                agreement=float(agreement[row]) if several else None,
                spread=float(spread[row]) if several else None,
                heat=heat[row],
                seen=first_seen[row],
                unlikeness=None if unlike is None else float(unlike[row]),
            )
            for row, prediction in enumerate(predictions)
        ]

    def _seen(self, net: ClassNet, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """What the net sees of an image: uint8 (S, S, 3)."""
        if net.lesion_view == "box":
            box = bounding_box(prediction.mask, net.cut.crop_margin)
            image = cut_box(image, widen(box, net.box_margin, *image.shape[:2]))
        elif net.lesion_view != "whole":
            radius = net.cut.edge_radius if net.lesion_view == "feather" else 0.0
            box = bounding_box(prediction.mask, net.cut.crop_margin, radius)
            image = cut_lesion(image, prediction.mask, box, radius)
        return resize(preprocess(image, net.steps), net.image_size)


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 1.0


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _mean_heat(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of maps (N, h, w) whose sizes may differ, at the largest of them; its maximum is 1."""
    side = max(part.shape[1] for part in maps)
    same = [
        np.stack([cv2.resize(one, (side, side)) for one in part]) if part.shape[1] != side else part
        for part in maps
    ]
    mean = np.mean(same, axis=0)
    largest = mean.max(axis=(1, 2), keepdims=True)
    return (mean / np.where(largest > 0, largest, 1)).astype(np.float32)
