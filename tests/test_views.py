import json

import numpy as np
import pytest
from drawn_results import MADE_BY
from PIL import Image

from datasets import lesion_crops, pictures
from datasets.ISIC2018 import ISIC2018
from datasets.lesion_crops import CropRow
from misc_utils import provenance

IMAGE = "ISIC_0000001"


@pytest.fixture
def crops(tmp_path):
    """One image, 60 x 80 pixels of noise, and a box of 25 pixels cut out of it."""
    folder = tmp_path / "ISIC2018_Task3_Test_Input"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(picture).save(folder / f"{IMAGE}.png")
    name = lesion_crops.crop_folder(3, "test")
    (tmp_path / name).mkdir()
    lesion_crops.write_crop(tmp_path / name, IMAGE, picture[20:30, 20:45])
    lesion_crops.write_crops_table(tmp_path / name, [CropRow(IMAGE, 20, 20, 10, 25, 60, 80, 100)])
    provenance.write_record(tmp_path, name, MADE_BY, complete=True)
    return picture, lesion_crops.load_crops(tmp_path, 3, "test")


@pytest.mark.parametrize(
    ("view", "margin", "part"),
    [
        ("box", 0.1, np.s_[18:32, 18:47]),  # 2.5 pixels of margin, rounded as for crops
        ("box", 0.0, np.s_[20:30, 20:45]),
        ("crop", 0.1, np.s_[20:30, 20:45]),
    ],
)
def test_what_a_view_shows(tmp_path, crops, view, margin, part):
    picture, crops = crops
    cached = ISIC2018(tmp_path).load_view("test", 32, view, crops, margin)
    expected = pictures.resize(np.ascontiguousarray(picture[part]), 32)
    np.testing.assert_array_equal(cached.array[0], expected)


def test_a_cache_of_boxes_says_what_it_was_made_from(tmp_path, crops):
    """As versions before did, whose caches are valid and whose runs name their fingerprint."""
    _, crops = crops
    ISIC2018(tmp_path).load_view("test", 32, "box", crops, 0.1)
    manifest = json.loads((tmp_path / "cache" / "task3_test_box_32.json").read_text())
    assert manifest["made_from"] == f"{crops.fingerprint} margin 0.1"
