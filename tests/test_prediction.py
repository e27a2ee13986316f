import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from misc_utils import prediction

FOLDS = pd.DataFrame({"image": ["a", "b", "c", "d"], "fold": [0, 0, 1, 2]})
IMAGES = np.random.default_rng(0).integers(0, 255, (7, 6, 6, 3), dtype=np.uint8)


class Scaled:
    """Stands in for a net: logits are the red channel (a map) times a factor, row for row."""

    def __init__(self, factor):
        self.factor, self.batches = factor, []

    def predict_on_batch(self, batch):
        self.batches.append(len(batch))
        return batch[..., :1].astype(np.float32) * self.factor


class Classes:
    """Stands in for a classifier of two classes: sees the mean of the top left corner."""

    def __init__(self, factor):
        self.factor = factor

    def predict_on_batch(self, batch):
        corner = batch[:, :2, :2].mean(axis=(1, 2, 3)) * self.factor
        return np.stack([corner, np.ones_like(corner)], axis=1)


def test_maps_are_averaged_over_nets_and_turned_back():
    nets = [Scaled(1.0), Scaled(3.0)]
    for views in (1, 8):
        got = list(prediction.predict_logits(nets, IMAGES, np.array([5, 0, 3]), 2, views))
        assert [rows.tolist() for rows, _ in got] == [[5, 0], [3]]
        logits = np.concatenate([values for _, values in got])
        assert logits.dtype == np.float32
        assert logits == pytest.approx(2.0 * IMAGES[[5, 0, 3], ..., :1])
    assert set(nets[0].batches) == {2}  # the last batch is filled up: one shape, one compilation


def test_classes_are_averaged_as_log_probabilities():
    rows, nets = np.arange(7), [Classes(0.01), Classes(0.02)]
    got = np.concatenate([v for _, v in prediction.predict_logits(nets, IMAGES, rows, 4, 1)])
    each = [log_softmax(net.predict_on_batch(IMAGES), axis=1) for net in nets]
    assert got == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    eight = np.concatenate([v for _, v in prediction.predict_logits(nets, IMAGES, rows, 4, 8)])
    turned = [
        np.rot90(flipped, k, (1, 2)) for k in range(4) for flipped in (IMAGES, IMAGES[:, ::-1])
    ]
    each = [log_softmax(net.predict_on_batch(view), axis=1) for net in nets for view in turned]
    assert eight == pytest.approx(np.mean(each, axis=0), abs=1e-5)


def test_an_image_is_predicted_by_the_nets_that_never_saw_it():
    splits = {0: FOLDS, 1: FOLDS}
    groups, left_out = prediction.assign_nets(["a", "b", "c", "d", "new"], splits)
    assert groups == {(0,): ["a", "b"], (1,): ["c"], (0, 1): ["new"]}
    assert left_out == ["d"]  # its fold was not trained, so both nets were trained on it


def test_another_photograph_of_a_trained_lesion_counts_as_seen():
    folds = FOLDS.assign(lesion=["L0", "L1", "L2", "L3"])
    lesions = {"a2": "L0", "c2": "L2", "new": "L9"}
    groups, left_out = prediction.assign_nets(["a2", "c2", "new"], {0: folds, 1: folds}, lesions)
    assert groups == {(0,): ["a2"], (1,): ["c2"], (0, 1): ["new"]} and not left_out


def test_nets_end_at_their_logits():
    image = keras.Input((4, 4, 3))
    logits = keras.layers.Dense(1, name="logits")(image)
    model = keras.Model(image, keras.layers.Activation("sigmoid", name="probability")(logits))
    values = prediction.logits_of(model).predict_on_batch(np.ones((1, 4, 4, 3)))
    probability = np.asarray(model.predict_on_batch(np.ones((1, 4, 4, 3))))
    assert 1 / (1 + np.exp(-np.asarray(values))) == pytest.approx(probability, abs=1e-6)
