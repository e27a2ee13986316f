"""Folders as newcomers have them: each is read as it is meant, or refused by one message."""

import io
import json
import os
import shutil
import sys
import unicodedata

import cls_eval
import cls_predict
import cls_train
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_train
from PIL import Image

from datasets import pictures
from datasets.catalogue import open_dataset
from datasets.own_settings import OwnFolder
from misc_utils.errors import UserError
from training import run_folder

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")

SIZE = 32
KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".heic": "HEIF"}
NFC, NFD = (unicodedata.normalize(form, "Läsion ß") for form in ("NFC", "NFD"))


def encoded(array, name="a.png", **options):
    kind = KINDS.get(os.path.splitext(name)[1].lower(), os.path.splitext(name)[1][1:].upper())
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    stream = io.BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def photo(name, **options):
    """Of each name another one: grey, with a dark lesion where its mask has one."""
    noise = np.random.default_rng(list(name.encode())).integers(0, 20, (24, 32, 3), np.uint8)
    noise[~lesion()] += 150
    return encoded(noise, name, **options)


def lesion():
    shown = np.zeros((24, 32), bool)
    shown[6:18, 8:20] = True
    return shown


def mask(name, low=0, high=255, **options):
    return encoded(np.where(lesion(), high, low).astype(np.uint8), name, **options)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory; data/ and the other folders of the scripts lie elsewhere."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return here


def put(place, *names, **contents):
    """Files below a folder, by their names: masks where the name or folder says so, else photos."""
    for name in names:
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        is_mask = any(word in name.lower() for word in ("mask", "_seg", "_gt", "_lesion"))
        known = file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
        file.write_bytes((mask if is_mask else photo)(file.name) if known else b"no picture")


def write(file, text, encoding="utf-8"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))


def opened(place, images="photos", **told):
    return open_dataset(place.parent / "data", "folder", OwnFolder(images=images, **told))


def pairs(dataset):
    """Ids of images and masks as they are cached; each mask must show the lesion of its image."""
    images, masks = dataset.load_pairs(1, "training", SIZE)
    assert images.image_ids == masks.image_ids
    dark = images.array.mean(axis=-1) < 75
    assert (dark == masks[:][..., 0]).mean() > 0.97
    return list(images.image_ids)


def refused(match, place, task=1, **told):
    """One message that says `match`, before anything is written."""
    with pytest.raises(UserError, match=match) as caught:
        dataset = opened(place, **told)
        if task == 1:
            dataset.load_pairs(1, "training", SIZE)
        else:
            dataset.load_labels("training", list(dataset.list_images(3, "training")))
    assert not list(place.parent.glob("data/cache/*.npy"))
    return str(caught.value)


# Where images and masks lie, and how they are named

LAYOUTS = {
    "flat": (["photos/a.jpg", "photos/b.jpg", "masks/a.png", "masks/b.png"], {}, ["a", "b"]),
    "nested": (
        ["photos/x/y/a.jpg", "photos/b.png", "masks/x/y/a.png", "masks/b.png"],
        {},
        ["a", "b"],
    ),
    "masks in folders of their own": (
        ["photos/x/a.jpg", "photos/y/b.jpg", "masks/1/a.png", "masks/b.png"],
        {},
        ["a", "b"],
    ),
    "spaces": (
        ["photos/left arm (1).JPG", "photos/b c.jpg", "masks/left arm (1).png", "masks/B C.png"],
        {},
        ["b c", "left arm (1)"],
    ),
    "umlauts": (
        [f"photos/{NFD}.jpg", "photos/b.jpg", f"masks/{NFC}_mask.png", "masks/b.png"],
        {},
        [NFC, "b"],
    ),
    "formats": (
        [
            *("photos/a.jpg", "photos/b.JPEG", "photos/c.Png", "photos/d.bmp", "photos/e.TIF"),
            *("photos/f.webp", "photos/g.tiff", "masks/a.bmp", "masks/b.tif", "masks/c.PNG"),
            *("masks/d.jpg", "masks/e.png", "masks/f.png", "masks/g.webp"),
        ],
        {},
        list("abcdefg"),
    ),
    "endings": (
        [
            *(f"photos/{name}.jpg" for name in "abcdef"),
            *("masks/a_segmentation.png", "masks/b_mask.png", "masks/c_lesion.png"),
            *("masks/d_seg.png", "masks/e_GT.png", "masks/f.png"),
        ],
        {},
        list("abcdef"),
    ),
    "beside": (
        ["photos/a.jpg", "photos/a_mask.png", "photos/x/b.jpg", "photos/x/b_Mask.png"],
        {"masks": "photos"},
        ["a", "b"],
    ),
    "masks inside": (
        ["photos/a.jpg", "photos/b.jpg", "photos/masks/a.png", "photos/masks/b_mask.png"],
        {"masks": "photos/masks"},
        ["a", "b"],
    ),
    "images inside": (
        ["photos/in/a.jpg", "photos/in/b.jpg", "photos/a_mask.png", "photos/more/b_mask.png"],
        {"images": "photos/in", "masks": "photos"},
        ["a", "b"],
    ),
    "a folder per case": (
        [
            *("photos/1/image.jpg", "photos/1/image_mask.png"),
            *("photos/2/image.jpg", "photos/2/image_mask.png"),
        ],
        {"masks": "photos"},
        ["1__image", "2__image"],
    ),
    "same names in two folders": (
        [
            *("photos/x/a.jpg", "photos/y/a.jpg", "photos/b.jpg"),
            *("masks/x/a_mask.png", "masks/y__a.png", "masks/b.png"),
        ],
        {},
        ["b", "x__a", "y__a"],
    ),
    "what others leave": (
        [
            *("photos/a.jpg", "photos/b.jpg", "masks/a.png", "masks/b.png"),
            *("photos/._a.jpg", "photos/.hidden/c.jpg", "photos/__MACOSX/a.jpg"),
        ],
        {},
        ["a", "b"],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(place, name):
    files, told, expected = LAYOUTS[name]
    put(place, *files)
    for junk in ("photos/Thumbs.db", "photos/.DS_Store", "masks/desktop.ini", "photos/notes.txt"):
        write(place / junk, "junk")
    assert pairs(opened(place, **{"masks": "masks"} | told)) == sorted(expected)


def test_what_is_left_aside_is_said(place, caplog):
    caplog.set_level("INFO")
    put(place, "photos/a.jpg")
    for name in ("Thumbs.db", "x/a.gif", ".DS_Store"):
        write(place / "photos" / name, "junk")
    opened(place).list_images(1, "training")
    assert "left aside, no pictures by their names: 2: Thumbs.db, x/a.gif" in caplog.text


def test_links_to_folders_are_followed_once(place):
    put(place, "elsewhere/a.jpg", "photos/b.jpg")
    (place / "photos" / "linked").symlink_to(place / "elsewhere")
    (place / "photos" / "again").symlink_to(place / "elsewhere")
    (place / "elsewhere" / "up").symlink_to(place / "photos")
    assert list(opened(place).list_images(1, "training")) == ["a", "b"]
    (place / "photos" / "gone.jpg").symlink_to(place / "nothing")
    with pytest.raises(UserError, match=r"links to files that are not there.*gone\.jpg"):
        opened(place).list_images(1, "training")


# What masks hold


def palette(values):
    picture = Image.fromarray(np.where(lesion(), 1, 0).astype(np.uint8), "P")
    picture.putpalette(values)
    return picture


def painted(lesion_colour, skin_colour):
    colours = np.array([skin_colour, lesion_colour], np.uint8)
    return colours[lesion().astype(int)]


MASKS = {
    "0 and 1": mask("a.png", 0, 1),
    "0 and 255": mask("a.png"),
    "10 and 200": mask("a.png", 10, 200),
    "palette": encoded(palette([0, 0, 0, 128, 0, 0])),
    "two colours": encoded(painted((250, 240, 10), (0, 0, 120))),
    "16 bits": encoded(np.where(lesion(), 40_000, 7).astype(np.uint16)),
    "JPEG": mask("a.jpg", quality=60),
    "JPEG of 10 and 200": mask("a.jpg", 10, 200, quality=80),
    "WebP": mask("a.webp"),
    "WebP without loss": mask("a.webp", 3, 9, lossless=True),
    "BMP of one bit": encoded(Image.fromarray(lesion()), "a.bmp"),
    "opaque": encoded(painted((255, 255, 255, 255), (0, 0, 0, 255))),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_two_values(name):
    assert (pictures.read_any_mask(MASKS[name]) == lesion()).all()


def test_masks_of_one_value():
    for name in ("a.png", "a.jpg", "a.bmp"):
        assert pictures.read_any_mask(mask(name, 0, 0)).sum() == 0
        assert pictures.read_any_mask(mask(name, 255, 255)).all()


three = np.where(lesion(), 255, 0).astype(np.uint8)
three[0, :9] = 128
noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
WRONG_MASKS = {
    "three values": (encoded(three), "this one holds 0, 128, 255"),
    "a photograph": (encoded(noise, "a.jpg"), "two values only"),
    "shades as JPEG": (
        encoded(np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1)), "a.jpg"),
        "two",
    ),
    "nearly black": (mask("a.jpg", 0, 20), "two values only"),
    "equal brightness": (encoded(painted((76, 76, 76), (255, 0, 0))), "of the same brightness"),
    "three colours": (encoded(np.dstack([three, three, 0 * three + 9])), "this one holds"),
    "transparent": (encoded(painted((255, 255, 255, 255), (0, 0, 0, 0))), "transparent"),
    "text": (b"no picture", "no picture that can be read"),
}


@pytest.mark.parametrize("name", WRONG_MASKS)
def test_masks_that_are_none(place, name):
    content, message = WRONG_MASKS[name]
    put(place, "photos/a.jpg", "photos/b.jpg", "masks/b.png")
    (place / "masks" / "a.png").write_bytes(content)
    dataset = opened(place, masks="masks")
    images = dataset.load_images(1, "training", SIZE)
    with pytest.raises(UserError, match=message) as caught:
        dataset.load_masks(1, "training", SIZE, of=images)
    assert str(place / "masks" / "a.png") in str(caught.value)


def test_a_mask_is_as_upright_as_its_image(place):
    put(place, "photos/b.jpg", "masks/b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    (place / "photos" / "a.jpg").write_bytes(photo("a.jpg", exif=exif.tobytes()))
    file = place / "masks" / "a.png"
    file.write_bytes(encoded(np.rot90(lesion(), -1).astype(np.uint8) * 255))
    assert pairs(opened(place, masks="masks")) == ["a", "b"]
    put(place, "masks/a.png")  # not turned
    dataset = opened(place, masks="masks")
    with pytest.raises(UserError, match=r"a\.png.*32x24 pixels, its image 24x32.*upright"):
        dataset.load_pairs(1, "training", SIZE)


# What does not fit is refused, or left out and counted


def test_missing_masks(place, caplog):
    caplog.set_level("INFO")
    put(place, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "masks/b.png")
    said = refused(r"masks lacks a, c\..*--subset", place, masks="masks")
    assert "release" not in said
    assert pairs(opened(place, masks="masks", subset=True)) == ["b"]
    assert "1 of 3 images have a mask; the others are left out (--subset)" in caplog.text


def test_masks_without_an_image(place, caplog):
    caplog.set_level("INFO")
    put(place, "photos/a.jpg", "masks/a.png", "masks/z_mask.png", "masks/x/y.png")
    refused(r"masks: no image for x/y\.png, z_mask\.png.*--subset", place, masks="masks")
    assert pairs(opened(place, masks="masks", subset=True)) == ["a"]
    assert "masks without an image, left aside: 2: x/y.png, z_mask.png" in caplog.text


REFUSED = {
    "two masks of one image": (
        ["photos/a.jpg", "masks/a.png", "masks/a_mask.png"],
        {},
        r"two masks of one image: a \(a\.png, a_mask\.png\)",
    ),
    "masks named otherwise": (
        ["photos/a.jpg", "photos/b.jpg", "masks/1.png", "masks/2.png"],
        {},
        r"no mask in it is named as an image.*masks 1\.png, 2\.png.*images as a, b.*_segmentation",
    ),
    "no masks": (["photos/a.jpg", "masks/x/.png"], {}, r"no mask in it is named.*\(none\)"),
    "one stem, two formats": (
        ["photos/a.jpg", "photos/a.png", "masks/a.png"],
        {},
        r"a\.png.*a\.jpg has the same image id, a\.",
    ),
    "upper case only": (["photos/a.jpg", "photos/A.JPG"], {}, "has the same image id"),
    "masks not told": (
        ["photos/a.jpg", "photos/a_mask.png", "photos/b.jpg"],
        {"masks": None},
        r"named as masks of other images: a_mask\. Tell.*--masks",
    ),
    "no --masks": (["photos/a.jpg"], {"masks": None}, r"no masks of task 1\. Tell.*--masks\.$"),
    "no image": (["photos/a.txt"], {}, r"photos: no image in it\. Expected files ending in \.jpg"),
    "only masks": (["photos/a_mask.png"], {"masks": "photos"}, "no image in it"),
    "no folder": (["x/a.jpg"], {}, r"photos: expected a folder \(--images\), there is no such"),
    "a file": (["photos/a.jpg"], {"images": "photos/a.jpg"}, r"a\.jpg: expected.*this is a file"),
    "no masks folder": (["photos/a.jpg"], {"masks": "m"}, r"m: expected a folder \(--masks\)"),
    "no path": (["photos/a.jpg"], {"images": " "}, r"--images is empty"),
    "unknown home": (["photos/a.jpg"], {"images": "~nobody-here/a"}, "there is no such folder"),
    "too long": ([f"photos/{'a' * 210}.jpg"], {}, r"too long.*Rename.*200 bytes"),
    "long folders": ([f"photos/{'x' * 150}/{'y' * 150}/a.jpg", "photos/a.jpg"], {}, "too long"),
    "begins with a space": (["photos/ a.jpg"], {}, r"' a' is not an image id.*no dot or space"),
    "two endings": (["photos/a.jpg.png"], {}, "is the name of a file.*no ending of a picture"),
    "a line break": (["photos/a\nb.jpg"], {}, r"a\\n?b.*not printable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(place, name):
    files, told, message = REFUSED[name]
    (place / "masks").mkdir()
    put(place, *files)
    refused(rf"(?s){message}", place, **{"images": "photos", "masks": "masks"} | told)


def test_an_empty_folder(place):
    (place / "photos").mkdir()
    refused("photos: no image in it", place)


def test_a_text_named_as_a_picture(place):
    put(place, "photos/a.jpg", "photos/c.jpg")
    write(place / "photos" / "b.jpg", "no picture")
    with pytest.raises(UserError, match=r"1 of 3 files.*\n.*b\.jpg: no picture that can be read"):
        opened(place).load_images(1, "training", SIZE)
    assert not list(place.parent.glob("data/cache/*.npy"))


# Tables


def labelled(dataset):
    """{image id: name of its class}, as a training reads them."""
    labels = dataset.load_labels("training", list(dataset.list_images(3, "training")))
    return {image_id: dataset.classes[k] for image_id, k in labels.items()}


PHOTOS = ["photos/a.jpg", "photos/x/b.jpg", "photos/c d.jpg", f"photos/{NFD}.jpg"]
TRUTH = {"a": "mel", "b": "nv", "c d": "nv", NFC: "mel"}
TABLES = {
    "ids": f"image,dx\na,mel\nb,nv\nc d,nv\n{NFC},mel\n",
    "file names": f"file,class\na.jpg,mel\nb.jpg,nv\nc d.jpg,nv\n{NFD}.jpg,mel\n",
    "paths": f"path,label\nphotos/a.jpg,mel\nx/b.jpg,nv\nphotos\\c d.jpg,nv\n/u/{NFC}.jpg,mel\n",
    "one column per class": f"image,age,mel,nv\na,1,1,0\nb,0,0,1\nc d,1,0,1\n{NFC},0,1,0\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(place, name):
    put(place, *PHOTOS)
    write(place / "table.csv", TABLES[name])
    assert labelled(opened(place, table="table.csv")) == TRUTH


def test_a_table_by_excel(place):
    put(place, *PHOTOS)
    text = "Bild;Diagnose;Alter\r\na.jpg;Nävus;40\r\nb.jpg;Nävus;\r\nc d;Melanom;4,5\r\n"
    write(place / "table.csv", f"{text}{NFC};Melanom;50\r\n", "cp1252")
    dataset = opened(place, table="table.csv")
    assert labelled(dataset) == {"a": "Nävus", "b": "Nävus", "c d": "Melanom", NFC: "Melanom"}
    assert dataset.read_metadata("training")[0]["age"].tolist()[2] == 4.5


def test_a_label_column_and_an_order_are_told(place):
    put(place, *PHOTOS)
    lines = [f"{name},x,{dx},ja" for name, dx in TRUTH.items()]
    write(place / "table.csv", "\n".join(["photo,stage,what,sure", *lines]))
    dataset = opened(place, table="table.csv", label_column="What", classes=("nv", "bcc", "MEL"))
    labels = dataset.load_labels("training", list(TRUTH))
    assert labels == {"a": 2, "b": 0, "c d": 0, NFC: 2} and dataset.classes == ("nv", "bcc", "MEL")
    refused(r"nv, bcc", place, 3, table="table.csv", label_column="what", classes=("nv", "bcc"))


def test_classes_of_a_run_stay_in_their_order(place):
    """However the lines of the table are sorted by now."""
    put(place, *PHOTOS)
    write(place / "table.csv", TABLES["ids"])
    own = OwnFolder("photos", table="table.csv")
    dataset = open_dataset(place.parent / "data", "folder", own, classes=("nv", "mel"))
    assert dataset.read_labels("training")[0]["a"] == 1 and dataset.classes == ("nv", "mel")
    file = place.parent / "data" / "mine" / "dataset.json"
    paths = {"images": str(place / "photos"), "table": str(place / "table.csv")}
    for told in {}, {"classes": ["mel", "nv"]}, {"classes": ["MEL", "nv"]}:
        write(file, json.dumps(paths | told))
        dataset = open_dataset(place.parent / "data", "mine", classes=("nv", "mel"))
        assert labelled(dataset) == TRUTH and dataset.classes == ("nv", "mel")
    write(file, json.dumps(paths | {"classes": ["mel", "nv", "x"]}))
    with pytest.raises(
        UserError, match=r'"classes" in \S+: mel, nv, x; .*trained on nv, mel\. Put'
    ):
        open_dataset(place.parent / "data", "mine", classes=("nv", "mel"))


def test_a_class_named_as_a_column_of_the_scores(place):
    put(place, *PHOTOS)
    write(place / "table.csv", TABLES["ids"].replace("mel", "lesion"))
    refused(r"cannot be named lesion.*Rename it, such as Lesion", place, 3, table="table.csv")
    write(place / "table.csv", TABLES["ids"].replace("mel", "Lesion"))
    assert "Lesion" in labelled(opened(place, table="table.csv")).values()


def test_rows_and_images_that_lack_each_other(place, caplog):
    caplog.set_level("INFO")
    put(place, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "photos/d.jpg")
    write(place / "table.csv", "image,dx\na,mel\nz,nv\nb,nv\nc,\n")
    refused(r"table\.csv: no image for z\..*--subset", place, 3, table="table.csv")
    write(place / "rows.csv", "image,dx\na,mel\nb,nv\nc,nv\n")
    said = refused(r"rows\.csv lacks d\..*--subset", place, 3, table="rows.csv")
    assert "release" not in said
    dataset = opened(place, table="table.csv", subset=True)
    assert labelled(dataset) == {"a": "mel", "b": "nv"}
    assert "rows without an image, left aside: 1: z" in caplog.text
    assert "2 of 4 images have a label; the others are left out" in caplog.text
    put(place, "masks/a.png", "masks/b.png", "masks/d.png")  # d has no row
    dataset = opened(place, table="table.csv", masks="masks", subset=True)
    assert pairs(dataset) == ["a", "b"] and dataset.load_lesions(["a", "b"], 1)
    assert "2 of 4 images have a mask and a row" in caplog.text


def test_images_of_a_patient_stay_together(place):
    from datasets.folds import split_images, split_lesions

    names = [f"{k:02}" for k in range(20)]
    put(place, *(f"photos/{name}.jpg" for name in names), *(f"masks/{n}.png" for n in names))
    lines = [f"{name},{'mel' if k % 2 else 'nv'},{k % 7}" for k, name in enumerate(names)]
    write(place / "table.csv", "\n".join(["image,dx,who", *lines]))
    dataset = opened(place, masks="masks", table="table.csv", group_column="who")
    for task in (1, 3):
        lesions = dataset.load_lesions(names, task)
        labels = dataset.read_labels("training")[0]
        folds = split_images(names, 3, 0, lesions)
        if task == 3:
            folds = split_lesions(labels, lesions, 3, 0, dataset.classes)
        of_patient = folds.groupby(folds["image"].astype(int) % 7)["fold"].nunique()
        assert (of_patient == 1).all() and folds["fold"].nunique() == 3


def test_folders_are_classes(place, caplog):
    caplog.set_level("INFO")
    put(place, "photos/NV/a.jpg", "photos/NV/deep/b.jpg", f"photos/{NFD}/c.jpg")
    dataset = opened(place, table="folders")
    assert labelled(dataset) == {"a": "NV", "b": "NV", "c": NFC}
    assert dataset.classes == (NFC, "NV")[:: 1 if NFC < "NV" else -1]
    assert dataset.read_groups(3) is None
    assert opened(place, table="folders", classes=("nv", "x", NFC)).load_labels(
        "training", ["a", "b", "c"]
    ) == {"a": 0, "b": 0, "c": 2}
    refused(f"none of the classes NV: {NFC}", place, 3, table="folders", classes=("NV",))
    put(place, "photos/loose.jpg")
    refused("lacks loose.*folder of a class.*--subset", place, 3, table="folders")
    assert "loose" not in labelled(opened(place, table="folders", subset=True))


def test_folders_that_are_no_classes(place):
    put(place, "photos/train/nv/a.jpg", "photos/test/nv/b.jpg")
    refused("no classes but sets: test, train", place, 3, table="folders")
    put(place, "more/nv/a.jpg")
    refused("two classes or more, found nv", place, 3, images="more", table="folders")
    put(place, "more/NV/b.jpg")
    refused("two spellings: NV, nv", place, 3, images="more", table="folders")


def test_no_table(place):
    put(place, "photos/a.jpg")
    refused(r"no classes of its training images\. Tell.*--table\.$", place, 3)
    refused(r"table\.csv: expected a file \(--table\)", place, 3, table="table.csv")
    refused(r"photos: expected a file.*this is a folder", place, 3, table="photos")
    assert opened(place).load_lesions(["a"], 1) == {"a": "a"}
    with pytest.raises(UserError, match="has no test set, only training"):
        opened(place).list_images(3, "test")


# dataset.json


@pytest.fixture
def described(place):
    """A data set in data/ that has all parts, and a function that changes its dataset.json."""
    folder = place.parent / "data" / "mine"
    put(
        folder,
        "p/a.jpg",
        "p/b.jpg",
        "masks/a.png",
        "masks/b.png",
        "t/c.jpg",
        "t/d.jpg",
        "t_masks/c.png",
    )
    write(folder / "table.csv", "image,dx\na,nv\nb,mel\n")
    write(folder / "test.csv", "image,dx\nc,mel\nd,nv\n")

    def change(**content):
        write(folder / "dataset.json", json.dumps(content))
        return open_dataset(place.parent / "data", "mine")

    return change


WHOLE = {"images": "p", "masks": "masks", "table": "table.csv"}


def test_a_described_data_set(described):
    dataset = described(**WHOLE, test={"images": "t", "table": "test.csv"}, validation=None)
    assert dataset.sets == ("training", "test") and pairs(dataset) == ["a", "b"]
    assert labelled(dataset) == {"a": "nv", "b": "mel"}
    assert dataset.read_labels("test")[0] == {"c": 1, "d": 0}
    assert not dataset.has_masks(1, "test") and dataset.cache_name == "mine"
    dataset = described(**WHOLE, test={"images": "t", "masks": "t_masks"}, subset=True)
    with pytest.raises(UserError, match=r"lacks d\. Add each missing mask.*/t\.$"):
        dataset.find_masks(1, "test", ["c", "d"])  # a test set is scored as a whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": "p", "mask": "m"}, r"unknown: mask\. Expected.*masks"),
        ({"masks": "m"}, "images is missing"),
        ({"images": ""}, 'images must be text, not ""'),
        ({"images": "p\0"}, "character that no name has"),
        ({"images": ["p"]}, 'images must be text, not ."p".'),
        ({"images": "p", "classes": "nv"}, 'classes must be a list of names, not "nv"'),
        ({"images": "p", "classes": ["nv", 1]}, r'list of names, not \["nv", 1\]'),
        ({"images": "p", "subset": "yes"}, "subset must be true or false"),
        ({"images": "x"}, r'x: expected a folder \("images" in .*mine/dataset\.json\)'),
        ({"images": "p", "table": "x.csv"}, r'x\.csv: expected a file \("table" in'),
        ({"images": "p", "test": {"images": "t", "image_column": "f"}}, "unknown: image_column"),
        ({"images": "p", "test": "t"}, 'found "t", which is no object'),
        ({"images": "p", "test": {"images": "x"}}, "x: expected a folder"),
    ],
)
def test_a_description_that_is_wrong(described, content, message):
    with pytest.raises(UserError, match=message):
        described(**content)


def test_a_description_that_is_none(place):
    file = place.parent / "data" / "mine" / "dataset.json"
    for text, message in (("{'images': 1}", "double quotes: line 1"), ("[1]", "no object")):
        write(file, text)
        with pytest.raises(UserError, match=rf"mine/dataset\.json: .*{message}.*Correct the file"):
            open_dataset(place.parent / "data", "mine")


def test_hints_name_the_description(described):
    dataset = described(images="p", masks="t_masks")
    with pytest.raises(UserError, match=r"no mask in it is named"):
        dataset.load_pairs(1, "training", SIZE)
    with pytest.raises(UserError, match=r'Tell where they are with "table" in .*dataset\.json'):
        dataset.read_labels("training")


def test_names_of_data_sets(place, described):
    described(**WHOLE)
    data = place.parent / "data"
    with pytest.raises(
        UserError, match=r"--dataset other: choose one of isic2018.*folder, mine, or"
    ):
        open_dataset(data, "other")
    with pytest.raises(UserError, match="letters, digits and - only"):
        open_dataset(data, "../mine")
    with pytest.raises(UserError, match=r"belongs into .*dataset\.json"):
        open_dataset(data, "mine", OwnFolder("p"))
    with pytest.raises(UserError, match="for --dataset folder, not for ph2"):
        open_dataset(data, "ph2", OwnFolder("p"))
    with pytest.raises(UserError, match="needs --images"):
        open_dataset(data, "folder")
    shutil.copytree(data / "mine", data / "ph2")
    with pytest.raises(UserError, match="ph2 is the name of another data set"):
        open_dataset(data, "ph2")


# HEIC and DICOM

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100)
DICOM = bytes(128) + b"DICM" + bytes(100)


@pytest.mark.parametrize(
    ("content", "name", "package"),
    [(HEIC, "b.HEIC", "pillow-heif"), (HEIC, "b.heif", "pillow-heif"), (DICOM, "b.dcm", "pydicom")],
)
def test_formats_whose_package_is_missing(place, monkeypatch, content, name, package):
    for module in ("pillow_heif", "pydicom", "pydicom.pixels"):
        monkeypatch.setitem(sys.modules, module, None)
    put(place, "photos/a.jpg")
    (place / "photos" / name).write_bytes(content)
    said = refused(rf"install {package}: \S+ -m pip install --upgrade {package};", place)
    assert f"Files: 1: {name}." in said
    (place / "photos" / name).rename(place / "photos" / "b.jpg")  # found from its bytes
    with pytest.raises(UserError, match=rf"b\.jpg: .*install {package}"):
        opened(place).load_images(1, "training", SIZE)


def test_heic(place):
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    put(place, "photos/b.jpg", "masks/a.png", "masks/b.png")
    (place / "photos" / "a.heic").write_bytes(photo("a.heic", quality=90))
    assert pairs(opened(place, masks="masks")) == ["a", "b"]
    turned = photo("a.heic", quality=90, exif=exif.tobytes())
    assert pictures.read_image(turned)[0].shape == (32, 24, 3)
    with pytest.raises(ValueError, match="damaged or cut off"):
        pictures.read_image(turned[:-60])


def dicom(values, kind="MONOCHROME2", bits=8):
    """A DICOM file by hand: explicit lengths, little endian, not compressed."""
    pydicom = pytest.importorskip("pydicom")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows, file.Columns = values.shape[-3:-1]
    file.SamplesPerPixel, file.PhotometricInterpretation = values.shape[-1], kind
    if values.shape[-1] > 1:
        file.PlanarConfiguration = 0
    file.NumberOfFrames = len(values) if values.ndim == 4 else 1
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * values.itemsize, bits, bits - 1
    file.PixelRepresentation, file.PixelData = 0, values.tobytes()
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_dicom(place):
    rgb = np.asarray(Image.open(io.BytesIO(photo("a.png"))))
    read = pictures.read_image(dicom(rgb, "RGB"))
    assert (read[0] == rgb).all() and read[1:] == (24, 32)
    grey = rgb[..., :1]
    assert (pictures.read_image(dicom(grey))[0] == grey).all()
    assert (pictures.read_image(dicom(grey, "MONOCHROME1"))[0] == 255 - grey).all()
    assert (pictures.read_image(dicom(np.stack([grey, 0 * grey])))[0] == grey).all()
    twelve = grey.astype(np.uint16) * 4 + 1000
    shown = pictures.read_image(dicom(twelve, bits=12))[0].astype(int)
    assert shown.min() == 0 and shown.max() == 255
    assert np.abs(shown - (grey.astype(float) - grey.min()) * 255 / np.ptp(grey)).max() <= 0.5
    assert (pictures.read_any_mask(dicom(lesion()[..., None].astype(np.uint8))) == lesion()).all()
    put(place, "photos/b.jpg", "masks/a.png", "masks/b.png")
    (place / "photos" / "a.dcm").write_bytes(dicom(rgb, "RGB"))
    assert pairs(opened(place, masks="masks")) == ["a", "b"]
    with pytest.raises(ValueError, match="of the kind PALETTE COLOR"):
        pictures.read_image(dicom(grey, "PALETTE COLOR"))
    with pytest.raises(ValueError, match="no DICOM picture that can be read"):
        pictures.read_image(dicom(rgb, "RGB")[:-100])
    with pytest.raises(ValueError, match="holds no picture"):
        pictures.read_image(dicom(rgb, "RGB")[:300])


def test_dicom_that_is_compressed():
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    with open(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm", download=False), "rb") as file:
        assert pictures.read_image(file.read())[0].shape == (100, 100, 3)
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless).is_available:
        pytest.skip("JPEG-LS can be read here")
    with open(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False), "rb") as file:
        content = file.read()
    with pytest.raises(ValueError, match=r"as JPEG-LS Lossless.*install 'pylibjpeg\[all\]'"):
        pictures.read_image(content)


# The scripts

TRAIN = ("--backbone", "tiny", "--image-size", SIZE, "--epochs", 1, "--batch-size", 4)
TRAIN += ("--num-folds", 2)
NAMES = [f"{name}{k}" for k in range(4) for name in ("left arm ", "ä", "c")]
FOLDER = ("--dataset", "folder")


def done(outcome):
    code, out, err = outcome
    assert code == 0, err
    return out


def photos_with_all(place):
    """Images, masks beside them, and a table: what a training needs."""
    put(place, *(f"photos/{name}.jpg" for name in NAMES), *(f"masks/{n}_mask.png" for n in NAMES))
    lines = [f"{name}.jpg;{('nv', 'mel', 'x')[k % 3]};{k // 2}" for k, name in enumerate(NAMES)]
    write(place / "table.csv", "\r\n".join(["Bild;Klasse;Patient", *lines]), "cp1252")


def test_segmentation_of_an_own_folder(place, run_script, monkeypatch):
    photos_with_all(place)
    told = (*FOLDER, "--images", "photos", "--masks", "masks")
    done(run_script(seg_train, *told, *TRAIN))
    runs = run_folder.find_runs(
        place.parent / "root" / "model_data", 1, "tiny", "0", None, "folder"
    )
    assert [run.name for run in runs] == [f"folder_task1_tiny_k{k}_v0" for k in range(2)]
    assert runs[0].settings["own"]["images"] == str(place / "photos")
    assert runs[0].settings["own"]["masks"] == str(place / "masks")
    assert runs[0].settings["own"]["table"] is None

    # scored without flags, from another directory
    monkeypatch.chdir("/")
    score = (*FOLDER, "--backbone", "tiny", "--k-fold", "all")
    assert "mean jaccard" in done(run_script(seg_eval, *score))

    # the folder was moved: one message; training goes on from where it lies now
    monkeypatch.chdir(place)
    (place / "photos").rename(place / "moved")
    code, _, err = run_script(seg_eval, *score)
    assert code == 1 and err.count("\n") == 1
    assert f"{place / 'photos'}: expected a folder" in err and "settings.json" in err
    told = (*FOLDER, "--images", "moved", "--masks", "masks")
    done(run_script(seg_train, *told, *TRAIN, "--epochs", 2))
    assert "mean jaccard" in done(run_script(seg_eval, *score))

    # or settings.json is edited
    (place / "moved").rename(place / "once more")
    for file in (place.parent / "root" / "model_data").glob("*/settings.json"):
        file.write_text(file.read_text().replace(str(place / "moved"), str(place / "once more")))
    assert "mean jaccard" in done(run_script(seg_eval, *score))

    # other pictures are another training
    put(place, "once more/new.jpg", "masks/new.png")
    told = (*FOLDER, "--images", "once more", "--masks", "masks")
    code, _, err = run_script(seg_train, *told, *TRAIN, "--epochs", 3)
    assert code == 1 and "the images in data/" in err and "--version" in err


def test_classes_of_an_own_folder(place, run_script):
    photos_with_all(place)
    told = (*FOLDER, "--images", "photos", "--table", "table.csv", "--lesion-view", "whole")
    done(run_script(cls_train, *told, *TRAIN))
    root = place.parent / "root"
    run = run_folder.find_runs(root / "model_data", 3, "tiny", "0", [0], "folder")[0]
    assert run.classes == ("nv", "mel", "x") and run.settings["own"]["table"].startswith("/")
    folds = run_folder.load_folds(run)
    assert (folds.groupby("lesion")["fold"].nunique() == 1).all() and folds["lesion"].nunique() == 6
    which = (*FOLDER, "--backbone", "tiny")
    assert "balanced accuracy" in done(run_script(cls_eval, *which, "--k-fold", "all"))
    done(run_script(cls_predict, *which, "--pred-set", "training"))
    table = pd.read_csv(root / "submissions" / "folder_task3_training_submission.csv")
    assert table["image"].tolist() == sorted(NAMES)
    assert list(table.columns) == ["image", "nv", "mel", "x"]
    code, _, err = run_script(cls_predict, *which, "--pred-set", "test")
    assert code == 1 and "no test set, only training" in err and err.count("\n") == 1


def test_a_described_data_set_with_a_test_set(place, run_script):
    folder = place.parent / "root" / "data" / "mine"
    photos_with_all(folder)
    put(folder, "test/1.png", "test/2.png")
    content = {"images": "photos", "table": "table.csv", "test": {"images": "test"}}
    write(folder / "dataset.json", json.dumps(content))
    which = ("--dataset", "mine")
    done(run_script(cls_train, *which, "--lesion-view", "whole", *TRAIN))
    done(run_script(cls_predict, *which, "--backbone", "tiny", "--pred-set", "test"))
    table = pd.read_csv(place.parent / "root" / "submissions" / "mine_task3_test_submission.csv")
    assert table["image"].tolist() == [1, 2] and len(table.columns) == 4


@pytest.fixture
def two_sets(place):
    """Training and test images of the same names, numbers for patients, one of them in both."""
    folder = place.parent / "root" / "data" / "mine"
    names = [str(k) for k in range(12)]
    put(folder, *(f"train/{name}.png" for name in names), *(f"test/{k}.png" for k in range(4)))
    for k in range(4):  # put draws the same picture for the same name
        (folder / f"test/{k}.png").write_bytes(photo(f"other{k}.png"))
    training = [f"{name},{('nv', 'mel')[k % 2]},{100 + k // 2}" for k, name in enumerate(names)]
    write(folder / "train.csv", "\n".join(["image,label,patient", *training]))
    write(folder / "test.csv", "image,label,patient\n0,nv,5\n1,mel,5\n2,nv,6\n3,mel,\n")
    test = {"images": "test", "table": "test.csv"}
    content = {"images": "train", "table": "train.csv", "test": test}
    write(folder / "dataset.json", json.dumps(content))
    return folder


def test_what_belongs_together_in_two_sets(two_sets, caplog):
    def related(set_name):
        return open_dataset(two_sets.parent, "mine").find_related(3, set_name, 3)

    # of training images their patient's; equal names in another set mean nothing, nor does a
    # patient named as an image
    assert related("training")["4"] == {"4", "5"}
    assert related("test") == {"0": set(), "1": set(), "2": set(), "3": set()}
    # the same picture under the same name, or another one, and its patient; a patient of both sets
    shutil.copy(two_sets / "train" / "0.png", two_sets / "test" / "0.png")
    shutil.copy(two_sets / "train" / "7.png", two_sets / "test" / "1.png")
    write(two_sets / "test.csv", "image,label,patient\n0,nv,5\n1,mel,5\n2,nv,103\n3,mel,\n")
    assert related("test") == {"0": {"0", "1"}, "1": {"6", "7"}, "2": {"6", "7"}, "3": set()}
    # lesions in the other table are no patients, and rows without an image are no error
    write(two_sets / "test.csv", "image,label,lesion\n0,nv,5\n1,mel,5\n2,nv,103\n9,mel,\n")
    assert related("test")["2"] == set()
    assert "no column like patient, which groups training images. So it is not known" in caplog.text
    write(two_sets / "test.csv", "image,Patienten-ID\n2,103\n9,5\n")
    assert related("test")["2"] == {"6", "7"}
    # copies bring in the patient of the other file
    shutil.copy(two_sets / "train" / "3.png", two_sets / "train" / "9.png")
    assert related("training")["2"] == {"2", "3", "8", "9"}


def test_what_belongs_together_without_training_images(place, monkeypatch):
    """A net is used where the images that it was trained on are not."""
    data = place.parent / "root" / "data"
    put(data, "ISIC_2020_Test_Input/ISIC_0052060.jpg")
    write(data / "ISIC_2020_Test_Metadata.csv", "image,patient\nISIC_0052060,IP_1\nISIC_1,IP_2\n")
    related = open_dataset(data, "isic2020").find_related(3, "test", 3)
    assert related == {"ISIC_0052060": {"ISIC_0052060"}}
    put(data, "train/ISIC_2.jpg", "train/ISIC_3.jpg")
    lines = "ISIC_2,IP_1,benign\nISIC_3,IP_3,benign\n"
    write(
        data / "ISIC_2020_Training_GroundTruth.csv",
        "image_name,patient_id,benign_malignant\n" + lines,
    )
    related = open_dataset(data, "isic2020").find_related(3, "test", 3)
    assert related == {"ISIC_0052060": {"ISIC_0052060", "ISIC_2"}}


def test_patients_of_a_test_set(two_sets, place, run_script):
    which = ("--dataset", "mine")
    done(run_script(cls_train, *which, "--lesion-view", "whole", *TRAIN))
    score = (*which, "--backbone", "tiny", "--k-fold", "all", "--eval-set", "test")
    assert "4 images" in done(run_script(cls_eval, *score))
    (file,) = (place.parent / "root" / "model_data").glob("mine_task3_tiny_v0/*scores_test.csv")
    assert pd.read_csv(file, dtype=str)["lesion"].tolist() == ["5", "5", "6", "3"]
    write(two_sets / "test.csv", "image,label,patient\n0,nv,5\n1,mel,5\n2,nv,103\n3,mel,\n")
    code, _, err = run_script(cls_eval, *score)
    assert code == 1 and "such as 2 (the same picture, lesion or patient as 6)" in err
    # whoever is of a patient in training is predicted by the nets that held it out
    done(run_script(cls_predict, *which, "--backbone", "tiny", "--pred-set", "test"))
    made_by = place.parent / "root" / "submissions" / "mine_task3_test_submission.json"
    groups = json.loads(made_by.read_text())["made_by"]["images_by_nets"]
    assert sorted(len(names.split()) for names in groups) == [1, 2]
    assert [ids for names, ids in groups.items() if len(names.split()) == 1] == [["2"]]
