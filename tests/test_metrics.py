import keras
import numpy as np
import pytest

from models.metrics import (
    BalancedAccuracy,
    SetJaccard,
    classification_metrics,
    jaccard_per_image,
    segmentation_metrics,
    sensitivity_per_image,
    specificity_per_image,
    threshold_jaccard_per_image,
)


def masks(*rows):
    """Images of 2 x 5 pixels, (B, 2, 5, 1)."""
    return np.asarray(rows, "float32").reshape(len(rows), 2, 5, 1)


# Jaccard 1/3, 2/3, 1 (both empty), 0 (truth empty), 0 (prediction empty), 1 (both full)
TRUTH = masks(
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0] * 10,
    [0] * 10,
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1] * 10,
)
PROBABILITY = masks(
    [0.9, 0.5, 0.51, 0, 0, 0, 0, 0, 0, 0],  # 0.5 is not above the threshold
    [0.9, 0.9, 0.2, 0, 0, 0, 0, 0, 0, 0],
    [0.4] * 10,
    [0.6, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0.1] * 10,
    [0.8] * 10,
)
EXPECTED = {
    "jaccard": [1 / 3, 2 / 3, 1, 0, 0, 1],
    "threshold_jaccard": [0, 2 / 3, 1, 0, 0, 1],
    "sensitivity": [1 / 2, 2 / 3, 1, 1, 0, 1],
    "specificity": [7 / 8, 1, 1, 9 / 10, 1, 1],
}
FUNCTIONS = {
    "jaccard": jaccard_per_image,
    "threshold_jaccard": threshold_jaccard_per_image,
    "sensitivity": sensitivity_per_image,
    "specificity": specificity_per_image,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_image_by_hand(name):
    values = FUNCTIONS[name](keras.ops.array(TRUTH), keras.ops.array(PROBABILITY))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(values), EXPECTED[name], atol=1e-6)


def test_exactly_065_is_kept():
    truth, probability = np.zeros((2, 1, 20, 1)), np.zeros((2, 1, 20, 1), "float32")
    truth[:] = 1
    probability[0, 0, :13] = 1  # 13/20
    probability[1, 0, :12] = 1  # 12/20
    values = threshold_jaccard_per_image(keras.ops.array(truth), keras.ops.array(probability))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(values), [0.65, 0], atol=1e-6)


def test_an_epoch_is_the_mean_over_images_however_they_are_batched():
    metrics = segmentation_metrics()
    assert [metric.name for metric in metrics] == list(EXPECTED)
    for metric in metrics:
        metric.update_state(TRUTH[:4], PROBABILITY[:4])
        metric.update_state(TRUTH[4:], PROBABILITY[4:])
        assert float(metric.result()) == pytest.approx(np.mean(EXPECTED[metric.name]), abs=1e-6)
        metric.reset_state()
        metric.update_state(TRUTH[5:], PROBABILITY[5:])
        assert float(metric.result()) == pytest.approx(1)


def one_hot(labels):
    return np.eye(4, dtype="float32")[labels]


def test_balanced_accuracy_is_the_mean_recall_over_the_epoch():
    metric = BalancedAccuracy(4)
    assert float(metric.result()) == 0
    # class 0: 2 of 4, class 1: 0 of 1, class 2: 1 of 1, class 3: absent
    metric.update_state(one_hot([0, 0, 1]), one_hot([0, 3, 0]))
    metric.update_state(one_hot([0, 0, 2]), one_hot([0, 3, 2]))
    assert float(metric.result()) == pytest.approx((2 / 4 + 0 + 1) / 3)
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(one_hot([3]), one_hot([3]))
    assert float(metric.result()) == 1


def test_classification_metrics_differ_on_unequal_classes():
    accuracy, balanced = classification_metrics(4)
    assert (accuracy.name, balanced.name) == ("accuracy", "balanced_accuracy")
    truth, prediction = one_hot([0] * 9 + [1]), one_hot([0] * 10)
    for metric in (accuracy, balanced):
        metric.update_state(truth, prediction)
    assert float(accuracy.result()) == pytest.approx(0.9)
    assert float(balanced.result()) == pytest.approx(0.5)


def identity(shape):
    """A network that gives its input back, float32."""
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Activation("linear")(x))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_they_compute_the_same_compiled_in_evaluate(jit_compile):
    model = identity((2, 5, 1))
    model.compile(loss="mse", metrics=segmentation_metrics(), jit_compile=jit_compile)
    result = model.evaluate(PROBABILITY, TRUTH, batch_size=4, verbose=0, return_dict=True)
    for name, values in EXPECTED.items():
        assert result[name] == pytest.approx(np.mean(values), abs=1e-6)

    model = identity((4,))
    model.compile(loss="mse", metrics=classification_metrics(4), jit_compile=jit_compile)
    truth, prediction = one_hot([0, 0, 0, 0, 1, 2]), one_hot([0, 0, 0, 3, 0, 2])
    result = model.evaluate(prediction, truth, batch_size=4, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["balanced_accuracy"] == pytest.approx((3 / 4 + 0 + 1) / 3)


def test_the_jaccard_of_a_set_is_that_of_all_its_pixels():
    """Images of 1 x 4 pixels, two channels, in two batches; the second channel is nowhere."""
    truth = np.zeros((3, 1, 4, 2), np.float32)
    probability = np.zeros((3, 1, 4, 2), np.float32)
    truth[0, 0, :2, 0] = truth[1, 0, :1, 0] = 1
    probability[0, 0, 1:4, 0] = probability[2, 0, 0, 0] = 0.9  # one pixel in both, five in either
    metric = SetJaccard(2)
    assert float(metric.result()) == 1
    for part in (slice(0, 2), slice(2, 3)):
        metric.update_state(truth[part], probability[part])
    # union: image 0 has 4, image 1 has 1, image 2 has 1
    assert float(metric.result()) == pytest.approx((1 / 6 + 1) / 2)
    metric.reset_state()
    assert float(metric.result()) == 1
    (only,) = segmentation_metrics(5)
    assert only.name == "jaccard"
