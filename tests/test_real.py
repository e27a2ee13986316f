"""On real images, where ISIC_TEST_DATA names a folder laid out as released."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import resize

from datasets import challenge, folds, pictures
from datasets.ISIC2018 import ISIC2018

DATA = Path(os.environ.get("ISIC_TEST_DATA", "/nonexistent"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason="ISIC_TEST_DATA names no folder of real images"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The real folders, linked, with a cache of its own."""
    data = tmp_path_factory.mktemp("real")
    for folder in DATA.iterdir():
        (data / folder.name).symlink_to(folder)
    return data


def test_labels_and_lesions_of_the_release(data_dir):
    image_ids = ISIC2018(data_dir).list_images(3, "training")
    labels = ISIC2018(data_dir).load_labels("training", image_ids)
    lesions = ISIC2018(data_dir).load_lesions(image_ids)
    counts = np.bincount(list(labels.values()), minlength=7)
    assert dict(zip(challenge.CLASSES, counts.tolist(), strict=True)) == {
        "MEL": 1113,
        "NV": 6705,
        "BCC": 514,
        "AKIEC": 327,
        "BKL": 1099,
        "DF": 115,
        "VASC": 142,
    }
    assert len(lesions) == 10015 and len(set(lesions.values())) == 7470
    assert not set(image_ids) & set(ISIC2018(data_dir).list_images(1, "training"))

    split = folds.split_lesions(labels, lesions, 5, 42, challenge.CLASSES)
    assert (split.groupby("lesion")["fold"].nunique() == 1).all()
    shares = split.groupby("fold")["label"].value_counts(normalize=True).unstack()
    assert (shares.max() - shares.min()).max() < 0.005


def test_images_and_masks_are_cached(data_dir):
    images = ISIC2018(data_dir).load_images(1, "training", 64)
    masks = ISIC2018(data_dir).load_masks(1, "training", 64, of=images)
    assert images.image_ids == masks.image_ids and len(images.image_ids) == 2594
    assert images.array.shape == (2594, 64, 64, 3) and masks[:].shape == (2594, 64, 64, 1)
    assert set(np.unique(masks[:])) == {0, 1}
    # lesions are darker than the skin around them: image and mask belong together
    sample = slice(0, 2594, 20)
    grey, lesion = images.array[sample].mean(axis=3), masks[sample][..., 0] > 0
    darker = [
        g[m].mean() < g[~m].mean() for g, m in zip(grey, lesion, strict=True) if 50 < m.sum() < 3500
    ]
    assert np.mean(darker) > 0.9


def test_small_pictures_are_those_of_an_anti_aliased_resize():
    files = sorted((DATA / "native600x450" / "images").glob("*.jpg"))[:8]
    for file in files:
        whole, height, width = pictures.read_image(file.read_bytes())
        assert whole.shape == (height, width, 3) == (450, 600, 3)
        drafted, *_ = pictures.read_image(file.read_bytes(), shortest=2 * 112)
        ours = pictures.resize(drafted, 112).astype(float)
        theirs = 255 * resize(whole, (112, 112), order=1, anti_aliasing=True)
        assert np.abs(ours - theirs).mean() < 1.5


def test_masks_at_original_size():
    folder = DATA / "native600x450" / "masks"
    for file in sorted(folder.glob("*.png")):
        mask = ISIC2018(Path()).read_truth(file, 450, 600)
        assert 0 < mask.mean() < 1
