import numpy as np
import pytest

from inference import tta


def batch(channels: int = 3) -> np.ndarray:
    return np.arange(2 * 4 * 4 * channels, dtype=np.uint8).reshape(2, 4, 4, channels)


def test_turn_and_flip_by_hand():
    square = np.array([[[1, 2], [3, 4]]])
    assert tta.view(square, 0).tolist() == [[[1, 2], [3, 4]]]
    assert tta.view(square, 1).tolist() == [[[2, 4], [1, 3]]]  # anticlockwise
    assert tta.view(square, 2).tolist() == [[[4, 3], [2, 1]]]
    assert tta.view(square, 4).tolist() == [[[2, 1], [4, 3]]]
    assert tta.view(square, 5).tolist() == [[[1, 3], [2, 4]]]  # mirrored, then turned


def test_there_are_eight_views_all_different():
    assert tta.VIEWS == 8
    assert len({tta.view(batch(), k).tobytes() for k in range(8)}) == 8


@pytest.mark.parametrize("k", range(8))
def test_undo_is_the_inverse(k):
    images = batch()
    np.testing.assert_array_equal(tta.undo(tta.view(images, k), k), images)
    np.testing.assert_array_equal(tta.view(tta.undo(images, k), k), images)
    np.testing.assert_array_equal(tta.undo(tta.view(images[..., 0], k), k), images[..., 0])


@pytest.mark.parametrize("k", range(8))
def test_a_net_that_works_pixel_by_pixel_says_the_same_in_every_view(k):
    images = batch()
    maps = images.astype(np.float32).sum(axis=-1, keepdims=True)  # (B, S, S, 1)
    seen = tta.view(images, k).astype(np.float32).sum(axis=-1, keepdims=True)
    np.testing.assert_array_equal(tta.undo(seen, k), maps)


@pytest.mark.parametrize("k", range(8))
def test_views_keep_shape_type_and_the_argument(k):
    images = batch()
    before = images.copy()
    for turn in (tta.view, tta.undo):
        result = turn(images, k)
        assert result.shape == images.shape
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous and result.flags.owndata
        result[:] = 0
        np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("turn", [tta.view, tta.undo])
def test_refusals(turn):
    for k in (-1, 8):
        with pytest.raises(ValueError, match=f"view {k} is not one"):
            turn(batch(), k)
    for shape in ((2, 4, 5, 3), (4, 4), (1, 2, 4, 4, 3)):
        with pytest.raises(ValueError, match="batch of squares"):
            turn(np.zeros(shape), 0)
