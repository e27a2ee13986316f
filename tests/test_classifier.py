import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models.classifier import REGULARIZERS, build_classifier


def images_of(size, count=3):
    return np.random.default_rng(5).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def as_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("densenet201", 18_568_775),
        ("inception_v3", 22_065_959),
        pytest.param("densenet169", 12_856_903, marks=pytest.mark.slow),
        # 14,714,688 without top + 512 * 128 + 128 + 128 * 7 + 7
        ("vgg16", 14_781_255),
    ],
)
def test_parameters_of_the_original(name, parameters):
    assert build_classifier(name, weights="none").count_params() == parameters


def test_vgg_is_pooled_behind_its_last_block():
    names = [layer.name for layer in build_classifier("vgg16", weights="none").layers]
    assert "block5_pool" in names


@pytest.mark.parametrize(("name", "size"), [("tiny", 64), ("mobilenet_v3", 32)])
def test_probabilities_of_an_image_sum_to_one(name, size):
    model = build_classifier(name, image_size=size, weights="none")
    probability = as_numpy(model(images_of(size)))
    logits = as_numpy(keras.Model(model.input, model.get_layer("logits").output)(images_of(size)))
    assert probability.shape == logits.shape == (3, 7)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probability, shifted / shifted.sum(axis=1, keepdims=True), atol=1e-6)


def test_the_head_follows_its_settings():
    model = build_classifier("tiny", image_size=64, weights="none", num_classes=3, dropout=0.25)
    assert model.output.shape == (None, 3)
    assert model.get_layer("fc1").units == 128
    assert model.get_layer("dropout").rate == 0.25


@pytest.mark.parametrize(
    ("regularizer", "penalty"),
    # kernel of 64 * 128 entries, each 0.5
    [("l1", 1e-4 * 8192 * 0.5), ("l2", 1e-3 * 8192 * 0.25), ("none", 0.0)],
)
def test_the_penalty_is_on_the_hidden_kernel(regularizer, penalty):
    model = build_classifier("tiny", image_size=64, weights="none", regularizer=regularizer)
    kernel = model.get_layer("fc1").kernel
    assert kernel.shape == (64, 128)
    kernel.assign(np.full((64, 128), 0.5))
    assert sum(float(as_numpy(loss)) for loss in model.losses) == pytest.approx(penalty)


def test_the_last_layers_stay_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_classifier("tiny", image_size=64, weights="none")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("fc1").compute_dtype == "bfloat16"
    assert model.get_layer("logits").output.dtype == "float32"
    assert model.output.dtype == "float32"


def test_unknown_rows_are_refused():
    assert list(REGULARIZERS) == ["l1", "l2", "none"]
    with pytest.raises(UserError, match=r"'l3'.*l1, l2, none"):
        build_classifier("tiny", weights="none", regularizer="l3")
    with pytest.raises(UserError, match="'vgg'"):
        build_classifier("vgg", weights="none")
