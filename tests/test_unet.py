import functools
import gc
import weakref

import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models import encoder as encoder_module
from models import unet
from models.backbones import BACKBONES
from models.unet import UPS, build_segmenter

UNPADDED = {"inception_v3", "xception"}  # their maps are a few pixels short


@functools.cache
def encoder_once(*arguments):
    return encoder_module.build_encoder(*arguments)


@pytest.fixture
def shared_encoder(monkeypatch):
    """One encoder for all the ways up: building it is what takes time."""
    monkeypatch.setattr(unet, "build_encoder", encoder_once)


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def images_of(size, count=2):
    return np.random.default_rng(5).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def as_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(("name", "parameters"), [("vgg16", 17_937_121), ("vgg19", 23_246_817)])
def test_vgg_has_the_parameters_of_the_original(name, parameters):
    model = build_segmenter(name, image_size=224, weights="none", batch_norm=False)
    assert model.count_params() == parameters
    assert count(model.trainable_variables) == parameters


def test_vgg_ends_before_its_last_pooling():
    names = [layer.name for layer in build_segmenter("vgg16", weights="none").layers]
    assert "block5_conv3" in names
    assert "block5_pool" not in names


@pytest.mark.parametrize("name", BACKBONES)
def test_feature_maps_have_the_size_of_their_level(name):
    encoder = encoder_once(name, 224, "none", None)
    row = BACKBONES[name]
    assert [level for level, _ in encoder.skips] == [level for level, _ in row.skips]
    for level, tensor in [*encoder.skips, (encoder.bottom_level, encoder.bottom)]:
        _, height, width, _ = tensor.shape
        assert height == width
        short = (224 >> level) - height
        assert 0 <= short <= 4 if name in UNPADDED else short == 0


def test_inception_is_tapped_at_its_five_sizes():
    encoder = encoder_once("inception_v3", 224, "none", None)
    maps = [tensor for _, tensor in encoder.skips] + [encoder.bottom]
    assert [(x.shape[1], x.shape[3]) for x in maps] == [
        (109, 64),
        (52, 192),
        (25, 288),
        (12, 768),
        (5, 2048),
    ]


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_pair_has_the_sizes_and_filters_of_its_levels(name, up, shared_encoder):
    model = build_segmenter(name, image_size=224, weights="none", up=up)
    assert model.input.shape == (None, 224, 224, 3)
    assert model.output.shape == (None, 224, 224, 1)
    row = BACKBONES[name]
    with_skip = {level for level, _ in row.skips}
    layers = {layer.name: layer for layer in model.layers}
    assert len(layers) == len(model.layers)
    for level in range(row.bottom[0]):
        filters = min(32 * 2**level, 512)
        expected = (None, 224 >> level, 224 >> level, filters)
        assert layers[f"decoder{level}_conv1"].output.shape == expected
        assert (f"decoder{level}_conv2" in layers) == (level in with_skip)
        skip = layers[f"decoder{level}_concatenate"].input[1] if level in with_skip else None
        assert skip is None or skip.shape[-1] <= filters
    assert layers["logits"].output.shape == layers["probability"].output.shape
    for layer in model.layers:  # every pixel of a transposed convolution has an input
        if isinstance(layer, keras.layers.Conv2DTranspose):
            assert layer.kernel_size == layer.strides == (2, 2)


@pytest.mark.parametrize(("name", "up"), [("tiny", "deconv"), ("tiny", "upsample")])
def test_a_step_up_is_exactly_twice(name, up):
    model = build_segmenter(name, image_size=64, weights="none", up=up)
    for level in range(BACKBONES[name].bottom[0]):
        prefix = f"decoder{level}_up_"
        made = [layer for layer in model.layers if layer.name.startswith(prefix)]
        assert made[0].input.shape[1] * 2 == made[-1].output.shape[1] == 64 >> level


def test_subpixel_puts_each_group_of_filters_at_its_place():
    x = keras.Input((2, 3, 5))
    model = keras.Model(x, UPS["subpixel"](x, 2, "up"))
    convolution = model.get_layer("up_conv")
    convolution.kernel.assign(np.zeros(convolution.kernel.shape))
    convolution.bias.assign(np.arange(8.0))
    out = as_numpy(model(np.zeros((1, 2, 3, 5), "float32")))
    assert out.shape == (1, 4, 6, 2)
    block = [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    np.testing.assert_array_equal(out[0, :2, :2], block)
    np.testing.assert_array_equal(out[0], np.tile(block, (2, 3, 1)))


def test_subpixel_keeps_pixels_where_they_are():
    x = keras.Input((2, 3, 1))
    model = keras.Model(x, UPS["subpixel"](x, 1, "up"))
    convolution = model.get_layer("up_conv")
    kernel = np.zeros(convolution.kernel.shape)
    kernel[1, 1] = 1  # copies its input to all four
    convolution.kernel.assign(kernel)
    image = np.arange(6.0, dtype="float32").reshape(1, 2, 3, 1)
    out = as_numpy(model(image))
    np.testing.assert_array_equal(out, image.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("up", UPS)
def test_numbers_come_out_as_probabilities(up):
    model = build_segmenter("tiny", image_size=64, weights="none", up=up)
    probability = as_numpy(model(images_of(64)))
    logits = as_numpy(keras.Model(model.input, model.get_layer("logits").output)(images_of(64)))
    assert probability.dtype == np.float32
    assert 0 <= probability.min() < probability.max() <= 1
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize("name", ["xception", "convnext_tiny"])
def test_resized_and_missing_skips_compute(name):
    size = BACKBONES[name].minimum_size
    model = build_segmenter(name, image_size=size, weights="none")
    probability = as_numpy(model(images_of(size)))
    assert probability.shape == (2, size, size, 1)
    assert np.isfinite(probability).all() and probability.std() > 0


def test_the_last_layers_stay_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_segmenter("tiny", image_size=64, weights="none")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("decoder0_conv2").compute_dtype == "bfloat16"
    assert model.get_layer("to_float32").output.dtype == "float32"
    assert model.get_layer("scale").output.dtype == "float32"
    assert model.get_layer("logits").output.dtype == "float32"
    assert model.output.dtype == "float32"


@pytest.mark.parametrize(
    "name",
    ["vgg16", *(pytest.param(x, marks=pytest.mark.slow) for x in ("densenet121", "inception_v3"))],
)
def test_the_graph_is_flat_without_lambda_and_survives_json(name):
    size = BACKBONES[name].minimum_size
    model = build_segmenter(name, image_size=size, weights="none", up="subpixel")
    assert not any(isinstance(x, keras.layers.Lambda | keras.Model) for x in model.layers)
    again = keras.models.model_from_json(model.to_json())
    assert [x.name for x in again.layers] == [x.name for x in model.layers]
    again.set_weights(model.get_weights())
    images = images_of(size, count=1)
    np.testing.assert_allclose(as_numpy(again(images)), as_numpy(model(images)), atol=1e-5)


def test_decoder_batch_norm_is_a_choice():
    def norms(batch_norm):
        model = build_segmenter("vgg16", image_size=32, weights="none", batch_norm=batch_norm)
        return sum(isinstance(x, keras.layers.BatchNormalization) for x in model.layers)

    assert norms(False) == 0
    assert norms(True) == 8  # two on each of four levels


def test_a_second_build_has_the_same_names_and_the_first_can_be_freed():
    def names(model):
        return [operation.name for operation in model.operations]

    first = build_segmenter("mobilenet_v3", image_size=32, weights="none")
    second = build_segmenter("mobilenet_v3", image_size=32, weights="none")
    assert names(first) == names(second)
    gone = weakref.ref(first)
    del first
    keras.utils.clear_session()
    gc.collect()
    assert gone() is None


def test_unknown_rows_are_refused():
    with pytest.raises(UserError, match=r"'transposed'.*deconv, upsample, subpixel"):
        build_segmenter("tiny", up="transposed", weights="none")
    with pytest.raises(UserError, match="'vgg'"):
        build_segmenter("vgg", weights="none")


def test_tiny_learns_a_disc_from_scratch():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:32, :32]
    centres = rng.uniform(10, 22, (32, 2))
    radii = rng.uniform(4, 9, 32)
    masks = np.stack(
        [
            (rows - r) ** 2 + (columns - c) ** 2 < radius**2
            for (r, c), radius in zip(centres, radii, strict=True)
        ]
    )[..., None].astype("float32")
    images = np.where(masks > 0, 90, 200) + rng.integers(-30, 30, (32, 32, 32, 3))
    model = build_segmenter("tiny", image_size=32, weights="none")
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", jit_compile=False)
    model.fit(images.astype("uint8"), masks, batch_size=8, epochs=6, verbose=0)
    predicted = as_numpy(model(images.astype("uint8"))) > 0.5
    jaccard = (predicted & (masks > 0)).sum() / (predicted | (masks > 0)).sum()
    assert jaccard > 0.8


def test_filters_of_the_decoder_are_those_asked_for():
    model = build_segmenter("unet", image_size=64, weights="none", decoder_filters=4)
    for level, filters in enumerate((4, 8, 16, 32)):
        assert model.get_layer(f"decoder{level}_conv1").filters == filters
