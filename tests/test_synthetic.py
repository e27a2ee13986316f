import csv
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.synthetic import (
    LOOKS,
    Lesion,
    class_counts,
    draw_dataset,
    draw_lesion,
    draw_photograph,
)
from datasets.synthetic.plan import plan_photographs
from misc_utils import files
from misc_utils.errors import UserError

CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
SETS = ("Training", "Validation", "Test")
SMALL = {"lesions": 14, "test_lesions": 3, "shorter_side": (48, 64)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    draw_dataset(folder, **SMALL)
    return folder


def ids(folder, ending):
    return sorted(file.name.removesuffix(ending) for file in folder.glob(f"ISIC_*{ending}"))


def table(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def contents(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_the_tree_is_named_as_released(data):
    inputs = {f"ISIC2018_Task{task}_{s}_Input" for task in ("1-2", "3") for s in SETS}
    truths = {f"ISIC2018_Task{task}_{s}_GroundTruth" for task in ("1", "3") for s in SETS}
    assert {path.name for path in data.iterdir()} == inputs | truths | {"SYNTHETIC.txt"}
    for folder in inputs | truths:
        assert (data / folder / "ATTRIBUTION.txt").is_file()
        assert (data / folder / "LICENSE.txt").is_file()
    superpixels = list((data / "ISIC2018_Task1-2_Training_Input").glob("*_superpixels.png"))
    assert len(superpixels) == 3
    hidden = [path for path in data.rglob(".*")]
    assert not hidden  # nothing half-written is left


def test_counts_and_ids(data):
    seen = []
    for folder, count in (("1-2_Training", 14), ("1-2_Validation", 3), ("1-2_Test", 3)):
        seen.append(ids(data / f"ISIC2018_Task{folder}_Input", ".jpg"))
        assert len(seen[-1]) == count
    # lesions 0, 3, 6, 9, 12 have 2, 2, 3, 2, 2 photographs, the other nine one each
    for folder, count in (("3_Training", 9 + 11), ("3_Validation", 3), ("3_Test", 3)):
        seen.append(ids(data / f"ISIC2018_Task{folder}_Input", ".jpg"))
        assert len(seen[-1]) == count
    every = [image_id for some in seen for image_id in some]
    assert len(set(every)) == len(every)  # Task 1 and Task 3 share none
    numbers = [int(image_id.removeprefix("ISIC_")) for image_id in seen[0]]
    assert any(b - a > 1 for a, b in pairwise(numbers))  # gaps
    assert all(len(image_id) == len("ISIC_0000000") for image_id in every)


@pytest.mark.parametrize("images", SETS)
def test_masks_match_their_images(data, images):
    inputs = data / f"ISIC2018_Task1-2_{images}_Input"
    truths = data / f"ISIC2018_Task1_{images}_GroundTruth"
    assert ids(truths, "_segmentation.png") == ids(inputs, ".jpg")
    for image_id in ids(inputs, ".jpg"):
        with (
            Image.open(inputs / f"{image_id}.jpg") as image,
            Image.open(truths / f"{image_id}_segmentation.png") as mask,
        ):
            assert image.format == "JPEG" and image.mode == "RGB" and mask.mode == "L"
            assert image.size == mask.size and 48 <= min(image.size) <= 64
            assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize("images", SETS)
def test_labels(data, images):
    name = f"ISIC2018_Task3_{images}_GroundTruth"
    file = data / name / f"{name}.csv"
    assert file.read_text().splitlines()[0] == ",".join(["image", *CLASSES])
    rows = table(file)
    inputs = data / f"ISIC2018_Task3_{images}_Input"
    assert [row["image"] for row in rows] == ids(inputs, ".jpg")
    for row in rows:
        assert sorted(row[name] for name in CLASSES) == ["0.0"] * 6 + ["1.0"]
    if images == "Training":
        assert {name for row in rows for name in CLASSES if row[name] == "1.0"} == set(CLASSES)


def test_photographs_of_one_lesion_share_its_class(data):
    folder = data / "ISIC2018_Task3_Training_GroundTruth"
    rows = table(folder / "ISIC2018_Task3_Training_LesionGroupings.csv")
    assert list(rows[0]) == ["image", "lesion_id", "diagnosis_confirm_type"]
    labels = {
        row["image"]: next(name for name in CLASSES if row[name] == "1.0")
        for row in table(folder / f"{folder.name}.csv")
    }
    assert [row["image"] for row in rows] == list(labels)
    per_lesion = Counter(row["lesion_id"] for row in rows)
    assert sorted(per_lesion.values()) == [1] * 9 + [2] * 4 + [3]
    of_lesion = {(row["lesion_id"], labels[row["image"]]) for row in rows}
    assert len(of_lesion) == 14
    assert Counter(name for _, name in of_lesion) == Counter(class_counts(14))


def test_class_counts():
    expected = {"NV": 34, "MEL": 17, "BKL": 14, "BCC": 10, "AKIEC": 9, "DF": 8, "VASC": 8}
    assert class_counts(100) == expected
    assert class_counts(7) == dict.fromkeys(expected, 1)
    assert [name for name, count in class_counts(2).items() if count] == ["NV", "MEL"]
    assert all(sum(class_counts(n).values()) == n for n in range(1, 300))


def test_the_same_settings_give_the_same_files(data, tmp_path):
    draw_dataset(tmp_path / "again", **SMALL)
    draw_dataset(tmp_path / "other", **SMALL, seed=1)
    first, other = contents(data), contents(tmp_path / "other")
    assert contents(tmp_path / "again") == first
    pictures = {file for file in first if file.suffix == ".jpg"}
    assert not {first[file] for file in pictures} & set(other.values())
    assert len({first[file] for file in pictures}) == len(pictures)  # no picture twice


def test_drawing_again_only_fills_gaps(data):
    before = {f: f.stat().st_mtime_ns for f in data.rglob("*") if f.is_file()}
    mask = next((data / "ISIC2018_Task1_Test_GroundTruth").glob("*.png"))
    labels = data / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    lost = {mask: mask.read_bytes(), labels: labels.read_bytes()}
    for file in lost:
        file.unlink()
    draw_dataset(data, **SMALL)
    assert {file: file.read_bytes() for file in lost} == lost
    image = data / "ISIC2018_Task1-2_Test_Input" / mask.name.replace("_segmentation.png", ".jpg")
    changed = {f for f, time in before.items() if f.stat().st_mtime_ns != time}
    companion = image.with_name(f"{image.stem}_superpixels.png")
    assert changed - {companion} == {mask, labels, image}


def test_other_data_is_left_alone(tmp_path, data):
    (tmp_path / "ISIC2018_Task1-2_Test_Input").mkdir()
    with pytest.raises(UserError, match=r"ISIC2018_Task1-2_Test_Input.*not drawn"):
        draw_dataset(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["ISIC2018_Task1-2_Test_Input"]
    before = contents(data)
    with pytest.raises(UserError, match=r"SYNTHETIC\.txt.*other settings"):
        draw_dataset(data, **SMALL, seed=5)
    assert contents(data) == before


def test_senseless_settings(tmp_path):
    for wrong in ({"lesions": 0}, {"test_lesions": 0}, {"shorter_side": (80, 64)}):
        with pytest.raises(ValueError, match="needed"):
            draw_dataset(tmp_path / "data", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("diagnosis", CLASSES)
def test_the_mask_is_where_the_lesion_is(diagnosis):
    assert list(LOOKS) == CLASSES
    for seed in range(4):
        lesion = draw_lesion(np.random.default_rng(seed), diagnosis)
        parts, _ = cv2.connectedComponents(lesion.mask)
        assert parts == 2 and not lesion.mask[0].any() and not lesion.mask[:, -1].any()
        image, mask = draw_photograph(np.random.default_rng(seed), lesion, (96, 96))
        assert image.dtype == mask.dtype == np.uint8 and image.shape == (*mask.shape, 3)
        assert 0.02 < (mask > 0).mean() < 0.6
        # the same view of bare skin differs inside the mask and nowhere else
        bare = Lesion(lesion.colour, lesion.cover * 0, lesion.mask, lesion.skin)
        without, _ = draw_photograph(np.random.default_rng(seed), bare, (96, 96))
        change = np.abs(image.astype(int) - without).max(axis=-1)
        kernel = np.ones((25, 25), np.uint8)
        assert change[mask > 0].mean() > 15
        assert not change[cv2.dilate(mask, kernel) == 0].any()


def test_photographs_of_a_lesion_differ():
    lesion = draw_lesion(np.random.default_rng(0), "NV")
    first, second = (draw_photograph(np.random.default_rng(k), lesion, (64, 64)) for k in (1, 2))
    assert first[1].shape != second[1].shape or (first[1] != second[1]).mean() > 0.02


def test_every_photograph_of_a_lesion_is_of_that_lesion():
    photographs = [p for _, _, some in plan_photographs(14, 3, 0) for p in some]
    lesions = {(p.image.parent, p.lesion_id): p.lesion for p in photographs}
    assert all(p.lesion == lesions[p.image.parent, p.lesion_id] for p in photographs)
    assert len(set(lesions.values())) == len(lesions) == 2 * (14 + 3 + 3)
    seeds = [*(p.view for p in photographs), *lesions.values()]
    assert len({np.random.default_rng(seed).random() for seed in seeds}) == len(seeds)


def test_nothing_half_written(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_dataset(tmp_path, **SMALL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
