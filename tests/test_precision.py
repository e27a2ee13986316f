import keras
import numpy as np
import pytest

from models.precision import use_precision
from models.trained import load_segmenter
from models.unet import build_segmenter
from models.weights import save_weights


@pytest.fixture(autouse=True)
def policy_of_before():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def test_auto_is_float32_without_a_gpu():
    if "cpu" not in str(keras.ops.zeros(1).device).lower():
        pytest.skip("there is a GPU")
    assert use_precision("auto") == "float32"
    assert keras.config.dtype_policy().compute_dtype == "float32"


def test_unknown_precision():
    with pytest.raises(ValueError, match="float16"):
        use_precision("float16")


def test_bfloat16_inside_float32_weights_and_outputs(tmp_path):
    settings = {"backbone": "tiny", "image_size": 32, "up": "deconv", "batch_norm": True}
    use_precision("float32")
    exact = build_segmenter("tiny", image_size=32, weights="none")
    save_weights(exact, tmp_path / "net.weights.h5")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    net = load_segmenter(settings | {"precision": "bfloat16"}, tmp_path / "net.weights.h5")
    convolution = net.get_layer("decoder0_conv1")
    assert convolution.compute_dtype == "bfloat16"
    assert {variable.dtype for variable in net.weights} == {"float32"}
    probability = keras.ops.convert_to_numpy(net(images))
    expected = keras.ops.convert_to_numpy(exact(images))
    assert probability.dtype == np.float32
    # 8 bits of mantissa: near, and not the same
    np.testing.assert_allclose(probability, expected, atol=0.05)
    assert np.abs(probability - expected).max() > 0


def test_runs_from_before_the_setting_take_float32(tmp_path):
    settings = {"backbone": "tiny", "image_size": 32, "up": "deconv", "batch_norm": True}
    use_precision("bfloat16")
    save_weights(
        build_segmenter("tiny", image_size=32, weights="none"), tmp_path / "net.weights.h5"
    )
    net = load_segmenter(settings, tmp_path / "net.weights.h5")
    assert net.get_layer("decoder0_conv1").compute_dtype == "float32"
