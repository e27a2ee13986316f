import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_results import IDS, MADE_BY, changed, files
from isic_challenge_scoring.load_csv import parse_csv, validate_rows
from isic_challenge_scoring.load_image import load_segmentation_image
from isic_challenge_scoring.metrics import balanced_multiclass_accuracy
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image

from datasets import lesion_crops
from datasets.lesion_crops import CropRow
from inference import submission
from misc_utils.errors import UserError

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def record(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def probabilities():
    """Three rows; columns AKIEC and VASC are 0 and NV is 0 or 1 throughout."""
    table = np.zeros((3, 7), np.float32)
    table[0, 0], table[0, 2] = 1 / 3, np.nextafter(np.float32(1 / 3), np.float32(1))
    table[1, 1] = 1
    table[2, 4], table[2, 5] = 1e-7, 2e-7
    return table


def write(folder, ids=IDS, values=None, expected=IDS, made_by=MADE_BY, overwrite=False):
    values = probabilities() if values is None else values
    table = pd.DataFrame(values, columns=list(CLASSES))
    table.insert(0, "image", ids)
    name = submission.class_file("test")
    return submission.write_classes(folder, name, table, expected, made_by, overwrite)


# names


def test_names():
    assert submission.mask_folder(1, "test") == "task1_test"
    assert submission.mask_folder(3, "training") == "task3_training_masks"
    assert lesion_crops.crop_folder(1, "validation") == "task1_validation_crops"
    assert lesion_crops.crop_folder(3, "test") == "task3_test_crops"
    assert lesion_crops.crop_folder(3, "test", "hard") == "task3_test_crops"
    assert lesion_crops.crop_folder(3, "test", "feather") == "task3_test_crops_feather"
    assert lesion_crops.crop_folder(1, "training", "feather") == "task1_training_crops_feather"
    assert submission.class_file("test") == "task3_test_submission.csv"


@pytest.mark.parametrize(("task", "images"), [(4, "test"), (1, "Test"), (3, "../test")])
def test_names_of_nothing_are_refused(task, images):
    for name in (submission.mask_folder, lesion_crops.crop_folder):
        with pytest.raises(ValueError, match="task 1, 2 or 3"):
            name(task, images)


# what made it


def test_record_lies_beside_the_folder_and_is_incomplete_until_closed(tmp_path):
    folder = submission.open_folder(tmp_path / "new", "task1_test", MADE_BY, False)
    assert folder == tmp_path / "new" / "task1_test" and folder.is_dir()
    opened = record(tmp_path / "new", "task1_test")
    assert opened["complete"] is False and opened["made_by"] == MADE_BY
    submission.close_folder(tmp_path / "new", "task1_test", MADE_BY, {"images": 3})
    closed = record(tmp_path / "new", "task1_test")
    assert closed["complete"] is True and closed["summary"] == {"images": 3}
    assert closed["made_by"] == MADE_BY
    assert files(tmp_path / "new") == ["task1_test.json"]


def test_what_the_same_maker_completed_stays_complete(tmp_path):
    folder = submission.open_folder(tmp_path, "task1_test", MADE_BY | {"folds": (0, 1)}, False)
    assert record(tmp_path, "task1_test")["complete"] is False
    (folder / ".partial_7_ISIC_0000001_segmentation.png").write_text("of a killed process")
    (folder / "ISIC_0000001_segmentation.png").write_text("whole")
    submission.close_folder(tmp_path, "task1_test", MADE_BY | {"folds": [0, 1]}, {})
    submission.open_folder(tmp_path, "task1_test", MADE_BY | {"folds": [0, 1]}, False)
    assert record(tmp_path, "task1_test")["complete"] is True
    assert files(folder) == ["ISIC_0000001_segmentation.png"]


def test_other_maker_is_refused_with_both_values_and_the_ways_out(tmp_path):
    folder = submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    before = (tmp_path / "task1_test.json").read_bytes()
    with pytest.raises(UserError) as error:
        submission.open_folder(tmp_path, "task1_test", changed(threshold=0.4, tta=True), False)
    message = str(error.value)
    assert f"{folder} was made by something different" in message
    assert str(tmp_path / "task1_test.json") in message
    assert "settings.threshold: 0.5 there, 0.4 now" in message
    assert "settings.tta: nothing there, true now" in message
    assert "limit" not in message and "--overwrite" in message and "move" in message
    assert (tmp_path / "task1_test.json").read_bytes() == before


def test_many_differences_are_cut_short(tmp_path):
    submission.open_folder(tmp_path, "task1_test", {f"key{k}": "a" * 500 for k in range(8)}, False)
    with pytest.raises(UserError) as error:
        submission.open_folder(tmp_path, "task1_test", {"key0": "a" * 500}, False)
    assert "key0" not in str(error.value) and "key5" in str(error.value)
    assert "key6" not in str(error.value) and "and 2 more" in str(error.value)
    assert len(str(error.value)) < 1200


def test_a_key_with_null_differs_from_no_key(tmp_path):
    submission.open_folder(tmp_path, "task1_test", {"a": 1, "b": None}, False)
    with pytest.raises(UserError, match="b: null there, nothing now"):
        submission.open_folder(tmp_path, "task1_test", {"a": 1}, False)


def test_folder_without_record_is_of_an_unknown_maker(tmp_path):
    (tmp_path / "task1_test").mkdir()
    submission.open_folder(tmp_path, "task1_test", MADE_BY, False)  # empty: nothing to lose
    (tmp_path / "task1_test.json").unlink()
    (tmp_path / "task1_test" / "mine.png").write_text("mine")
    with pytest.raises(UserError, match="unknown"):
        submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    assert files(tmp_path) == ["task1_test/mine.png"]


def test_record_whose_folder_was_deleted_stops_nobody(tmp_path):
    submission.open_folder(tmp_path, "task1_test", MADE_BY, False).rmdir()
    submission.open_folder(tmp_path, "task1_test", changed(threshold=0.4), False)
    assert record(tmp_path, "task1_test")["made_by"]["settings"]["threshold"] == 0.4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"complete": 1, "made_by": {}}', "\x00"])
def test_broken_record_is_refused_and_overwritten(tmp_path, text):
    submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    (tmp_path / "task1_test.json").write_text(text)
    with pytest.raises(UserError, match=r"task1_test\.json: cannot be read"):
        submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    submission.open_folder(tmp_path, "task1_test", MADE_BY, True)
    assert record(tmp_path, "task1_test")["made_by"] == MADE_BY


def test_overwrite_removes_stale_files(tmp_path):
    folder = submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    (folder / "ISIC_0000009_segmentation.png").write_text("stale")
    (tmp_path / "task1_training").mkdir()
    (tmp_path / "task1_training" / "neighbour.png").write_text("stays")
    submission.open_folder(tmp_path, "task1_test", changed(threshold=0.4), True)
    assert files(tmp_path) == ["task1_test.json", "task1_training/neighbour.png"]
    assert record(tmp_path, "task1_test")["made_by"]["settings"]["threshold"] == 0.4


def test_overwrite_of_a_link_leaves_its_target(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.png").write_text("mine")
    (tmp_path / "task1_test").symlink_to(tmp_path / "elsewhere")
    submission.open_folder(tmp_path, "task1_test", MADE_BY, True)
    assert (tmp_path / "elsewhere" / "mine.png").exists()
    assert files(tmp_path / "task1_test") == []


def test_closing_what_another_has_opened_is_refused(tmp_path):
    submission.open_folder(tmp_path, "task1_test", MADE_BY, False)
    with pytest.raises(UserError, match="something different"):
        submission.close_folder(tmp_path, "task1_test", changed(threshold=0.4), {})
    assert record(tmp_path, "task1_test")["complete"] is False


def test_made_by_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        submission.open_folder(tmp_path, "task1_test", {"threshold": float("nan")}, False)
    assert files(tmp_path) == []


# masks


def test_masks_are_what_the_organisers_read(tmp_path):
    truth, folder = tmp_path / "truth", tmp_path / "task1_test"
    truth.mkdir()
    folder.mkdir()
    half = np.zeros((4, 6), np.uint8)
    half[:2] = 255
    quarter = half.copy()
    quarter[1] = 0
    none = np.zeros((4, 6), np.uint8)
    for image_id, right, mask in zip(IDS, (half, half, none), (half, quarter, none), strict=True):
        Image.fromarray(right).save(truth / f"{image_id}_segmentation.png")
        file = submission.write_mask(folder, image_id, mask, 4, 6)
        assert file.name == f"{image_id}_segmentation.png"
        assert Image.open(file).mode == "L" and Image.open(file).size == (6, 4)
        np.testing.assert_array_equal(load_segmentation_image(file), mask)
        np.testing.assert_array_equal(submission.read_mask(folder, image_id), mask)
    score = SegmentationScore.from_dir(truth, folder)
    assert score.macro_average["jaccard"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert score.overall == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 6), bool), "uint8"),
        (np.zeros((4, 6), np.float32), "uint8"),
        (np.zeros((6, 4), np.uint8), "like its image"),
        (np.zeros((4, 6, 1), np.uint8), "like its image"),
        (np.ones((4, 6), np.uint8), "0 or 255"),
        (np.full((4, 6), 128, np.uint8), "0 or 255"),
        (np.full((4, 6), 254, np.uint8), "0 or 255"),
    ],
)
def test_other_masks_are_refused(tmp_path, mask, message):
    with pytest.raises(ValueError, match=message):
        submission.write_mask(tmp_path, IDS[0], mask, 4, 6)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "image_id",
    ["../ISIC_1", "ISIC_1/2", "ISIC_1\\2", "ISIC_1.png", "", " ISIC", ".x", "a\nb", "x" * 201],
)
def test_other_ids_are_refused_everywhere(tmp_path, image_id):
    mask, crop = np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint8)
    values = np.eye(7, dtype=np.float32)[:1]
    for attempt in (
        lambda: submission.write_mask(tmp_path, image_id, mask, 4, 6),
        lambda: lesion_crops.write_crop(tmp_path, image_id, crop),
        lambda: lesion_crops.write_crops_table(tmp_path, [CropRow(image_id, 0, 0, 1, 1, 1, 1, 1)]),
        lambda: write(tmp_path, ids=[image_id], values=values, expected=[image_id]),
    ):
        with pytest.raises(ValueError, match="not an image id"):
            attempt()
    assert files(tmp_path) == [] and list(tmp_path.parent.glob("ISIC*")) == []


def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        partial = self if isinstance(self, Path) else args[0]
        partial.touch()
        raise OSError("disk full")

    old = np.full((4, 6), 255, np.uint8)
    file = submission.write_mask(tmp_path, IDS[0], old, 4, 6)
    monkeypatch.setattr(Path, "write_bytes", fail)  # masks
    monkeypatch.setattr(Image.Image, "save", fail)  # crops
    with pytest.raises(OSError, match="disk full"):
        submission.write_mask(tmp_path, IDS[0], np.zeros((4, 6), np.uint8), 4, 6)
    with pytest.raises(OSError, match="disk full"):
        lesion_crops.write_crop(tmp_path, IDS[0], np.zeros((4, 6, 3), np.uint8))
    assert files(tmp_path) == [file.name]
    assert load_segmentation_image(file).min() == 255


# settings


SETTINGS = {
    "output": "crops",
    "margin": 0.0,
    "edge": "hard",
    "edge_radius": 0.05,
    "format": "png",
    "task": 3,
}


def test_settings_that_change_nothing_are_left_out():
    def left_out(**settings):
        return sorted(SETTINGS.keys() - submission.deciding_settings(SETTINGS | settings).keys())

    assert left_out() == left_out(format="jpeg") == ["edge_radius"]
    assert left_out(edge="feather") == []
    assert left_out(output="mask") == ["edge", "edge_radius", "format", "margin"]
    feather = SETTINGS | {"edge": "feather", "edge_radius": 0.2}
    assert submission.deciding_settings(feather) == feather


def test_masks_have_no_other_format_and_no_soft_edge():
    for name, value in (("format", "webp"), ("format", "jpeg"), ("edge", "feather")):
        with pytest.raises(UserError, match=f"8-bit PNG.*--{name} {value} is for crops"):
            submission.deciding_settings(SETTINGS | {"output": "mask", name: value})


# classes


@pytest.mark.filterwarnings("ignore:DataFrame.applymap:FutureWarning")  # the scorer's
def test_class_table_is_what_the_organisers_read(tmp_path):
    file = write(tmp_path)
    assert file == tmp_path / "task3_test_submission.csv"
    assert file.read_text().splitlines()[:3] == [
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
        "ISIC_0000003,0.33333334,0.0,0.33333337,0.0,0.0,0.0,0.0",
        "ISIC_0000001,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
    ]
    truth = pd.DataFrame(np.eye(7)[[2, 1, 4]], index=IDS, columns=CLASSES)
    with file.open() as stream:
        table = parse_csv(stream, truth.columns)
    validate_rows(truth, table)
    # right: BCC, by the last bit of a float32, and NV; wrong: BKL
    score = balanced_multiclass_accuracy(truth, table, pd.Series(1.0, index=IDS))
    assert score == pytest.approx(2 / 3)
    written = record(tmp_path, "task3_test_submission")
    assert written["complete"] is True and written["made_by"] == MADE_BY
    assert written["summary"] == {"images": 3, "ties": 0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_survive(tmp_path, dtype):
    rng = np.random.default_rng(1)
    values = rng.dirichlet(np.full(7, 0.05), 400).astype(dtype)  # down to 1e-40 and below
    ids = [f"ISIC_{k:07d}" for k in range(400)]
    file = write(tmp_path, ids=ids, values=values, expected=ids)
    table = pd.read_csv(file, index_col="image", float_precision="round_trip")
    np.testing.assert_array_equal(table.to_numpy().astype(dtype), values)
    as_scored = pd.read_csv(file, index_col="image").to_numpy()
    np.testing.assert_array_equal(as_scored.argmax(1), values.argmax(1))


def test_ties_are_counted_and_said(tmp_path, caplog):
    values = probabilities()
    values[1, :2] = 0.5
    with caplog.at_level(logging.WARNING):
        write(tmp_path, values=values)
    assert record(tmp_path, "task3_test_submission")["summary"]["ties"] == 1
    assert f"1: {IDS[1]}" in caplog.text


def with_value(value):
    values = probabilities()
    values[1, 3] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expected": [*IDS, "ISIC_0000004"]}, "images missing: 1: ISIC_0000004"),
        ({"expected": IDS[:2]}, "images not wanted: 1: ISIC_0000002"),
        ({"ids": [*IDS[:2], IDS[0]]}, "images twice: 1: ISIC_0000003"),
        ({"values": with_value(np.nan)}, "values not in 0..1 (or none): 1: ISIC_0000001"),
        ({"values": with_value(np.inf)}, "values not in 0..1 (or none): 1: ISIC_0000001"),
        ({"values": with_value(-1e-9)}, "values not in 0..1 (or none): 1: ISIC_0000001"),
        ({"values": with_value(1.0001)}, "values not in 0..1 (or none): 1: ISIC_0000001"),
        ({"ids": [], "values": np.zeros((0, 7)), "expected": []}, "no rows"),
    ],
)
def test_table_the_scorer_would_refuse_is_not_written(tmp_path, change, message):
    write(tmp_path, values=np.eye(7)[:3])
    before = [(tmp_path / name).read_bytes() for name in files(tmp_path)]
    with pytest.raises(UserError) as error:
        write(tmp_path, overwrite=True, **change)
    assert message in str(error.value)
    assert str(tmp_path / "task3_test_submission.csv") in str(error.value)
    assert "partial" not in str(error.value)
    assert files(tmp_path) == ["task3_test_submission.csv", "task3_test_submission.json"]
    assert [(tmp_path / name).read_bytes() for name in files(tmp_path)] == before


def test_whole_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="columns of floats expected, not int64"):
        write(tmp_path, values=np.zeros((3, 7), int))
    assert files(tmp_path) == []


def test_class_table_of_another_maker_is_refused_or_replaced(tmp_path):
    file = write(tmp_path)
    before = file.read_bytes()
    write(tmp_path, values=np.eye(7)[:3])  # the same maker may
    assert file.read_bytes() != before
    write(tmp_path)
    with pytest.raises(UserError, match=r"settings\.threshold: 0\.5 there, 0\.4 now"):
        write(tmp_path, values=np.eye(7)[:3], made_by=changed(threshold=0.4))
    assert file.read_bytes() == before
    write(tmp_path, values=np.eye(7)[:3], made_by=changed(threshold=0.4), overwrite=True)
    assert file.read_bytes() != before
    assert record(tmp_path, "task3_test_submission")["made_by"] == changed(threshold=0.4)
    (tmp_path / "task3_test_submission.json").unlink()
    with pytest.raises(UserError, match="unknown"):
        write(tmp_path)


def test_class_table_interrupted_before_its_name_is_not_there(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(submission, "check_classes_file", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert files(tmp_path) == []
