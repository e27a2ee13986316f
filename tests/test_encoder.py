import h5py
import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models import encoder as encoder_module
from models.backbones import BACKBONES
from models.encoder import build_encoder

# a smaller one of their family, or one tapped alike, is here
LARGE = {"densenet169", "densenet201", "efficientnet_v2_s", "efficientnet_v2_b0", "inception_v3"}
LARGE |= {"vgg19", "resnet50"}
PRETRAINED = [
    pytest.param(name, marks=pytest.mark.slow if name in LARGE else ())
    for name, row in BACKBONES.items()
    if row.application is not None
]


def random_images(size, count=2):
    images = np.random.default_rng(7).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    images[:, : size // 2, :, 0] = 255  # as red as it gets: channel order and wrap-round show
    return images


def plain_network(row, size):
    """The network by itself, every variable at random."""
    network = encoder_module.constructor(row)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    rng = np.random.default_rng(3)
    for variable in network.weights:
        if len(variable.shape) == 1 and "float" in variable.dtype and variable.shape[0] > 2:
            old = keras.ops.convert_to_numpy(variable.value)
            variable.assign(old + rng.uniform(0, 0.2, old.shape).astype("float32"))
    return network


def as_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float32")


@pytest.mark.parametrize("name", PRETRAINED)
def test_scaling_and_weight_file_give_the_plain_network(name, tmp_path):
    row = BACKBONES[name]
    size = row.minimum_size
    images = random_images(size)
    plain = plain_network(row, size)
    plain.save_weights(tmp_path / f"{name}_notop.weights.h5")
    scaled = images.astype("float32")
    if row.preprocess is not None:
        scaled = getattr(keras.applications, row.preprocess).preprocess_input(scaled.copy())
    expected = as_numpy(plain(scaled, training=False))

    encoder = build_encoder(name, size, "imagenet", tmp_path)
    found = as_numpy(keras.Model(encoder.input, encoder.output)(images, training=False))

    assert encoder.input.dtype == "uint8"
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert np.isfinite(scale) and expected.std() > 1e-3 * scale > 0
    np.testing.assert_allclose(found, expected, atol=2e-4 * scale)


@pytest.mark.parametrize("name", ["inception_v3", "mobilenet_v3", "convnext_tiny"])
def test_names_and_skips_do_not_depend_on_what_was_built_before(name):
    def build():
        encoder = build_encoder(name, 96, "none", None)
        names = [x.name for x in keras.Model(encoder.input, encoder.output).operations]
        return names, [tuple(tensor.shape) for _, tensor in encoder.skips]

    first = build()
    keras.layers.Conv2D(1, 1)  # moves Keras's counters
    keras.layers.Activation("relu")
    assert build() == first
    names, _ = first
    assert len(set(names)) == len(names)


def test_pixels_are_float32_before_they_are_scaled():
    encoder = build_encoder("vgg16", 32, "none", None)
    model = keras.Model(encoder.input, encoder.input)
    assert model.input.dtype == "uint8"
    consumer = keras.Model(encoder.input, encoder.bottom).get_layer("to_float32")
    assert consumer.output.dtype == "float32"


@pytest.mark.parametrize(
    ("name", "size"), [("vgg16", 100), ("vgg16", 0), ("xception", 64), ("inception_v3", 64)]
)
def test_impossible_sizes_are_refused(name, size):
    with pytest.raises(UserError, match=rf"image_size {size}: {name} takes multiples of 32"):
        build_encoder(name, size, "none", None)


def test_unknown_weights_are_refused():
    with pytest.raises(UserError, match=r"'noisy'.*imagenet, none"):
        build_encoder("tiny", 32, "noisy", None)


def test_missing_weights_are_found_before_other_work(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(encoder_module, "build_encoder", lambda *args: built.append(args))
    for name, weights in (("tiny", "imagenet"), ("vgg16", "none"), ("vgg16", "imagenet")):
        encoder_module.check_weights(name, 32, weights, tmp_path)
    assert built == [("vgg16", 32, "imagenet", tmp_path)]  # it says what is missing
    (tmp_path / "vgg16_notop.weights.h5").write_text("")
    encoder_module.check_weights("vgg16", 32, "imagenet", tmp_path)
    assert len(built) == 1


def test_without_weights_both_ways_to_them_are_named(tmp_path, monkeypatch):
    def construct(weights, **arguments):
        assert weights == "imagenet"
        raise Exception("URL fetch failure on https://somewhere")

    monkeypatch.setattr(encoder_module.keras.applications, "VGG16", construct)
    with pytest.raises(UserError) as caught:
        build_encoder("vgg16", 32, "imagenet", tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "vgg16_notop.weights.h5") in message
    assert "URL fetch failure" in message
    assert "--weights none" in message
    assert "fetch_weights.py --backbones vgg16`" in message

    with pytest.raises(UserError, match=r"Keras has none.*fetch_weights.py --backbones eff"):
        build_encoder("efficientnet_lite0", 32, "imagenet", tmp_path)


def test_a_weight_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "vgg16_notop.weights.h5"
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    plain.save_weights(path)
    path.rename(tmp_path / "vgg19_notop.weights.h5")
    with pytest.raises(UserError, match=r"vgg19_notop.*missing"):
        build_encoder("vgg19", 32, "imagenet", tmp_path)


def test_float16_files_fill_float32_variables(tmp_path):
    path = tmp_path / "vgg16_notop.weights.h5"
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    plain.save_weights(path)
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(lambda n: names.append(n) if isinstance(file[n], h5py.Dataset) else None)
        for dataset in names:
            value = file[dataset][()].astype(np.float16)
            del file[dataset]
            file[dataset] = value
    encoder = build_encoder("vgg16", 32, "imagenet", tmp_path)
    kernel = keras.Model(encoder.input, encoder.output).get_layer("block3_conv2").kernel
    original = plain.get_layer("block3_conv2").kernel
    assert kernel.dtype == "float32"
    np.testing.assert_allclose(as_numpy(kernel.value), as_numpy(original.value), atol=1e-4)
    assert np.any(as_numpy(kernel.value) != as_numpy(original.value))
