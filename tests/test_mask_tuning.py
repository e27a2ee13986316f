import numpy as np
import pytest

from evaluation.mask_tuning import MaskChoice, choose, choose_nested, shrunken
from inference.postprocess import PostProcessing


def bell(choice, best):
    """Highest at one choice; each value that differs costs something."""
    cost = abs(choice.rules.threshold - best.threshold) + abs(
        choice.rules.smoothing - best.smoothing
    )
    cost += (choice.rules.component != best.component) + (
        choice.rules.fill_holes != best.fill_holes
    )
    return 1 - cost / 10


def test_the_best_choice_is_found():
    best = PostProcessing(smoothing=2.0, threshold=0.4, fill_holes=False, component="all")
    assert choose(lambda choice: np.full(3, bell(choice, best)), members=1) == MaskChoice(
        (1.0,), best
    )


def test_nothing_changes_without_gain():
    assert choose(lambda choice: np.full(3, 0.5), members=2) == MaskChoice(
        (1.0, 1.0), PostProcessing()
    )


def test_a_bad_member_loses_its_weight():
    def score(choice):
        share = choice.weights[0] / sum(choice.weights)
        return np.full(2, share)

    chosen = choose(score, members=2)
    assert chosen.weights[1] == 0 and chosen.weights[0] > 0


def test_a_fold_is_never_chosen_on():
    """Fold 0 would like a low threshold, the others a high one."""
    parts = np.array([0, 0, 1, 1, 2, 2])

    def score(choice):
        wanted = np.where(parts == 0, 0.3, 0.6)
        return 1 - np.abs(wanted - choice.rules.threshold)

    nested = dict(choose_nested(score, 1, parts))
    assert nested[0].rules.threshold == 0.6
    half = dict(choose_nested(score, 1, np.array([0, 0, 1, 1, 1, 1])))
    assert half[1].rules.threshold == 0.3
    with pytest.raises(ValueError, match="no others"):
        choose_nested(score, 1, np.zeros(6, int))


def test_a_choice_is_made_on_the_given_rows_alone():
    rows = np.array([True, False])
    wanted = np.array([0.35, 0.65])
    chosen = choose(lambda choice: 1 - np.abs(wanted - choice.rules.threshold), 1, rows)
    assert chosen.rules.threshold == 0.35


def test_truths_are_shrunk_once():
    asked = []

    def truth_of(image_id):
        asked.append(image_id)
        mask = np.zeros((60, 90), bool)
        mask[:30] = True
        return mask

    small = shrunken(truth_of, longest=45)
    for _ in range(2):
        mask = small("a")
        assert mask.shape == (30, 45) and mask.dtype == bool
        assert mask[:15].all() and not mask[15:].any()
    assert asked == ["a"]
    assert shrunken(truth_of, longest=900)("b").shape == (60, 90)  # never enlarged
