import numpy as np
import pytest

from datasets.augmentation import AUGMENTATIONS, MIXES, Augmentation, augment, cut_out, draw_map


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


def test_colour_changes_each_channel_alike_over_the_image_and_no_mask():
    image, mask = np.full((16, 16, 3), 100, np.uint8), np.ones((16, 16, 1), np.uint8)
    image[0, 0] = 250
    seen = []
    for seed in range(50):
        random = np.random.default_rng(seed)
        changed, same = augment(image, mask, Augmentation(colour=0.1), random)
        assert changed.dtype == np.uint8 and (same == mask).all()
        assert (changed[1:, 1:] == changed[5, 5]).all()
        assert changed[0, 0].max() <= 255 and (changed[0, 0] >= 225).all()
        seen.append(changed[5, 5])
    seen = np.array(seen)
    assert seen.min() >= 90 and seen.max() <= 110 and len(np.unique(seen)) > 15
    assert (seen[:, 0] != seen[:, 1]).any() and (seen[:, 1] != seen[:, 2]).any()


def test_cutout_leaves_a_square_of_the_mean_and_the_rest():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 40, 3), np.uint8)
    before, shares = image.copy(), []
    for _ in range(60):
        changed = cut_out(image, 0.5, random)
        different = (changed != image).any(axis=-1)
        rows, columns = different.any(axis=1).nonzero()[0], different.any(axis=0).nonzero()[0]
        if len(rows):
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == np.rint(image.mean(axis=(0, 1)))).all()
            assert box.shape[0] <= 20 and box.shape[1] <= 20
        shares.append(different.mean())
    assert (image == before).all() and min(shares) < 0.02 and 0.15 < max(shares) <= 0.25


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_images_are(name):
    """Every image is of one value, so that it shows which share of which it holds."""
    count = 12
    images = np.repeat(20 * np.arange(count, dtype=np.uint8), 32 * 32 * 3)
    images, targets = images.reshape(count, 32, 32, 3), np.eye(count, dtype=np.float32)
    before, mixed_ones = images.copy(), 0
    for seed in range(5):
        mixed, pairs = MIXES[name](images, np.random.default_rng(seed))
        labels = pairs.mix(targets)
        assert mixed.dtype == np.uint8 and mixed.shape == images.shape
        assert labels.dtype == np.float32 and labels.sum(axis=1) == pytest.approx(1)
        # what labels say of the mean of the pixels is what it is, rounding of pixels aside
        said = labels @ (20 * np.arange(count))
        assert mixed.mean(axis=(1, 2, 3)) == pytest.approx(said, abs=0.51)
        mixed_ones += (labels.max(axis=1) < 0.99).sum()
        if name == "mixup":
            assert (labels.argmax(axis=1) == np.arange(count)).all()  # mostly itself
    assert (images == before).all() and 5 < mixed_ones < 55
