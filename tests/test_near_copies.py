"""Photographs that are nearly the same: found whatever was done to them, grouped where asked."""

import io

import cls_train
import cv2
import find_near_copies
import numpy as np
import pandas as pd
import pytest
import seg_train
from PIL import Image

from datasets import near_copies
from datasets.cache import Cached
from datasets.catalogue import open_dataset
from datasets.folds import split_images
from datasets.ISIC2018 import ISIC2018
from datasets.own_settings import OwnFolder
from misc_utils.errors import UserError
from training import run_folder

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")

TINY = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8, "workers": 1}
IMAGES = "ISIC2018_Task1-2_Training_Input"


def squares(pictures) -> Cached:
    array = np.stack([cv2.resize(p, (96, 96), interpolation=cv2.INTER_AREA) for p in pictures])
    ids = tuple(f"ISIC_{k:03d}" for k in range(len(array)))
    return Cached(ids, array, np.zeros(len(ids)), np.zeros(len(ids)), "f")


@pytest.fixture(scope="module")
def photographs(drawn_data):
    return [
        np.asarray(Image.open(file).convert("RGB"))
        for file in sorted((drawn_data / IMAGES).glob("*.jpg"))
    ]


def recompressed(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def cropped(picture):
    height, width = (side // 50 for side in picture.shape[:2])
    return picture[height:-height, width:-width]


VARIANTS = {
    "recompressed": recompressed,
    "rescaled": lambda p: cv2.resize(p, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "a quarter turn": lambda p: np.rot90(p),
    "mirrored": lambda p: p[:, ::-1],
    "mirrored and turned": lambda p: np.rot90(p[:, ::-1], 3),
    "brighter": lambda p: cv2.convertScaleAbs(p, alpha=1.1, beta=5),
    "cropped a little": cropped,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_changed_copy_is_found_and_no_other_pair(name, photographs):
    copy = np.ascontiguousarray(VARIANTS[name](photographs[5]))
    table = near_copies.find_near_copies(squares([*photographs, copy]), 0.75)
    assert table[["image", "other"]].to_numpy().tolist() == [
        ["ISIC_005", f"ISIC_{len(photographs):03d}"]
    ]
    assert table["similarity"].iloc[0] <= 1 + 1e-5


def test_pairs_are_found_across_blocks(photographs, monkeypatch):
    monkeypatch.setattr(near_copies, "BLOCK", 4)
    table = near_copies.find_near_copies(squares([*photographs, *photographs[::-1]]), 0.999)
    count = len(photographs)
    expected = {(k, 2 * count - 1 - k) for k in range(count)}
    found = {(int(a[5:]), int(b[5:])) for a, b in table[["image", "other"]].to_numpy()}
    assert found == expected


def test_a_black_strip_at_the_same_edge_is_no_likeness(photographs):
    striped = [picture.copy() for picture in photographs]
    for picture in striped:
        picture[-4:] = 0
    assert len(near_copies.find_near_copies(squares(striped), 0.75)) == 0


def test_pictures_without_detail_are_like_nothing():
    flat = [np.full((96, 96, 3), shade, np.uint8) for shade in (0, 90, 90)]
    assert len(near_copies.find_near_copies(squares(flat), 0.1)) == 0


def make_near_copy(root, folder, ending=""):
    """The second image of a folder becomes a recompressed copy of the first."""
    first, second = sorted((root / "data" / folder).glob("*.jpg"))[:2]
    picture = Image.open(first)
    picture.save(second, quality=60)
    return first.stem, second.stem


def test_listed_pairs_share_a_fold_where_asked_for(root, run_script):
    first, second = make_near_copy(root, IMAGES)
    truth = root / "data" / "ISIC2018_Task1_Training_GroundTruth"
    Image.open(truth / f"{first}_segmentation.png").save(truth / f"{second}_segmentation.png")
    flags = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--near-copies")
    code, _, err = run_script(seg_train, *flags)
    assert code == 1 and "near_copies_task1_training.csv does not exist" in err
    assert "find_near_copies.py --task 1" in err
    code, out, err = run_script(find_near_copies, "--task", 1, "--image-size", 96)
    assert code == 0 and "1 pairs of 28 images" in out, err
    file = root / "data" / "near_copies_task1_training.csv"
    code, _, err = run_script(find_near_copies, "--task", 1, "--image-size", 96)
    assert code == 1 and "may have been deleted from it. Add --overwrite" in err
    table = pd.read_csv(file)
    assert table[["image", "other"]].to_numpy().tolist() == [[first, second]]
    assert file.with_suffix(".png").exists()

    # a seed by which they would lie in two folds
    images = ISIC2018(root / "data").list_images(1, "training")
    splits = [split_images(list(images), 2, seed).set_index("image")["fold"] for seed in range(9)]
    seed = [fold[first] == fold[second] for fold in splits].index(False)
    settings = TINY | {"num_folds": 2, "folds": (0,), "epochs": 1, "near_copies": True}
    seg_train.main(seg_train.Settings(**settings, seed=seed))
    run = run_folder.find_runs(root / "model_data", 1, "tiny", "0", [0])[0]
    rows = run_folder.load_folds(run).set_index("image").loc[[first, second]]
    assert rows["fold"].nunique() == rows["lesion"].nunique() == 1


def test_diagnoses_are_grouped_too_and_the_script_says_what_the_table_knows(root, run_script):
    first, second = make_near_copy(root, "ISIC2018_Task3_Training_Input")
    code, out, _ = run_script(find_near_copies, "--image-size", 96)
    assert code == 0 and "0 of them show the same lesion by the table" in out
    lesions = ISIC2018(root / "data").load_lesions([first, second])
    assert lesions[first] != lesions[second]
    joined = ISIC2018(root / "data").load_lesions([first, second], near_copies=True)
    assert joined[first] == joined[second]
    cls_train.main(
        cls_train.Settings(**TINY, num_folds=2, epochs=1, lesion_view="whole", near_copies=True)
    )


@pytest.mark.parametrize("text", ["", "image;other\n", "image,another\na,b\n", "\x00"])
def test_a_table_that_cannot_be_read_is_refused(text, tmp_path):
    file = tmp_path / "near_copies_task3_training.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"columns image and other are expected.*--task 3"):
        near_copies.read_near_copies(file, ["a", "b"], 3)


def test_pairs_of_images_that_are_not_there(tmp_path, caplog):
    file = tmp_path / "near_copies_task3_training.csv"
    file.write_text("image,other,similarity\na,b,0.9\na,gone,0.8\n")
    assert near_copies.read_near_copies(file, ["a", "b", "c"], 3) == [("a", "b")]
    assert "not there, left out: 1: a = gone" in caplog.text
    told = ("--dataset", "folder", "--images", "p")
    with pytest.raises(
        UserError, match=r"none of its 2 pairs.*--task 1 --dataset folder --images p"
    ):
        near_copies.read_near_copies(file, ["x"], 1, told)


def test_each_own_folder_has_a_table_of_its_own(tmp_path):
    one, other = (
        open_dataset(tmp_path, "folder", OwnFolder(images=str(make_folder(tmp_path / name))))
        for name in ("one", "other")
    )
    assert one.near_copies_file(1) != other.near_copies_file(1)
    assert one.near_copies_file(1) == one.near_copies_file(2)  # of the same images
    with pytest.raises(UserError, match=f"--task 1 --dataset folder --images {tmp_path}/one"):
        one.load_lesions(["a"], 2, near_copies=True)


def make_folder(folder):
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder
