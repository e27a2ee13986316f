"""Post-processing and ensemble weights of Task 1, chosen on held-out predictions.

Enters: a function that scores all images for one choice. Leaves: the best choice, and for each fold
the best one by the other folds. The search goes along one value after another, twice; it asks for
each choice once, so choosing for every fold costs little more than choosing once.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import cv2
import numpy as np

from inference.postprocess import PostProcessing

ROUNDS = 2
SMOOTHING = (0.0, 1.0, 2.0, 4.0)
THRESHOLD = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
WEIGHT = (0.0, 0.5, 1.0, 2.0)  # of a member, before all are divided by their sum
LEAST_GAIN = 1e-4  # of the mean; a change worth less is not made


@dataclass(frozen=True)
class MaskChoice:
    """Everything that is tuned."""

    weights: tuple[float, ...]  # of the members of an ensemble
    rules: PostProcessing = field(default_factory=PostProcessing)

    def to_json(self) -> dict:
        """The values as JSON takes them."""
        return {"member_weights": list(self.weights)} | asdict(self.rules)


def choose(
    score: Callable[[MaskChoice], np.ndarray], members: int, chosen_on: np.ndarray | None = None
) -> MaskChoice:
    """The choice with the highest mean score, starting from equal weights and the default rules.

    Args:
        score: choice -> float (N,), such as the threshold Jaccard of each image; asked again and
            again, so it had better remember.
        members: how many trainings are blended.
        chosen_on: bool (N,), the images that count; None: all.
    """
    rows = slice(None) if chosen_on is None else chosen_on
    best = MaskChoice((1.0,) * members)
    highest = float(score(best)[rows].mean())
    for _ in range(ROUNDS):
        before = best
        for others in _directions(members):
            for other in others(best):
                value = float(score(other)[rows].mean())
                if value > highest + LEAST_GAIN:
                    best, highest = other, value
        if best == before:
            break
    return best


def choose_nested(
    score: Callable[[MaskChoice], np.ndarray], members: int, parts: np.ndarray
) -> list[tuple[int, MaskChoice]]:
    """For each part (a fold) the choice that is best on all the other parts.

    Raises ValueError with fewer than two parts.
    """
    names = np.unique(parts)
    if len(names) < 2:
        raise ValueError("one part alone has no others to choose on")
    return [(int(name), choose(score, members, parts != name)) for name in names]


def shrunken(truth_of: Callable[[str], np.ndarray], longest: int) -> Callable[[str], np.ndarray]:
    """The same truths, bool (H, W), at most `longest` pixels a side; remembered, a bit per pixel.

    A search looks at each truth dozens of times, and at 3072x2304 it would take hours.
    """
    remembered: dict[str, tuple[np.ndarray, tuple[int, int]]] = {}

    def small(image_id: str) -> np.ndarray:
        if image_id not in remembered:
            truth = truth_of(image_id).astype(np.uint8) * 255
            scale = min(longest / max(truth.shape), 1.0)
            height, width = (max(round(scale * side), 1) for side in truth.shape)
            truth = cv2.resize(truth, (width, height), interpolation=cv2.INTER_AREA) > 127
            remembered[image_id] = np.packbits(truth), truth.shape
        bits, shape = remembered[image_id]
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)

    return small


def _directions(members: int) -> Sequence[Callable[[MaskChoice], list[MaskChoice]]]:
    """Functions from a choice to those that differ from it in one value."""

    def weight(member: int) -> Callable[[MaskChoice], list[MaskChoice]]:
        def others(choice: MaskChoice) -> list[MaskChoice]:
            found = []
            for value in WEIGHT:
                weights = tuple(
                    value if k == member else old for k, old in enumerate(choice.weights)
                )
                if any(weights):
                    found.append(replace(choice, weights=weights))
            return found

        return others

    def rule(name: str, values: Sequence) -> Callable[[MaskChoice], list[MaskChoice]]:
        return lambda choice: [
            replace(choice, rules=replace(choice.rules, **{name: value})) for value in values
        ]

    blends = [weight(member) for member in range(members)] if members > 1 else []
    return [
        *blends,
        rule("smoothing", SMOOTHING),
        rule("threshold", THRESHOLD),
        rule("component", ("largest", "all")),
        rule("fill_holes", (True, False)),
    ]
