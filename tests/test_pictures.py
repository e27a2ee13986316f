import io

import numpy as np
import pytest
from PIL import Image

from datasets import pictures


def encoded(array, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_images_become_rgb():
    grey = np.full((4, 6), 77, np.uint8)
    image, height, width = pictures.read_image(encoded(grey))
    assert image.shape == (4, 6, 3) and (height, width) == (4, 6) and (image == 77).all()


def test_a_jpeg_decoded_smaller_keeps_its_true_size():
    content = encoded(np.zeros((400, 640, 3), np.uint8), "JPEG")
    image, height, width = pictures.read_image(content, shortest=100)
    assert (height, width) == (400, 640)
    assert image.shape == (100, 160, 3)


def test_a_cut_jpeg_is_refused():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, "JPEG")
    with pytest.raises(ValueError, match="damaged or cut off"):
        pictures.read_image(content[: len(content) // 2])


@pytest.mark.parametrize("high", [1, 255])
def test_masks_are_zero_and_one(high):
    mask = np.zeros((3, 5), np.uint8)
    mask[1, 2] = high
    read = pictures.read_mask(encoded(mask))
    assert read.dtype == np.uint8 and read.sum() == 1 and read[1, 2] == 1


@pytest.mark.parametrize("values", [(0, 128), (0, 1, 255), (0, 3, 255), (7,)])
def test_masks_of_other_values_are_refused(values):
    mask = np.resize(np.array(values, np.uint8), (3, 4))
    with pytest.raises(ValueError, match=str(values[-1])):
        pictures.read_mask(encoded(mask))
