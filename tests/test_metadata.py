import keras
import numpy as np
import pandas as pd
import pytest

from datasets import metadata
from datasets.batches import Batches
from datasets.cache import Cached
from datasets.dataset import Inputs
from models.classifier import build_classifier

TABLE = pd.DataFrame(
    {"age": [50.0, np.nan], "sex": ["male", ""], "site": ["back", "face"]}, index=["a", "b"]
)


def test_numbers_by_hand():
    assert metadata.list_sites(TABLE) == ("back", "face")
    # age, missing, female, male, missing, back, face, missing
    expected = [[0.5, 0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 1, 0]]
    encoded = metadata.encode(TABLE, ("back", "face"))
    np.testing.assert_array_equal(encoded, np.float32(expected))
    assert encoded.dtype == np.float32 and metadata.width(("back", "face")) == 8


def test_a_site_that_training_did_not_have_is_missing():
    unknown = metadata.encode(TABLE, ("back",))
    np.testing.assert_array_equal(unknown[:, 5:], [[1, 0], [0, 1]])
    empty = pd.DataFrame({"age": [np.nan], "sex": [""], "site": [""]})
    for sites in ((), ("back",), ("back", "face")):
        nothing = metadata.nothing_known(metadata.width(sites))
        np.testing.assert_array_equal(nothing, metadata.encode(empty, sites)[0])


def test_a_tenth_says_nothing_each_time_anew():
    rows = np.repeat(metadata.encode(TABLE[:1], ("back",)), 5000, axis=0)
    left = metadata.leave_out(rows, np.random.default_rng(0))
    nothing = (left == metadata.nothing_known(7)).all(axis=1)
    assert 0.08 < nothing.mean() < 0.12
    np.testing.assert_array_equal(left[~nothing], rows[~nothing])
    np.testing.assert_array_equal(rows[0], [0.5, 0, 0, 1, 0, 1, 0])  # not changed in place
    other = metadata.leave_out(rows, np.random.default_rng(1))
    assert (left != other).any()


def batches(**options):
    images = np.zeros((40, 8, 8, 3), np.uint8)
    values = np.arange(280, dtype=np.float32).reshape(40, 7) + 1
    targets = np.eye(40, dtype=np.float32)
    return Batches(images, targets, np.arange(40), 10, metadata=values, **options), values


def test_metadata_stay_with_their_images():
    given, values = batches(training=True, seed=3)
    for index in range(4):
        (_, more), targets = given.make(0, index)
        rows = targets.argmax(axis=1)
        kept = (more == values[rows]).all(axis=1)
        np.testing.assert_array_equal(
            more[~kept], np.broadcast_to(metadata.nothing_known(7), more[~kept].shape)
        )
    np.testing.assert_array_equal(given.make(0, 1)[0][1], given.make(0, 1)[0][1])
    held_out, values = batches()
    np.testing.assert_array_equal(held_out.make(0, 1)[0][1], values[10:20])


def test_the_fingerprint_is_of_images_and_metadata():
    images = Cached(("a",), np.zeros((1, 2, 2, 3), np.uint8), np.ones(1), np.ones(1), "print")
    plain = Inputs(images)
    assert plain.fingerprint == "print"
    one, other = (Inputs(images, np.full((1, 3), k, np.float32)) for k in (1, 2))
    assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3


def test_a_net_takes_both_and_uses_both():
    keras.utils.set_random_seed(1)
    model = build_classifier("tiny", image_size=32, weights="none", num_classes=3, num_metadata=7)
    image, more = np.full((2, 32, 32, 3), 90, np.uint8), np.zeros((2, 7), np.float32)
    more[1] = 5
    probability = np.asarray(model.predict_on_batch((image, more)))
    assert probability.shape == (2, 3) and np.abs(probability[0] - probability[1]).max() > 1e-4
    with pytest.raises(ValueError, match=r"(?i)input|structure|shape"):
        model.predict_on_batch(image)
