import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from evaluation import calibration
from evaluation.calibration import ClassChoice
from evaluation.class_scoring import score_classes


def drawn(count=3000, sharpness=1.0, seed=0):
    """Log-probabilities (N, 4), right as often as they say, then made `sharpness` times surer."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, 4))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    truth = (random.random((count, 1)) > chances).sum(axis=1).clip(max=3)
    return log_softmax(sharpness * logits, axis=1), truth


def loss(truth, probability):
    return calibration.negative_log_likelihood(truth, probability).mean()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(sharpness):
    log_p, truth = drawn(8000, sharpness)
    fitted = calibration.fit_temperature(log_p[None], truth)
    assert fitted.temperature == pytest.approx(sharpness, rel=0.08)
    probability = calibration.blend(log_p[None], fitted)
    assert probability.sum(axis=1) == pytest.approx(1)
    assert (probability.argmax(axis=1) == log_p.argmax(axis=1)).all()


def test_an_overconfident_net_is_mended_on_folds_it_was_not_fitted_on():
    log_p, truth = drawn(3000, 3.0)
    parts = np.arange(3000) % 5
    seen = []

    def fit(rows):
        seen.append(rows)
        return calibration.fit_temperature(log_p[None, rows], truth[rows])

    after = calibration.nested(
        parts, fit, lambda how, rows: calibration.blend(log_p[None, rows], how)
    )
    before = np.exp(log_p)
    for part in range(5):
        assert not seen[part][parts == part].any() and seen[part][parts != part].all()
        rows = parts == part
        assert loss(truth[rows], after[rows]) < loss(truth[rows], before[rows])
    errors = [calibration.calibration_error(truth, each) for each in (before, after)]
    assert errors[0] > 0.1 > 0.04 > errors[1]


def test_one_part_cannot_be_nested():
    with pytest.raises(ValueError, match="no others"):
        calibration.nested(np.zeros(3), lambda rows: None, lambda how, rows: rows)


def test_the_better_member_gets_the_weight():
    log_p, truth = drawn(4000)
    noise = log_softmax(np.random.default_rng(1).normal(0, 1.5, log_p.shape), axis=1)
    fitted = calibration.fit_blend(np.stack([noise, log_p]), truth)
    assert sum(fitted.weights) == pytest.approx(1) and fitted.weights[1] > 0.95
    assert fitted.temperature == pytest.approx(1, rel=0.1)
    twice = calibration.fit_blend(np.stack([log_p, log_p]), truth)
    one = calibration.fit_blend(log_p[None], truth)
    assert calibration.blend(np.stack([log_p] * 2), twice) == pytest.approx(
        calibration.blend(log_p[None], one), abs=1e-3
    )


def test_nets_that_know_nothing_are_made_unsure():
    random = np.random.default_rng(2)
    log_p = log_softmax(random.normal(0, 3, (1, 2000, 4)), axis=2)
    fitted = calibration.fit_blend(log_p, random.integers(0, 4, 2000))
    assert fitted.temperature > 10 and np.isfinite(fitted.weights).all()


def test_blending_by_hand():
    log_p = np.log([[[0.8, 0.2]], [[0.5, 0.5]]])
    plain = calibration.blend(log_p, ClassChoice((1.0, 0.0), 1.0))
    assert plain == pytest.approx(np.array([[0.8, 0.2]]))
    cooled = calibration.blend(log_p, ClassChoice((1.0, 0.0), 0.5))
    assert cooled == pytest.approx(np.array([[0.64, 0.04]]) / 0.68)
    mean = calibration.blend(log_p)
    assert mean == pytest.approx(np.array([[2 / 3, 1 / 3]]))  # sqrt(.8 * .5) : sqrt(.2 * .5)
    weighed = calibration.blend(log_p, ClassChoice((1.0, 0.0), 0.5, (1.0, 16.0)))
    assert weighed == pytest.approx(np.array([[0.5, 0.5]]))


def test_calibration_error_by_hand():
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    truth = np.array([0, 0, 1, 1])
    table = calibration.reliability(truth, probability, bins=10)
    assert table["images"].tolist() == [1, 3]  # 0.6..0.7 and 0.8..0.9
    assert table["confidence"].tolist() == pytest.approx([0.7, 0.9])
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    expected = (1 * 0.3 + 3 * (0.9 - 2 / 3)) / 4
    assert calibration.calibration_error(truth, probability, bins=10) == pytest.approx(expected)
    top = np.array([[0.9, 0.1], [0.05, 0.95], [0.0, 1.0]])  # a bin holds its upper end: .9 is below
    assert calibration.reliability(np.array([0, 1, 1]), top, bins=10)["images"].tolist() == [1, 2]
    sure = np.array([[1.0, 0.0]])
    assert calibration.calibration_error(np.array([0]), sure) == 0
    assert calibration.negative_log_likelihood(np.array([1]), sure) == pytest.approx(-np.log(1e-15))


def balanced(truth, probability):
    right = probability.argmax(axis=1) == truth
    return np.mean([right[truth == k].mean() for k in np.unique(truth)])


def test_decision_weights_raise_the_balanced_accuracy():
    """Two classes, the rare one always a little less probable than the common one."""
    random = np.random.default_rng(3)
    truth = (random.random(500) < 0.1).astype(int)
    rare = np.where(truth == 1, 0.4, 0.2) + random.normal(0, 0.03, 500)
    probability = np.c_[1 - rare, rare]
    weights = calibration.fit_decision_weights(truth, probability)
    assert weights.prod() == pytest.approx(1) and weights[1] > weights[0]
    assert balanced(truth, probability) < 0.55
    assert balanced(truth, calibration.reweigh(probability, weights)) > 0.95
    assert calibration.reweigh(probability, weights).sum(axis=1) == pytest.approx(1)


def test_decision_weights_never_lower_what_they_were_fitted_on():
    random, raised = np.random.default_rng(0), 0
    for number in range(300):
        classes = random.integers(2, 6)
        truth = random.integers(0, classes, random.integers(3, 30))
        probability = random.dirichlet(np.ones(classes), len(truth))
        if number % 2:
            probability = probability.round(1)  # many ties, which the scorer counts as wrong
            probability[probability.sum(axis=1) == 0] = 0.1
        weights = calibration.fit_decision_weights(truth, probability)
        tables = (probability, calibration.reweigh(probability, weights))
        before, after = (score_classes(truth, each).balanced_accuracy for each in tables)
        assert after >= before - 1e-12
        raised += after > before
    assert raised > 150


def test_a_temperature_for_members_that_count_the_same():
    log_p, truth = drawn(4000, 3.0)
    both = calibration.fit_temperature(np.stack([log_p, log_p]), truth)
    assert both.weights == (0.5, 0.5)
    alone = calibration.fit_temperature(log_p[None], truth)
    assert both.temperature == pytest.approx(alone.temperature)


def test_decision_weights_stay_where_nothing_is_gained():
    truth = np.array([0, 1, 2, 2])
    assert calibration.fit_decision_weights(truth, np.eye(4)[truth]).tolist() == [1] * 4


def test_parts_are_the_folds_or_five_parts_that_split_no_group():
    assert calibration.parts_of([1, 0, 1], ["a", "b", "c"]).tolist() == [1, 0, 1]
    groups = [f"L{k % 7}" for k in range(20)]
    parts = calibration.parts_of([0] * 20, groups, seed=3)
    assert set(parts) == set(range(5))
    assert all(
        len({p for p, g in zip(parts, groups, strict=True) if g == one}) == 1 for one in groups
    )
    # each image a group of its own, in order of the ids: what seg_tune always did
    ids = [f"ISIC_{k:03d}" for k in range(12)]
    expected = np.random.default_rng(42).permutation(12) % 5
    assert calibration.parts_of([0] * 12, ids, seed=42).tolist() == expected.tolist()
