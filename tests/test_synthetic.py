import csv
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.challenge import ATTRIBUTES
from datasets.synthetic import (
    LOOKS,
    Lesion,
    class_counts,
    draw_attributes,
    draw_dataset,
    draw_lesion,
    draw_photograph,
)
from datasets.synthetic.plan import plan_photographs
from misc_utils import files
from misc_utils.errors import UserError

CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
SETS = ("Training", "Validation", "Test")
MARKED = {s: f"ISIC2018_Task2_{s}_GroundTruth{'_v3' * (s == 'Training')}" for s in SETS}
SHOWN = {
    "MEL": {"negative_network", "streaks"},
    "NV": {"pigment_network"},
    "BCC": {"globules"},
    "BKL": {"globules", "milia_like_cyst"},
    "DF": {"pigment_network"},
}
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
    truths |= set(MARKED.values())
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
def test_every_image_has_a_mask_of_each_attribute(data, images):
    assert ATTRIBUTES == (
        *("globules", "milia_like_cyst", "negative_network"),
        *("pigment_network", "streaks"),
    )
    photographs = next(
        some
        for task, in_set, some in plan_photographs(14, 3, 0)
        if (task, in_set) == (1, images.lower())
    )
    expected = {f"{p.image_id}_attribute_{name}.png" for p in photographs for name in ATTRIBUTES}
    folder = data / MARKED[images]
    assert {file.name for file in folder.glob("*.png")} == expected
    for photograph in photographs:
        lesion, shown = cv2.imread(str(data / photograph.mask), cv2.IMREAD_UNCHANGED), set()
        for name in ATTRIBUTES:
            with Image.open(folder / f"{photograph.image_id}_attribute_{name}.png") as file:
                assert file.format == "PNG" and file.mode == "L"
                mask = np.asarray(file)
            assert mask.shape == lesion.shape and set(np.unique(mask)) <= {0, 255}
            assert not (mask & ~lesion).any()
            shown |= {name} if mask.any() else set()
        assert shown == SHOWN.get(photograph.diagnosis, set())


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
    assert {f for f, time in before.items() if f.stat().st_mtime_ns != time} == {mask, labels}


@pytest.fixture
def earlier(data, tmp_path):
    """The same data as drawn before there were attributes."""
    folder = tmp_path / "earlier"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("ISIC2018_Task2_*"))
    marker = folder / "SYNTHETIC.txt"
    lines = marker.read_text().splitlines(keepends=True)
    marker.write_text("".join(line for line in lines if "ISIC2018_Task2_" not in line))
    return folder


def test_attributes_are_added_to_what_was_drawn_without(data, earlier):
    before = {f: f.stat().st_mtime_ns for f in earlier.rglob("*") if f.is_file()}
    assert len(before) == len(contents(data)) - 5 * 20 - 2 * 3
    draw_dataset(earlier, **SMALL)
    assert contents(earlier) == contents(data)
    changed = {f.name for f, time in before.items() if f.stat().st_mtime_ns != time}
    assert changed == {"SYNTHETIC.txt"}


def test_attributes_not_drawn_are_left_alone(earlier):
    folder = earlier / MARKED["Training"]
    folder.mkdir()
    (folder / "ISIC_0000001_attribute_streaks.png").touch()
    before = contents(earlier)
    with pytest.raises(UserError, match=rf"{folder.name} exists and was not drawn"):
        draw_dataset(earlier, **SMALL)
    assert contents(earlier) == before


def test_a_marker_of_more_or_other_files_is_refused(earlier):
    marker = earlier / "SYNTHETIC.txt"
    text = marker.read_text()
    for wrong in (text + "ISIC2018_Task4/another.png\n", text.replace("format: 1", "format: 2")):
        marker.write_text(wrong)
        before = contents(earlier)
        with pytest.raises(UserError, match="older version"):
            draw_dataset(earlier, **SMALL)
        assert contents(earlier) == before


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


@pytest.mark.parametrize("diagnosis", CLASSES)
def test_attributes_lie_in_the_photograph_where_they_were_painted(diagnosis):
    for seed in range(4):
        lesion = draw_lesion(np.random.default_rng(seed), diagnosis)
        assert set(lesion.attributes) == SHOWN.get(diagnosis, set())
        size = (160, 200)
        image, mask = draw_photograph(np.random.default_rng(seed), lesion, size)
        masks = draw_attributes(np.random.default_rng(seed), lesion, size)
        assert list(masks) == list(ATTRIBUTES)
        for name, marked in masks.items():
            assert marked.dtype == np.uint8 and marked.shape == mask.shape
            if name not in lesion.attributes:
                assert not marked.any()
                continue
            assert set(np.unique(marked)) == {0, 255} and not (marked & ~mask).any()
            # the same view of a lesion that is cyan where the attribute is
            painted = lesion.attributes[name]
            assert not (painted & ~lesion.mask).any()
            colour = np.where(painted[..., None] > 0, np.float32([0, 1, 1]), lesion.colour)
            other, _ = draw_photograph(
                np.random.default_rng(seed), replace(lesion, colour=colour), size
            )
            changed = np.abs(image.astype(int) - other).max(axis=-1) > 60
            either = (changed | (marked > 0)).sum()
            assert (changed & (marked > 0)).sum() / either > 0.75, (name, seed)


def test_attributes_are_what_is_seen():
    def looks(diagnosis, seed):
        lesion = draw_lesion(np.random.default_rng(seed), diagnosis)
        inside = (lesion.mask > 0) & (lesion.cover > 0.6)
        marked = {name: mask > 0 for name, mask in lesion.attributes.items()}
        return lesion.colour, lesion.colour.mean(axis=-1), inside, marked

    for seed in range(4):
        _, grey, inside, marked = looks("BKL", seed)
        brightest = inside & (grey > np.quantile(grey[inside], 0.99))
        darkest = inside & (grey < np.quantile(grey[inside], 0.01))
        assert marked["milia_like_cyst"][brightest].mean() > 0.85
        assert marked["globules"][darkest].mean() > 0.85
        colour, _, inside, marked = looks("BCC", seed)
        blue = colour[..., 2] - colour[..., 0]
        nests = inside & (blue > np.quantile(blue[inside], 0.97))
        assert marked["globules"][nests].mean() > 0.95
        _, grey, inside, marked = looks("MEL", seed)
        streaks, net = inside & marked["streaks"], inside & marked["negative_network"]
        assert grey[streaks].mean() < 0.9 * grey[inside & ~marked["streaks"]].mean()
        assert grey[net].mean() > 1.15 * grey[inside & ~marked["negative_network"]].mean()
        outline = cv2.dilate((~inside).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (marked["streaks"] & outline).any() and not (streaks & net).any()
        for diagnosis in ("NV", "DF"):
            _, grey, inside, marked = looks(diagnosis, seed)
            centre = inside & ~marked["pigment_network"]
            ring = inside & marked["pigment_network"]
            assert 0.6 < ring.sum() / inside.sum() < 0.9
            fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 6)) / grey
            if diagnosis == "NV":
                assert fine[ring].mean() > 1.1 * fine[centre].mean()
            else:
                assert grey[ring].mean() < 0.85 * grey[centre].mean()


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
