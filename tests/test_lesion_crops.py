import re
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import seg_predict
from drawn_results import IDS, MADE_BY, changed, files, make_crops
from PIL import Image, JpegImagePlugin

from datasets import lesion_crops
from datasets.lesion_crops import CropRow
from inference import submission
from misc_utils import provenance
from misc_utils.errors import UserError


def test_the_script_offers_every_format_and_edge():
    hints = typing.get_type_hints(seg_predict.Settings)
    assert list(typing.get_args(hints["format"])) == list(lesion_crops.FORMATS)
    assert list(typing.get_args(hints["edge"])) == list(lesion_crops.EDGES)


def some_crop():
    """Noise on a slope, beside black: hard to pack, and with an edge."""
    crop = np.random.default_rng(0).integers(0, 60, (41, 57, 3), dtype=np.uint8)
    crop += np.arange(0, 171, 3, dtype=np.uint8)[None, :, None]
    crop[:, :20] = 0
    return crop


@pytest.mark.parametrize(
    ("format", "ending", "kind"),
    [("png", "png", "PNG"), ("webp", "webp", "WEBP"), ("tiff", "tiff", "TIFF")],
)
def test_crop_is_written_without_loss(tmp_path, format, ending, kind):
    assert lesion_crops.FORMATS[format].lossless
    for crop in (some_crop(), some_crop()[:1, :1]):
        file = lesion_crops.write_crop(tmp_path, IDS[0], crop, format)
        assert file == tmp_path / f"{IDS[0]}.{ending}"
        assert file == lesion_crops.crop_file(tmp_path, IDS[0], format)
        with Image.open(file) as picture:
            assert picture.format == kind and picture.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(picture), crop)
    if format == "tiff":
        with Image.open(file) as picture:
            assert picture.info["compression"] == "tiff_adobe_deflate"
    assert files(tmp_path) == [file.name]


def test_crop_as_jpeg_is_close_and_small(tmp_path):
    smooth = np.zeros((64, 64, 3), np.uint8)
    smooth[8:56, 8:56] = np.linspace((200, 90, 60), (120, 60, 80), 48)[:, None]
    assert not lesion_crops.FORMATS["jpeg"].lossless
    file = lesion_crops.write_crop(tmp_path, IDS[0], smooth, "jpeg")
    assert file == tmp_path / f"{IDS[0]}.jpg"
    with Image.open(file) as picture:
        assert picture.format == "JPEG"
        assert JpegImagePlugin.get_sampling(picture) == 0  # 4:4:4
        # quality 95: a tenth of the steps of quality 50, whose first is 16
        assert picture.quantization[0][0] == 2
        error = np.abs(np.asarray(picture).astype(int) - smooth)
    assert 0 < error.max() <= 12 and error.mean() < 1
    noise = some_crop()
    sizes = {
        format: lesion_crops.write_crop(tmp_path, IDS[0], noise, format).stat().st_size
        for format in lesion_crops.FORMATS
    }
    assert sizes["jpeg"] == min(sizes.values())


def test_many_threads_write_every_format(tmp_path):
    crops = [np.roll(some_crop(), k, axis=1) for k in range(24)]
    for format in ("png", "webp", "tiff"):

        def write_one(k, format=format):
            return lesion_crops.write_crop(tmp_path, f"ISIC_{k}", crops[k], format)

        with ThreadPoolExecutor(8) as threads:
            written = list(threads.map(write_one, range(len(crops))))
        for file, crop in zip(written, crops, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(file)), crop)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 7), "uint8"), ((5, 7, 4), "uint8"), ((0, 7, 3), "uint8"), ((5, 7, 3), "float32")],
)
def test_other_crops_are_refused(tmp_path, shape, dtype):
    with pytest.raises(ValueError, match="a crop is uint8"):
        lesion_crops.write_crop(tmp_path, IDS[0], np.zeros(shape, dtype))
    assert files(tmp_path) == []


def test_crops_table(tmp_path):
    rows = [CropRow("ISIC_2", 0, 0, 4, 6, 4, 6, 0), CropRow("ISIC_1", 1, 2, 3, 4, 10, 20, 7)]
    file = lesion_crops.write_crops_table(tmp_path, rows)
    assert file.read_text() == (
        "image,top,left,height,width,source_height,source_width,lesion_pixels\n"
        "ISIC_1,1,2,3,4,10,20,7\n"
        "ISIC_2,0,0,4,6,4,6,0\n"
    )


@pytest.mark.parametrize(
    "box", [(-1, 0, 2, 2), (0, -1, 2, 2), (9, 0, 2, 2), (0, 19, 2, 2), (0, 0, 0, 2), (0, 0, 2, 0)]
)
def test_box_out_of_its_image_is_refused(tmp_path, box):
    with pytest.raises(ValueError, match="leaves its source"):
        lesion_crops.write_crops_table(tmp_path, [CropRow("ISIC_1", *box, 10, 20, 1)])
    assert files(tmp_path) == []


def test_two_crops_of_an_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two crops"):
        lesion_crops.write_crops_table(tmp_path, [CropRow("ISIC_1", 0, 0, 1, 1, 1, 1, 1)] * 2)


def test_load_crops(tmp_path):
    make_crops(tmp_path)
    crops = lesion_crops.load_crops(tmp_path, 3, "test")
    assert crops.folder == tmp_path / "task3_test_crops"
    assert crops.table.index.tolist() == sorted(IDS)
    assert crops.table.loc[IDS[0]].tolist() == [1, 2, 3, 4, 10, 20, 7]


@pytest.mark.parametrize(
    ("format", "ending"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("tiff", "tiff")]
)
def test_crops_are_found_by_the_format_of_their_record(tmp_path, format, ending):
    make_crops(tmp_path, made_by=changed(format=format))
    folder = tmp_path / "task3_test_crops"
    crops = lesion_crops.load_crops(tmp_path, 3, "test")
    assert crops.files == {image_id: folder / f"{image_id}.{ending}" for image_id in IDS}
    assert all(file.exists() for file in crops.files.values())
    crops.files[IDS[1]].rename(folder / f"{IDS[1]}.bmp")
    with pytest.raises(UserError, match=f"no crop of 1: {IDS[1]}"):
        lesion_crops.load_crops(tmp_path, 3, "test")


def test_crops_of_a_record_without_format_are_png(tmp_path):
    assert "format" not in MADE_BY["settings"]
    make_crops(tmp_path)
    crops = lesion_crops.load_crops(tmp_path, 3, "test")
    assert {file.name for file in crops.files.values()} == {f"{i}.png" for i in IDS}


def test_a_record_of_an_unknown_format_is_refused(tmp_path):
    make_crops(tmp_path, made_by=changed(format="png"))
    file = tmp_path / "task3_test_crops.json"
    file.write_text(file.read_text().replace('"png"', '"bmp"'))
    with pytest.raises(
        UserError, match=r"'bmp', expected one of png, jpeg, webp, tiff.*--overwrite"
    ):
        lesion_crops.load_crops(tmp_path, 3, "test")


def test_another_format_is_another_folder_content_but_lossless_ones_are_the_same_crops(tmp_path):
    makers, prints = {}, {}
    for format in (None, *lesion_crops.FORMATS):
        made_by = MADE_BY if format is None else changed(format=format)
        make_crops(tmp_path / str(format), made_by=made_by)
        crops = lesion_crops.load_crops(tmp_path / str(format), 3, "test")
        makers[format], prints[format] = crops.maker, crops.fingerprint
    for values in (makers, prints):
        assert values[None] == values["png"] == values["webp"] == values["tiff"] != values["jpeg"]
    with pytest.raises(UserError, match=r'settings\.format: "png" there, "webp" now'):
        submission.open_folder(tmp_path / "png", "task3_test_crops", changed(format="webp"), False)


def test_hard_and_soft_crops_live_side_by_side(tmp_path):
    name = lesion_crops.crop_folder(3, "test", "feather")
    make_crops(tmp_path, made_by=changed(edge="hard"))
    with pytest.raises(UserError, match=r"feather does not exist.*--pred-set test --edge feather"):
        lesion_crops.load_view_crops(tmp_path, "test", "feather")
    make_crops(tmp_path, name, changed(edge="feather", edge_radius=0.05, format="webp"))
    soft = lesion_crops.load_view_crops(tmp_path, "test", "feather")
    assert soft.folder == tmp_path / "task3_test_crops_feather"
    assert {file.parent for file in soft.files.values()} == {soft.folder}
    hard = lesion_crops.load_view_crops(tmp_path, "test", "crop")
    assert hard.folder == tmp_path / "task3_test_crops"
    assert hard.maker != soft.maker and hard.fingerprint != soft.fingerprint
    (tmp_path / "task3_test_crops").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"crops does not exist.*--pred-set test\. Class"):
        lesion_crops.load_view_crops(tmp_path, "test", "box")


def test_the_radius_of_a_soft_edge_enters_the_maker(tmp_path):
    makers = set()
    for radius in (0.05, 0.2):
        made_by = changed(edge="feather", edge_radius=radius)
        make_crops(tmp_path / str(radius), "task3_test_crops_feather", made_by)
        makers.add(lesion_crops.load_view_crops(tmp_path / str(radius), "test", "feather").maker)
    assert len(makers) == 2


def test_fingerprint_follows_boxes_and_maker(tmp_path):
    rows = [CropRow(image_id, 1, 2, 3, 5, 10, 20, 7) for image_id in IDS]
    reordered = dict(reversed(MADE_BY.items()))
    crops = []
    for k, (made_by, box) in enumerate(
        [(MADE_BY, None), (reordered, None), (changed(threshold=0.4), None), (MADE_BY, rows)]
    ):
        make_crops(tmp_path / str(k), made_by=made_by, rows=box)
        crops.append(lesion_crops.load_crops(tmp_path / str(k), 3, "test"))
    first, again, other_maker, other_boxes = (each.fingerprint for each in crops)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert first == again
    assert len({first, other_maker, other_boxes}) == 3


def test_maker_is_the_same_for_another_set_only(tmp_path):
    other_set = changed(pred_set="training", limit=5) | {"images_by_nets": {"folds 0": ["ISIC_9"]}}
    maker = provenance.fingerprint_of_maker(MADE_BY)
    assert provenance.fingerprint_of_maker(other_set) == maker
    assert provenance.fingerprint_of_maker(changed(threshold=0.4)) != maker
    assert provenance.fingerprint_of_maker(MADE_BY | {"weights": {}}) != maker
    make_crops(tmp_path)
    assert lesion_crops.load_crops(tmp_path, 3, "test").maker == maker


def test_view_of_whole_images_needs_no_crops(tmp_path):
    assert lesion_crops.load_view_crops(tmp_path, "test", "whole") is None
    make_crops(tmp_path)
    for view in ("box", "crop"):
        crops = lesion_crops.load_view_crops(tmp_path, "test", view)
        assert crops.folder == tmp_path / "task3_test_crops"


def test_missing_or_unfinished_crops_name_the_command(tmp_path):
    def refused(task=3, images="test"):
        with pytest.raises(UserError) as error:
            lesion_crops.load_crops(tmp_path, task, images)
        assert f"runs/seg_predict.py --task {task} --pred-set {images}" in str(error.value)
        return str(error.value)

    assert "task1_validation_crops does not exist" in refused(1, "validation")
    make_crops(tmp_path)
    content = (tmp_path / "task3_test_crops.json").read_text()
    (tmp_path / "task3_test_crops.json").unlink()
    assert "task3_test_crops.json does not exist" in refused()
    (tmp_path / "task3_test_crops.json").write_text(content.replace("true", "false"))
    assert "task3_test_crops.json: not all" in refused()
    (tmp_path / "task3_test_crops.json").write_text(content)
    (tmp_path / "task3_test_crops" / f"{IDS[1]}.png").unlink()
    assert f"1: {IDS[1]}" in refused()
    (tmp_path / "task3_test_crops" / "crops.csv").write_text("image,top\nISIC_1,0\n")
    assert "found image, top" in refused()
    (tmp_path / "task3_test_crops" / "crops.csv").unlink()
    assert "crops.csv does not exist" in refused()


def test_a_format_that_cannot_hold_a_crop_is_refused_with_the_image(tmp_path):
    sizes = {"ISIC_1": (16_383, 200), "ISIC_2": (100, 16_384)}
    for format in ("png", "jpeg", "tiff"):
        lesion_crops.check_sizes(format, sizes)
    with pytest.raises(UserError, match=r"16383 pixels .* 1: ISIC_2 \(16384x100\).*--format"):
        lesion_crops.check_sizes("webp", sizes)
    for format in ("webp", "jpeg"):  # as much as is let through is written
        longest = np.zeros((1, lesion_crops.FORMATS[format].most, 3), np.uint8)
        assert lesion_crops.write_crop(tmp_path, "ISIC_1", longest, format).exists()
