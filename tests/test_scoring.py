from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from datasets.challenge import JACCARD_THRESHOLD
from evaluation import bootstrap
from evaluation.mask_scoring import MASK_MEASURES, score_mask
from models import metrics


def strip(lesion: slice, length: int = 10) -> np.ndarray:
    mask = np.zeros((1, length), np.uint8)
    mask[:, lesion] = 255
    return mask


def test_mask_scores_by_hand():
    # lesion 0..5 against 2..7: 4 pixels in both, 8 in either, 2 in neither
    scores = score_mask(strip(slice(0, 6)), strip(slice(2, 8)))
    assert scores == {
        "accuracy": pytest.approx(6 / 10),
        "sensitivity": pytest.approx(4 / 6),
        "specificity": pytest.approx(2 / 4),
        "dice": pytest.approx(8 / 12),
        "jaccard": pytest.approx(4 / 8),
        "threshold_jaccard": 0.0,
    }
    assert all(type(value) is float for value in scores.values())


def test_truth_comes_first():
    small, large = strip(slice(0, 2)), strip(slice(0, 8))
    assert score_mask(small, large)["sensitivity"] == 1.0
    assert score_mask(large, small)["sensitivity"] == 0.25
    assert score_mask(small, large)["specificity"] == 0.25


def test_jaccard_of_the_threshold_itself_counts():
    assert JACCARD_THRESHOLD == metrics.JACCARD_THRESHOLD == 0.65
    truth = strip(slice(0, 20), 20)
    assert score_mask(truth, strip(slice(0, 13), 20))["threshold_jaccard"] == 13 / 20
    assert score_mask(truth, strip(slice(0, 12), 20))["threshold_jaccard"] == 0.0


def test_nothing_to_nothing_is_one():
    empty, full, half = strip(slice(0, 0)), strip(slice(0, 10)), strip(slice(0, 5))
    assert set(score_mask(empty, empty).values()) == {1.0}
    assert set(score_mask(full, full).values()) == {1.0}
    assert score_mask(empty, half)["sensitivity"] == 1.0
    assert score_mask(empty, half)["jaccard"] == score_mask(half, empty)["jaccard"] == 0.0
    assert score_mask(full, half)["specificity"] == 1.0


def test_grey_values_are_cut_above_128():
    full = np.full((2, 2), 255, np.uint8)
    jaccard = {
        grey: score_mask(full, full // 255 * np.uint8(grey))["jaccard"] for grey in range(256)
    }
    assert [grey for grey, value in jaccard.items() if value == 1.0] == list(range(129, 256))
    assert score_mask(full, full > 0)["jaccard"] == 1.0


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "one size"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3, 1), np.uint8), "prediction must be"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8), "truth must be"),
        (np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8), "one size"),
    ],
)
def test_masks_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        score_mask(truth, prediction)


def random_masks() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(1000):
        shape = random.integers(1, 24, size=2)
        truth = (random.random(shape) < random.choice([0, 0.1, 0.5, 0.9, 1])) * np.uint8(255)
        differs = random.random(shape) < random.choice([0, 0.05, 0.2, 1])
        prediction = np.where(differs, 255 - truth, truth)
        # soft values on both sides of 128
        prediction = np.where(prediction == 255, random.integers(127, 256, shape), prediction)
        pairs.append((truth, prediction.astype(np.uint8)))
    return pairs


def test_1000_masks_as_the_organisers_score_them():
    from isic_challenge_scoring.segmentation import SegmentationScore

    pairs = [
        SimpleNamespace(truth_image=truth, prediction_image=prediction, image_id=str(number))
        for number, (truth, prediction) in enumerate(random_masks())
    ]
    ours = [score_mask(pair.truth_image, pair.prediction_image) for pair in pairs]
    assert len({scores["threshold_jaccard"] for scores in ours}) > 20
    assert {tuple(scores) for scores in ours} == {MASK_MEASURES}
    for pair, scores in zip(pairs, ours, strict=True):
        theirs = SegmentationScore([pair]).macro_average.to_dict()
        assert scores == pytest.approx(theirs, abs=1e-9)
    whole = SegmentationScore(pairs)
    table = pd.DataFrame(ours, index=[pair.image_id for pair in pairs])
    means = bootstrap.mask_table(table, bootstrap.resample(table.index, repeats=1))["value"]
    assert means.to_dict() == pytest.approx(whole.macro_average.to_dict(), abs=1e-9)
    assert means["threshold_jaccard"] == pytest.approx(whole.overall, abs=1e-9)
