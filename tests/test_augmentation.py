import numpy as np
import pytest

from datasets.augmentation import AUGMENTATIONS, Augmentation, augment, draw_map


def disc(size=64):
    """A bright disc off the centre, as image and as mask."""
    y, x = np.mgrid[:size, :size]
    mask = ((y - 20) ** 2 + (x - 36) ** 2 < 100).astype(np.uint8)[..., None]
    return np.repeat(mask * 200, 3, axis=2), mask


@pytest.mark.parametrize("seed", range(20))
def test_image_and_mask_move_together(seed):
    image, mask = disc()
    moved, moved_mask = augment(image, mask, AUGMENTATIONS["affine"], np.random.default_rng(seed))
    assert moved.shape == image.shape and moved.dtype == np.uint8
    assert moved_mask.shape == mask.shape and set(np.unique(moved_mask)) <= {0, 1}
    # They may differ on the rim alone, where the image is interpolated.
    assert ((moved[..., 0] > 100) != (moved_mask[..., 0] > 0)).mean() < 0.02
    assert int(moved_mask.sum()) == pytest.approx(int(mask.sum()), rel=0.6)
    assert (moved_mask != mask).any()


def test_the_given_arrays_stay_as_they_are():
    image, mask = disc()
    before = image.copy(), mask.copy()
    augment(image, mask, AUGMENTATIONS["affine_light"], np.random.default_rng(0))
    assert (image == before[0]).all() and (mask == before[1]).all()


def test_none_changes_nothing():
    image, mask = disc()
    same = augment(image, mask, AUGMENTATIONS["none"], np.random.default_rng(0))
    assert same[0] is image and same[1] is mask


def test_flips_are_exact():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    expected = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    seen = set()
    for seed in range(40):
        flipped, _ = augment(image, None, Augmentation(flip=True), np.random.default_rng(seed))
        seen.add([(flipped == other).all() for other in expected].index(True))
    assert seen == {0, 1, 2, 3}


def test_a_map_keeps_the_centre_without_shift():
    rules = Augmentation(flip=True, rotation=180.0, zoom=0.1)
    inverse = draw_map(rules, 9, np.random.default_rng(3))
    assert inverse @ [4, 4, 1] == pytest.approx([4, 4])


def test_borders_are_mirrored_not_smeared():
    image = np.zeros((40, 40, 3), np.uint8)
    image[np.indices((40, 40)).sum(axis=0) % 8 < 4] = 255  # a smeared border would be flat
    rules = Augmentation(shift=0.3)
    moved, _ = augment(image, None, rules, np.random.default_rng(1))
    assert (moved.std(axis=0) > 50).all() and (moved.std(axis=1) > 50).all()


def test_every_channel_of_a_mask_moves_with_its_image():
    random = np.random.default_rng(5)
    image, mask = (random.integers(0, 2, (24, 24, k), np.uint8) for k in (3, 5))
    rules = AUGMENTATIONS["affine_light"]
    _, together = augment(image, mask, rules, np.random.default_rng(7))
    assert together.shape == mask.shape
    for k in range(5):
        _, alone = augment(image, mask[..., k : k + 1], rules, np.random.default_rng(7))
        # OpenCV rounds where two pixels are equally near as the number of channels has it
        assert (together[..., k : k + 1] != alone).mean() < 0.01
