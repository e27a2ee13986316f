import numpy as np
import pytest

from deploy import unlikeness
from deploy.unlikeness import refer


def test_distances_by_hand(monkeypatch):
    monkeypatch.setattr(unlikeness, "NEIGHBOURS", 2)
    reference = refer(np.float32([[2, 0], [0, 3], [-1, 0]]), np.float32([[5, 0]]))
    # cosines 1, 0, -1: the two nearest have the mean 1/2
    assert reference.threshold == pytest.approx(0.5)
    given = np.float32([[1, 0], [0, -7], [3, 4], [0, 0]])
    # 0, 0 are the two largest of (0, -1, 0); 0.8 and 0.6 of (0.6, 0.8, -0.6)
    assert reference.distance(given) == pytest.approx([0.5, 1.0, 0.3, 1.0], abs=2e-3)
    assert reference.features.dtype == np.float16


def test_fewer_training_images_than_neighbours():
    reference = refer(np.float32([[1, 0]]), np.float32([[1, 0], [0, 1]]))
    assert reference.distance(np.float32([[1, 0], [-1, 0]])) == pytest.approx([0, 2])


def test_the_threshold_is_passed_by_five_of_a_hundred():
    random = np.random.default_rng(0)
    trained, held_out, new = (random.normal(size=(n, 8)) + 2 for n in (500, 1000, 1000))
    reference = refer(trained, held_out)
    assert (reference.distance(held_out) > reference.threshold).mean() == pytest.approx(
        0.05, abs=1e-3
    )
    assert (reference.distance(new) > reference.threshold).mean() < 0.08
    assert (reference.distance(-new) > reference.threshold).mean() > 0.9
