import math

import keras
import numpy as np
import pytest

from datasets.batches import Batches
from misc_utils.errors import UserError
from models.classifier import build_classifier
from models.losses import (
    CLASS_WEIGHTS,
    CLASSIFICATION_LOSSES,
    SEGMENTATION_LOSSES,
    class_weights,
    classification_loss,
    segmentation_loss,
)


def value(loss, truth, probability):
    if not isinstance(loss, keras.losses.Loss):  # a plain function gives one value per image
        return float(keras.ops.mean(loss(keras.ops.array(truth), keras.ops.array(probability))))
    return float(loss(truth, probability))


def masks(*rows):
    """Images of 1 x 4 pixels, (B, 1, 4, 1)."""
    return np.asarray(rows, "float32").reshape(len(rows), 1, 4, 1)


TRUTH = masks([1, 1, 0, 0], [1, 0, 0, 0])
PROBABILITY = masks([0.8, 0.6, 0.4, 0.2], [0.5, 0.5, 0.5, 0.5])
# image 1: -(2 ln .8 + 2 ln .6) / 4; image 2: -ln .5
CROSSENTROPY = (-(2 * math.log(0.8) + 2 * math.log(0.6)) / 4 - math.log(0.5)) / 2
# image 1: 1 - 2 * 1.4 / (2 + 2); image 2: 1 - 2 * .5 / (1 + 2)
DICE = ((1 - 2.8 / 4) + (1 - 1 / 3)) / 2

# pixels of both images together: (1.4 + .5 + 1) / (3 + 4 - 1.9 + 1)
JACCARD = 1 - 2.9 / 6.1

# image 1: errors .4 .4 .2 .2, of lesion, skin, lesion, skin: 1 - Jaccard grows from 0 to 1/2, 2/3,
# 1, 1; image 2: all errors are .5
LOVASZ = ((0.4 * 1 / 2 + 0.4 * 1 / 6 + 0.2 * 1 / 3) + 0.5) / 2


def test_segmentation_losses_by_hand():
    # (1 - p)^2 * crossentropy of each pixel
    focal = -(2 * 0.04 * math.log(0.8) + 2 * 0.16 * math.log(0.6)) / 4 - 0.25 * math.log(0.5)
    expected = {
        "binary_crossentropy": CROSSENTROPY,
        "dice": DICE,
        "binary_crossentropy_dice": CROSSENTROPY + DICE,
        "binary_crossentropy_jaccard": CROSSENTROPY + JACCARD,
        "binary_crossentropy_lovasz": CROSSENTROPY + LOVASZ,
        "binary_focal": focal / 2,
    }
    assert list(SEGMENTATION_LOSSES) == list(expected)
    for name, number in expected.items():
        assert value(segmentation_loss(name), TRUTH, PROBABILITY) == pytest.approx(number, rel=1e-4)


@pytest.mark.parametrize("name", SEGMENTATION_LOSSES)
def test_one_pixel_that_is_no_number_makes_the_loss_none(name):
    probability = PROBABILITY.copy()
    probability[0, 0, 2, 0] = math.nan
    assert math.isnan(value(segmentation_loss(name), TRUTH, probability))


def test_dice_weighs_images_not_pixels():
    # one sum over the batch would give 1 - 2 * 1.9 / (3 + 4)
    assert value(segmentation_loss("dice"), TRUTH, PROBABILITY) == pytest.approx(DICE, rel=1e-5)
    assert abs(DICE - (1 - 3.8 / 7)) > 0.01


def test_classification_losses_by_hand():
    truth = np.eye(7, dtype="float32")[[1, 6]]
    probability = np.full((2, 7), 0.05, "float32")
    probability[:, 1] = 0.7
    crossentropy = -(math.log(0.7) + math.log(0.05)) / 2
    focal = -0.25 * (0.3**2 * math.log(0.7) + 0.95**2 * math.log(0.05)) / 2
    assert list(CLASSIFICATION_LOSSES) == ["categorical_crossentropy", "categorical_focal"]
    assert value(
        classification_loss("categorical_crossentropy"), truth, probability
    ) == pytest.approx(crossentropy, rel=1e-5)
    assert value(classification_loss("categorical_focal"), truth, probability) == pytest.approx(
        focal, rel=1e-5
    )


def test_focal_alpha_is_a_small_factor_not_the_number_of_classes():
    loss = classification_loss("categorical_focal")
    assert 0 < loss.get_config()["alpha"] <= 1
    confident = np.eye(7, dtype="float32") * 0.93 + 0.01
    wrong = np.roll(confident, 1, axis=1)
    good, bad = (value(loss, np.eye(7, dtype="float32"), p) for p in (confident, wrong))
    assert 0 <= good < bad


def test_unknown_losses_are_refused():
    with pytest.raises(UserError, match=r"'ce'.*binary_crossentropy, dice"):
        segmentation_loss("ce")
    with pytest.raises(UserError, match=r"'ce'.*categorical_crossentropy, categorical_focal"):
        classification_loss("ce")
    with pytest.raises(UserError, match=r"'some'.*ones, balanced, balanced-sqrt"):
        class_weights(np.array([0, 1]), 2, "some")


def test_class_weights_by_hand():
    labels = np.array([0] * 9 + [1])
    assert list(CLASS_WEIGHTS) == ["ones", "balanced", "balanced-sqrt"]
    assert class_weights(labels, 2, "ones").tolist() == [1.0, 1.0]
    # 10 / (2 * 9) and 10 / (2 * 1)
    assert class_weights(labels, 2, "balanced") == pytest.approx([10 / 18, 5.0])
    # 1/3 and 1, times 10 / (9/3 + 1)
    assert class_weights(labels, 2, "balanced-sqrt") == pytest.approx([2.5 / 3, 2.5])


@pytest.mark.parametrize("how", CLASS_WEIGHTS)
def test_an_absent_class_shifts_no_other(how):
    labels = np.array([0, 0, 0, 0, 2, 6, 6])
    weights = class_weights(labels, 7, how)
    assert weights.shape == (7,) and weights[1] == 1.0
    dense = class_weights(np.array([0, 0, 0, 0, 1, 2, 2]), 3, how)
    assert [weights[0], weights[2], weights[6]] == pytest.approx(dense.tolist())
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


@pytest.mark.parametrize("labels", [[], [0, 7], [-1, 2], [[0, 1]]])
def test_impossible_labels_are_refused(labels):
    with pytest.raises(ValueError, match=r"0\.\.6"):
        class_weights(np.array(labels, dtype=int), 7, "balanced")


def weights_after_one_step(loss, class_weights=None):
    """Kernel of the last layer after one step of plain gradient descent."""
    keras.utils.set_random_seed(4)
    model = build_classifier("tiny", image_size=32, weights="none")
    model.compile(keras.optimizers.SGD(0.1), classification_loss(loss), run_eagerly=True)
    images = np.random.default_rng(4).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    truth = np.eye(7, dtype="float32")[[1, 1, 1, 1, 0, 5]]
    options = {"training": True, "class_weights": class_weights}
    model.fit(Batches(images, truth, np.arange(6), 6, **options), verbose=0)
    return keras.ops.convert_to_numpy(model.get_layer("logits").kernel.value)


def test_class_weights_and_focal_change_a_real_training_step():
    balanced = class_weights(np.array([1, 1, 1, 1, 0, 5]), 7, "balanced")
    ones = class_weights(np.array([1, 1, 1, 1, 0, 5]), 7, "ones")
    plain = weights_after_one_step("categorical_crossentropy")
    same = weights_after_one_step("categorical_crossentropy", ones)
    weighted = weights_after_one_step("categorical_crossentropy", balanced)
    focal = weights_after_one_step("categorical_focal")
    both = weights_after_one_step("categorical_focal", balanced)
    np.testing.assert_allclose(same, plain, atol=1e-6)
    for one, other in [(weighted, plain), (focal, plain), (both, focal), (both, weighted)]:
        assert np.abs(one - other).max() > 1e-4


def test_lovasz_of_a_mask_is_its_jaccard_loss():
    """That is what it extends: to probabilities between 0 and 1."""
    random = np.random.default_rng(0)
    truth, said = (random.integers(0, 2, (5, 8, 8, 1)).astype("float32") for _ in range(2))
    both, either = (truth * said).sum((1, 2, 3)), np.maximum(truth, said).sum((1, 2, 3))
    lovasz = value(segmentation_loss("binary_crossentropy_lovasz"), truth, said)
    lovasz -= value(segmentation_loss("binary_crossentropy"), truth, said)
    assert lovasz == pytest.approx((1 - both / either).mean(), abs=1e-5)


def test_smoothed_labels_by_hand():
    """A tenth of the label goes to the two classes alike: .95 and .05."""
    truth, probability = np.array([[1.0, 0.0]], "float32"), np.array([[0.8, 0.2]], "float32")
    expected = -(0.95 * math.log(0.8) + 0.05 * math.log(0.2))
    found = value(classification_loss("categorical_crossentropy", 0.1), truth, probability)
    assert found == pytest.approx(expected, rel=1e-5)
