import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.class_scoring import (
    CLASS_MEASURES,
    mean_over_classes,
    measure_classes,
    score_classes,
    sensitivity_at,
)


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


def test_measures_of_each_class_by_hand():
    truth = np.array([0, 0, 1, 1])
    probability = table([0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8])
    scores = score_classes(truth, probability)
    # class 0: positives .9 .4, negatives .6 .2; cut at .5: one hit, one miss, one false, one right
    assert {name: values[0] for name, values in scores.per_class.items()} == pytest.approx(
        {
            **dict.fromkeys(("accuracy", "sensitivity", "specificity"), 0.5),
            **dict.fromkeys(("dice", "ppv", "npv"), 0.5),
            "auc": 3 / 4,  # of four pairs .4 < .6 alone is the wrong way round
            "ap": 0.5 * 1 + 0.5 * 2 / 3,
        }
    )
    assert tuple(scores.per_class) == CLASS_MEASURES
    assert mean_over_classes(scores.per_class["auc"]) == pytest.approx(3 / 4)


def test_half_is_not_greater_than_half():
    scores = score_classes(np.array([0, 1]), table([0.5, 0.4], [0.5, 0.6]))
    assert scores.per_class["sensitivity"].tolist() == [0.0, 1.0]
    assert scores.per_class["ppv"].tolist() == [1.0, 1.0]  # class 0 is never claimed


def test_a_class_that_is_absent_has_no_curve():
    scores = score_classes(np.array([0, 1, 1]), table([0.8, 0.1, 0.1], [0, 1, 0], [0.5, 0.4, 0.1]))
    assert np.isnan(scores.per_class["auc"][2]) and np.isnan(scores.per_class["ap"][2])
    assert scores.per_class["sensitivity"][2] == 1.0  # nothing to miss
    mean = mean_over_classes(scores.per_class["auc"])
    assert mean == pytest.approx(np.mean(scores.per_class["auc"][:2]))
    alone = score_classes(np.array([1, 1]), table([0.2, 0.8], [0.6, 0.4]))
    assert np.isnan(alone.per_class["auc"]).all()
    assert np.isnan(mean_over_classes(alone.per_class["auc"]))
    assert alone.per_class["ap"][1] == 1.0


def random_tables(count):
    random = np.random.default_rng(1)
    for number in range(count):
        rows, num_classes = random.integers(1, 40), random.integers(2, 8)
        truth = random.integers(0, num_classes, rows)
        if number % 10 == 0:
            truth[:] = truth[0]  # a single class
        digits = 1 if number % 3 == 0 else 6  # one digit: many ties
        probability = random.dirichlet(np.ones(num_classes), rows).round(digits)
        probability[np.arange(rows), truth] += 0.2 * (number % 2)
        if number % 7 == 3:
            probability[:] = np.eye(num_classes)[number % num_classes]  # all say the same class
        if number % 50 == 4:
            probability[:] = 1 / num_classes  # nothing but ties
        weights = random.integers(0, 3, rows).astype(float) if number % 4 == 1 else np.ones(rows)
        if not weights.any():
            weights[0] = 1.0
        yield truth, probability, weights


def official(truth, probability, weights):
    """Balanced accuracy, and {class: its measures}; curves only where the scorer has them."""
    from isic_challenge_scoring import metrics
    from isic_challenge_scoring.confusion import create_binary_confusion_matrix

    names = [f"class {index}" for index in range(probability.shape[1])]
    truths = pd.DataFrame(np.eye(len(names))[truth], columns=names)
    predictions, weights = pd.DataFrame(probability, columns=names), pd.Series(weights)
    balanced = metrics.balanced_multiclass_accuracy(truths, predictions, weights)
    classes = []
    for name in names:
        confusion = create_binary_confusion_matrix(
            truths[name].gt(0.5).to_numpy(),
            predictions[name].gt(0.5).to_numpy(),
            weights.to_numpy(),
        )
        binary = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")
        found = {one: getattr(metrics, f"binary_{one}")(confusion) for one in binary}
        if truths[name][weights > 0].nunique() == 2:
            found["auc"] = metrics.auc(truths[name], predictions[name], weights)
            found["ap"] = metrics.average_precision(truths[name], predictions[name], weights)
        classes.append(found)
    return balanced, classes


def test_100_tables_as_the_organisers_score_them():
    ties, without_curve, with_curve = 0, 0, 0
    for truth, probability, weights in random_tables(100):
        balanced, classes = official(truth, probability, weights)
        ours = score_classes(truth, probability, weights)
        assert ours.balanced_accuracy == pytest.approx(balanced, abs=1e-9)
        for k, theirs in enumerate(classes):
            mine = {name: values[k] for name, values in ours.per_class.items()}
            assert {name: mine[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
            without_curve += "auc" not in theirs and bool(np.isnan(mine["auc"]))
            with_curve += "auc" in theirs
        ties += ours.confusion[:, -1].sum()
    assert ties > 100 and without_curve > 50 and with_curve > 300


def test_many_rows_of_weights_are_many_scores():
    random = np.random.default_rng(3)
    truth, probability = random.integers(0, 4, 200), random.dirichlet(np.ones(4), 200).round(2)
    weights = random.integers(0, 4, (7, 200)).astype(np.float32)
    many = measure_classes(truth, probability, weights)
    for row in range(7):
        one = score_classes(truth, probability, weights[row])
        assert many.accuracy[row] == pytest.approx(one.accuracy)
        assert many.balanced_accuracy[row] == pytest.approx(one.balanced_accuracy)
        for k in range(4):
            by_sklearn = [truth == k, probability[:, k]]
            auc = roc_auc_score(*by_sklearn, sample_weight=weights[row])
            ap = average_precision_score(*by_sklearn, sample_weight=weights[row])
            assert many.per_class["auc"][row, k] == pytest.approx(auc)
            assert many.per_class["ap"][row, k] == pytest.approx(ap)


def test_curves_under_weights_of_any_size():
    random = np.random.default_rng(4)
    for digits in (1, 2, 9):  # one digit: nearly all tied
        truth = random.integers(0, 3, 60)
        probability = random.dirichlet(np.ones(3), 60).round(digits)
        weights = random.random((5, 60)) * (random.random((5, 60)) < 0.7)
        many = measure_classes(truth, probability, weights)
        for row in range(5):
            for k in range(3):
                kept = weights[row] > 0
                asked = [truth[kept] == k, probability[kept, k]]
                auc = roc_auc_score(*asked, sample_weight=weights[row, kept])
                ap = average_precision_score(*asked, sample_weight=weights[row, kept])
                assert many.per_class["auc"][row, k] == pytest.approx(auc, abs=1e-12)
                assert many.per_class["ap"][row, k] == pytest.approx(ap, abs=1e-12)


def test_rounding_does_not_make_something_of_nothing():
    """Class 0 is claimed of every image: whatever the weights, no image is left for npv."""
    random = np.random.default_rng(5)
    truth, probability = random.integers(0, 2, 9), np.tile([0.9, 0.1], (9, 1))
    many = measure_classes(truth, probability, random.random((2000, 9)))
    assert (many.per_class["npv"][:, 0] == 1).all() and (many.per_class["ppv"][:, 1] == 1).all()
    alone = measure_classes(np.zeros(9, int), probability, random.random((2000, 9)))
    assert (alone.per_class["specificity"][:, 0] == 1).all()
    assert np.isnan(alone.per_class["auc"]).all()


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


def test_sensitivity_at_a_specificity_by_hand():
    # positives at .9 .7 .4, negatives at .8 .6 .5 .3 .2
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    positive = np.array([1, 0, 1, 0, 0, 1, 0, 0], bool)
    ones = np.ones((1, 8))
    for specificity, expected in ((1.0, 1 / 3), (0.8, 2 / 3), (0.5, 2 / 3), (0.4, 1.0), (0.0, 1.0)):
        assert sensitivity_at(specificity, positive, score, ones)[0] == pytest.approx(expected)
    # without the negative at .8 the positive at .7 is found at no cost
    weights = np.array([[1, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 1, 1]])
    assert sensitivity_at(1.0, positive, score, weights) == pytest.approx([2 / 3, 1 / 2])


def test_images_of_one_score_are_not_parted():
    score, positive = np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0], bool)
    ones = np.ones((1, 4))
    assert sensitivity_at(0.9, positive, score, ones)[0] == 0
    assert sensitivity_at(0.5, positive, score, ones)[0] == 1
    none = sensitivity_at(0.9, np.ones(4, bool), score, ones)
    assert np.isnan(none).all() and np.isnan(sensitivity_at(0.9, ~positive & False, score, ones))


def test_sensitivity_agrees_with_every_threshold():
    random = np.random.default_rng(0)
    for _ in range(50):
        score, positive = random.integers(0, 8, 30) / 8, random.random(30) < 0.4
        if positive.all() or not positive.any():
            continue
        wanted = random.choice([0.5, 0.8, 0.9, 0.95])
        best = max(
            (score[positive] > cut).mean()
            for cut in [-1.0, *np.unique(score)]
            if (score[~positive] <= cut).mean() >= wanted - 1e-9
        )
        found = sensitivity_at(wanted, positive, score, np.ones((1, 30)))[0]
        assert found == pytest.approx(best)
