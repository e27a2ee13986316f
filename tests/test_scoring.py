from types import SimpleNamespace

import numpy as np
import pytest

from misc_utils.scoring import JACCARD_THRESHOLD, mean_scores, score_classes, score_mask


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
    assert JACCARD_THRESHOLD == 0.65
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


def test_mean_scores():
    assert mean_scores([{"a": 0.0, "b": 1.0}, {"a": 0.5, "b": 0.0}]) == {"a": 0.25, "b": 0.5}
    with pytest.raises(ValueError, match="no score"):
        mean_scores([])
    with pytest.raises(ValueError, match="same measures"):
        mean_scores([{"a": 0.0}, {"a": 0.5, "b": 0.0}])


def random_masks() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(200):
        shape = random.integers(1, 24, size=2)
        truth = (random.random(shape) < random.choice([0, 0.1, 0.5, 0.9, 1])) * np.uint8(255)
        differs = random.random(shape) < random.choice([0, 0.05, 0.2, 1])
        prediction = np.where(differs, 255 - truth, truth)
        # soft values on both sides of 128
        prediction = np.where(prediction == 255, random.integers(127, 256, shape), prediction)
        pairs.append((truth, prediction.astype(np.uint8)))
    return pairs


def test_masks_as_the_organisers_score_them():
    from isic_challenge_scoring.segmentation import SegmentationScore

    pairs = [
        SimpleNamespace(truth_image=truth, prediction_image=prediction, image_id=str(number))
        for number, (truth, prediction) in enumerate(random_masks())
    ]
    ours = [score_mask(pair.truth_image, pair.prediction_image) for pair in pairs]
    assert len({scores["threshold_jaccard"] for scores in ours}) > 20
    for pair, scores in zip(pairs, ours, strict=True):
        theirs = SegmentationScore([pair]).macro_average.to_dict()
        assert scores == pytest.approx(theirs, abs=1e-9)
    whole = SegmentationScore(pairs)
    assert mean_scores(ours) == pytest.approx(whole.macro_average.to_dict(), abs=1e-9)
    assert mean_scores(ours)["threshold_jaccard"] == pytest.approx(whole.overall, abs=1e-9)


def table(*rows: list[float]) -> np.ndarray:
    return np.array(rows)


def test_class_scores_by_hand():
    truth = np.array([0, 0, 0, 1, 1])
    probability = table(
        [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2]
    )
    scores = score_classes(truth, probability)
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert np.issubdtype(scores.confusion.dtype, np.integer)
    assert scores.accuracy == pytest.approx(3 / 5)
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.precision, [2 / 3, 1 / 2, np.nan])
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)  # two classes, not three


def test_precision_and_recall_are_not_mixed_up():
    scores = score_classes(np.array([0, 0, 0, 1]), table([1, 0], [0, 1], [0, 1], [0, 1]))
    np.testing.assert_allclose(scores.recall, [1 / 3, 1])
    np.testing.assert_allclose(scores.precision, [1, 1 / 3])


def test_ties_are_undecided_and_wrong():
    scores = score_classes(np.array([0, 0, 1]), table([0.4, 0.4, 0.2], [0.6, 0.2, 0.2], [1, 1, 1]))
    assert scores.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert scores.accuracy == pytest.approx(1 / 3)
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 0) / 2)
    assert scores.precision[0] == 1.0


def test_a_tie_below_the_largest_value_decides():
    assert score_classes(np.array([2]), table([0.2, 0.2, 0.6])).accuracy == 1.0


def test_weights():
    truth, probability = np.array([0, 0, 1]), table([0.9, 0.1], [0.1, 0.9], [0.9, 0.1])
    scores = score_classes(truth, probability, np.array([3.0, 1.0, 0.0]))
    assert scores.confusion.tolist() == [[3, 1, 0], [0, 0, 0]]
    assert scores.accuracy == scores.balanced_accuracy == 0.75  # class 1 weighs nothing
    assert np.isnan(scores.recall[1])


@pytest.mark.parametrize(
    ("truth", "probability", "weights", "message"),
    [
        ([0, 1], [[1.0, 0.0]], None, "expected"),
        ([], np.zeros((0, 2)), None, "expected"),
        ([0.0], [[1.0, 0.0]], None, "class indices"),
        ([2], [[1.0, 0.0]], None, "0..1, not 2..2"),
        ([-1], [[1.0, 0.0]], None, "0..1, not -1..-1"),
        ([0, 0], [[1.0, 0.0], [np.nan, 0.0]], None, "row 1 is not finite"),
        ([0], [[1.0, 0.0]], [1.0, 1.0], "1 finite numbers"),
        ([0], [[1.0, 0.0]], [-1.0], "none negative"),
        ([0], [[1.0, 0.0]], [0.0], "nothing is left"),
    ],
)
def test_tables_refused(truth, probability, weights, message):
    with pytest.raises(ValueError, match=message):
        score_classes(np.array(truth), np.array(probability), weights)


def random_tables():
    random = np.random.default_rng(1)
    for number in range(60):
        count, num_classes = random.integers(1, 40), random.integers(2, 8)
        truth = random.integers(0, num_classes, count)
        if number % 10 == 0:
            truth[:] = truth[0]  # a single class
        digits = 1 if number % 3 == 0 else 6  # one digit: many ties
        probability = random.dirichlet(np.ones(num_classes), count).round(digits)
        probability[np.arange(count), truth] += 0.2 * (number % 2)
        weights = random.integers(0, 3, count).astype(float) if number % 4 == 1 else None
        if weights is not None and not weights.any():
            weights[0] = 1.0
        yield truth, probability, weights


def test_tables_as_the_organisers_score_them():
    import pandas as pd
    from isic_challenge_scoring.metrics import balanced_multiclass_accuracy

    ties = 0
    for truth, probability, weights in random_tables():
        names = [f"class {index}" for index in range(probability.shape[1])]
        theirs = balanced_multiclass_accuracy(
            pd.DataFrame(np.eye(len(names))[truth], columns=names),
            pd.DataFrame(probability, columns=names),
            pd.Series(np.ones(len(truth)) if weights is None else weights),
        )
        ours = score_classes(truth, probability, weights)
        assert ours.balanced_accuracy == pytest.approx(theirs, abs=1e-9)
        ties += ours.confusion[:, -1].sum()
    assert ties > 20


@pytest.mark.filterwarnings("ignore::FutureWarning:isic_challenge_scoring")
def test_a_submission_as_the_organisers_score_it(tmp_path):
    from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore

    random = np.random.default_rng(2)
    classes, ids = ["MEL", "NV", "BCC"], [f"ISIC_{35060 + number:07d}" for number in range(24)]
    truth = np.arange(24) % 3
    probability = random.dirichlet(np.ones(3), 24).round(3)
    header = ",".join(["image", *classes])
    for name, rows in (("truth", np.eye(3)[truth]), ("prediction", probability)):
        lines = [",".join([i, *map(str, row)]) for i, row in zip(ids, rows, strict=True)]
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    theirs = ClassificationScore.from_file(
        tmp_path / "truth", tmp_path / "prediction", ClassificationMetric.BALANCED_ACCURACY
    )
    weights = np.array([image_id != "ISIC_0035068" for image_id in ids])  # they leave it out
    ours = score_classes(truth, probability, weights)
    assert ours.balanced_accuracy == pytest.approx(theirs.overall, abs=1e-9)
    assert score_classes(truth, probability).balanced_accuracy != pytest.approx(theirs.overall)
