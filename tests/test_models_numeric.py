"""Every network at its real size; minutes long."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from models.backbones import BACKBONES
from models.classifier import build_classifier
from models.unet import UPS, build_segmenter
from models.weights import save_weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)


def as_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture(autouse=True)
def free_memory():
    yield
    keras.utils.clear_session()


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_segmenter_gives_probabilities(name, up):
    model = build_segmenter(name, weights="none", up=up)
    probability = as_numpy(model(IMAGES))
    assert probability.shape == (1, 224, 224, 1)
    assert probability.dtype == np.float32
    assert np.isfinite(probability).all()
    assert 0 <= probability.min() < probability.max() <= 1


@pytest.mark.parametrize("name", BACKBONES)
def test_every_classifier_sums_to_one(name):
    probability = as_numpy(build_classifier(name, weights="none")(IMAGES))
    assert probability.shape == (1, 7)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)


LOAD = """
import sys
import keras, numpy as np
from models.classifier import build_classifier
from models.weights import load_weights
model = build_classifier("inception_v3", image_size=96, weights="none")
load_weights(model, sys.argv[1])
np.save(sys.argv[2], keras.ops.convert_to_numpy(model(np.load(sys.argv[3]))))
"""


def test_a_file_of_a_second_build_is_read_by_another_process(tmp_path):
    build_classifier("inception_v3", image_size=96, weights="none")
    model = build_classifier("inception_v3", image_size=96, weights="none")
    weights, out, images = (tmp_path / x for x in ("x.weights.h5", "out.npy", "images.npy"))
    save_weights(model, weights)
    np.save(images, IMAGES[:, :96, :96])
    subprocess.run([sys.executable, "-c", LOAD, weights, out, images], cwd=ROOT, check=True)
    np.testing.assert_allclose(np.load(out), as_numpy(model(IMAGES[:, :96, :96])), atol=1e-5)
