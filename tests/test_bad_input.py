"""What a user can get wrong in data/ and in flags: one message that names it and the fix.

Nothing is half-done then. What can be understood all the same is read as a person would read it.
"""

import errno
import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cls_eval
import cls_predict
import cls_train
import cls_tune
import cls_views
import compare
import cv2
import find_near_copies
import numpy as np
import pytest
import seg_eval
import seg_predict
import seg_train
import seg_tune
import sweep
from PIL import Image

from datasets import pictures
from datasets.ISIC2018 import ISIC2018, preprocess_data, raw
from misc_utils.errors import UserError

TRAIN = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--epochs", 1)
WHOLE = (*TRAIN, "--lesion-view", "whole")
SMALL = ("--image-size", 32)
IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"
LABELS = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
GROUPS = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_LesionGroupings.csv"


class Case(NamedTuple):
    """A refusal: what is spoiled, the script that meets it, and a pattern of its message."""

    spoil: Callable[[Path], tuple[str, ...] | None] | None  # gives what the message must name
    script: Any
    flags: tuple
    message: str


def files(data, folder, ending=""):
    return sorted((data / folder).glob(f"*{ending}"))


def encoded(picture, kind="PNG", **options):
    if isinstance(picture, np.ndarray):
        if picture.dtype == np.uint16 and picture.ndim == 3:  # Pillow cannot write it
            return cv2.imencode(f".{kind.lower()}", picture[..., ::-1])[1].tobytes()
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def remove_data(data):
    data.rename(data.with_name("elsewhere"))


def empty_folder(data):
    for file in files(data, IMAGES):
        file.unlink()


def image(change, folder=IMAGES, also=()):
    """A spoiler of the third file: `change` gives its new bytes from those of before."""

    def spoil(data):
        file = files(data, folder, ".jpg" if folder == IMAGES else ".png")[2]
        file.write_bytes(change(file.read_bytes()))
        return (file.name, *also)

    return spoil


def opened(change, kind="PNG", **options):
    """`change` of the picture instead of the bytes."""
    return lambda content: encoded(change(Image.open(io.BytesIO(content))), kind, **options)


def mask(change, *also):
    """A spoiler of a mask: `change` gives the new pixels or picture from those of before."""
    return image(opened(lambda picture: change(np.array(picture))), MASKS, also)


def changed(where, value):
    def change(pixels):
        pixels[where] = value
        return pixels

    return change


def spoil_two_images(data):
    first, second = files(data, IMAGES, ".jpg")[2:4]
    first.write_bytes(first.read_bytes()[:700])
    second.write_bytes(b"")
    return first.name, second.name


def claims(width, height):
    """A PNG of some bytes that says to be of that size."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(b"\0" * 1000)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return lambda content: b"\x89PNG\r\n\x1a\n" + parts


def half_transparent(picture):
    picture.putalpha(Image.new("L", picture.size, 90))
    return picture


def palette_with_hole(picture):
    return picture.quantize(16)


def moving(content):
    first = Image.open(io.BytesIO(content))
    return encoded(first, save_all=True, append_images=[first.rotate(180)])


def replaced(make, folder=IMAGES):
    """A spoiler: another thing in place of the third file."""

    def spoil(data):
        file = files(data, folder, ".jpg")[2]
        file.unlink()
        make(file)
        return (file.name,)

    return spoil


def second_file(name_of):
    """A spoiler: a copy of the third image under another name."""

    def spoil(data):
        file = files(data, IMAGES, ".jpg")[2]
        copy = file.with_name(name_of(file))
        copy.write_bytes(file.read_bytes())
        return copy.name, file.stem

    return spoil


def damaged_png(content):
    """The picture as PNG whose first compressed byte is another; its checksum fits."""
    png = encoded(Image.open(io.BytesIO(content)).convert("L"))
    start = png.index(b"IDAT")
    length = int.from_bytes(png[start - 4 : start], "big")
    chunk = bytearray(png[start : start + 4 + length])
    chunk[6] ^= 0x06  # the kind of the first block
    checksum = zlib.crc32(chunk).to_bytes(4, "big")
    return png[:start] + bytes(chunk) + checksum + png[start + 8 + length :]


def lower_case(data):
    file = files(data, IMAGES, ".jpg")[2]
    file.rename(file.with_name(file.name.lower()))
    return file.stem.lower(), file.stem


def one_deeper(folder):
    """A spoiler: unzipped into a folder that was named like the archive's own."""

    def spoil(data):
        inner = data / folder / folder
        inner.mkdir()
        for file in files(data, folder, ".*"):
            if file.is_file():
                file.rename(inner / file.name)
        return (str(inner),)

    return spoil


def mask_in_capitals(data):
    file = files(data, MASKS, ".png")[2]
    file.rename(file.with_name(file.name.replace("_seg", "_Seg")))
    return file.name, file.name.replace("_seg", "_Seg")


def remove_mask(data):
    file = files(data, MASKS, ".png")[1]
    file.unlink()
    return (file.name[:12],)


def mask_of_none(data):
    file = files(data, MASKS, ".png")[1]
    (file.parent / "ISIC_9000000_segmentation.png").write_bytes(file.read_bytes())
    return ("ISIC_9000000",)


def lines(change, file=LABELS, named=True):
    """A spoiler of the lines of a table; the id of its row 3 is in the message where `named`."""

    def spoil(data):
        path = data / file
        rows = path.read_text().splitlines()
        image_id = rows[3].split(",")[0]
        path.write_text("\n".join(change(rows)) + "\n")
        return (path.name, image_id) if named else (path.name,)

    return spoil


def row(change, file=LABELS, named=True):
    """The same for row 3 alone."""
    return lines(lambda rows: [*rows[:3], change(rows[3]), *rows[4:]], file, named)


def value(text):
    """In place of the 1.0 of row 3."""
    return row(lambda line: line.replace("1.0", text))


def content(change, file=LABELS):
    """A spoiler of the bytes of a table."""

    def spoil(data):
        path = data / file
        path.write_bytes(change(path.read_bytes()))
        return (path.name,)

    return spoil


def without_file(file):
    def spoil(data):
        (data / file).unlink()
        return ((data / file).name,)

    return spoil


def links_to(name):
    return lambda file: file.symlink_to(name or file.name)


PREPARE = (preprocess_data, SMALL)
CLASSES = (cls_train, WHOLE)
CASES = {
    "no data folder": Case(remove_data, seg_train, TRAIN, f"{IMAGES}.*no such folder"),
    "no data to prepare": Case(remove_data, *PREPARE, "no images of isic2018 are there"),
    "empty folder": Case(empty_folder, seg_train, TRAIN, f"{IMAGES}.*holds no file"),
    # images
    "corrupt images": Case(spoil_two_images, seg_train, TRAIN, "2 of .* files cannot be used"),
    "truncated JPEG": Case(image(lambda old: old[: len(old) // 2]), *PREPARE, "cut off"),
    "JPEG without its last tenth": Case(
        image(lambda old: old[: len(old) * 9 // 10]), *PREPARE, "cut off"
    ),
    "PNG with a bit turned over": Case(image(damaged_png), *PREPARE, "damaged"),
    "mask with a bit turned over": Case(image(damaged_png, MASKS), *PREPARE, "damaged"),
    "truncated PNG": Case(
        image(lambda old: opened(lambda p: p)(old)[:3000]), *PREPARE, "damaged or cut off"
    ),
    "image of zero bytes": Case(image(lambda old: b""), *PREPARE, "empty.*Replace them"),
    "text named .jpg": Case(
        image(lambda old: b"<html>404</html>"), *PREPARE, "no picture that can be read"
    ),
    "GIF named .jpg": Case(image(opened(lambda p: p, "GIF")), *PREPARE, "JPEG of 8 bits, PNG"),
    "tiny file that claims 60000x60000": Case(
        image(claims(60_000, 60_000)), *PREPARE, "more than 80 million pixels"
    ),
    "tiny file that claims 10000x10000": Case(
        image(claims(10_000, 10_000)), *PREPARE, "more than 80 million pixels"
    ),
    "image of several frames": Case(image(moving), *PREPARE, "2 pictures, not one"),
    "image partly transparent": Case(image(opened(half_transparent)), *PREPARE, "transparent"),
    "palette with a transparent colour": Case(
        image(opened(palette_with_hole, transparency=0)), *PREPARE, "transparent"
    ),
    "8-bit values in 16 bits": Case(
        image(opened(lambda p: np.array(p).astype(np.uint16))), *PREPARE, "save it with 8 bits"
    ),
    "grey 12-bit values in 16 bits": Case(
        image(opened(lambda p: np.array(p.convert("L")).astype(np.uint16) * 16)),
        *PREPARE,
        "no value above 4095",
    ),
    "image of floating-point numbers": Case(
        image(opened(lambda p: np.array(p.convert("L")).astype(np.float32) / 255, "TIFF")),
        *PREPARE,
        "of the kind F",
    ),
    "image of 32 bits": Case(
        image(opened(lambda p: np.array(p.convert("L")).astype(np.int32), "TIFF")),
        *PREPARE,
        "of the kind I",
    ),
    "folder named like an image": Case(replaced(Path.mkdir), *PREPARE, "a folder"),
    "dangling link": Case(replaced(links_to("gone.jpg")), *PREPARE, "a link to nothing"),
    "link to itself": Case(replaced(links_to(None)), *PREPARE, "a link to nothing"),
    "id in lower case": Case(lower_case, *PREPARE, "lacks .* and has"),
    "two files of one id": Case(second_file(lambda f: f.stem + ".png"), *PREPARE, "same image"),
    "one id in two cases": Case(second_file(lambda f: f.name.lower()), *PREPARE, "same image"),
    "stray photograph": Case(
        lambda data: second_file(lambda f: "IMG_1234.jpg")(data)[2:],
        *PREPARE,
        "lacks IMG_1234.*take the image out of .*Input.*strays: IMG_1234",
    ),
    "stray photograph among the diagnoses": Case(
        lambda data: (
            [
                (data / "ISIC2018_Task3_Training_Input" / f"{name}.jpg").write_bytes(
                    files(data, IMAGES, ".jpg")[0].read_bytes()
                )
                for name in ("DSC_0001", "ISIC_9000001")
            ]
            and ("DSC_0001", "ISIC_9000001")
        ),
        *CLASSES,
        "Add each missing row, or take the image out of .*Input.*strays: DSC_0001",
    ),
    "images one folder deeper": Case(one_deeper(IMAGES), *PREPARE, "deeper.*Move them up"),
    # masks
    "masks one folder deeper": Case(one_deeper(MASKS), *PREPARE, "deeper.*Move them up"),
    "mask in capitals": Case(mask_in_capitals, *PREPARE, "expected the name .*Rename"),
    "mask of another size": Case(
        mask(lambda old: np.resize(old, (40, 50)), "50x40"), seg_train, TRAIN, "the mask is 50x40"
    ),
    "mask of other values": Case(
        mask(changed(np.s_[:4], 128), "128"), seg_train, TRAIN, "0 and 255 only"
    ),
    "mask of JPEG artefacts": Case(
        mask(lambda old: np.clip(old, 3, 252), "3, 252"), *PREPARE, "0 and 255 only"
    ),
    "mask of 1 and 255": Case(mask(changed(np.s_[:4], 1), "1"), *PREPARE, "0 and 255 only"),
    "mask saved as JPEG": Case(
        image(opened(lambda p: p, "JPEG", quality=30), MASKS), *PREPARE, "0 and 255 only"
    ),
    "mask in colour": Case(
        mask(lambda old: np.stack([old, old * 0, old * 0], 2)), *PREPARE, "has colours"
    ),
    "palette mask in colour": Case(
        mask(lambda old: Image.fromarray(np.stack([old, old, old * 0], 2)).quantize(2)),
        *PREPARE,
        "has colours",
    ),
    "mask in colours of 16 bits": Case(
        mask(lambda old: np.stack([old.astype(np.uint16) * 257, old * 0, old * 0], 2)),
        *PREPARE,
        "has colours",
    ),
    "mask of floating-point numbers": Case(
        image(opened(lambda p: np.array(p).astype(np.float32) / 255, "TIFF"), MASKS),
        *PREPARE,
        "of the kind F",
    ),
    "16-bit mask of many values": Case(
        mask(lambda old: np.arange(old.size, dtype=np.uint16).reshape(old.shape)),
        *PREPARE,
        "0 and 255 only",
    ),
    "mask of zero bytes": Case(image(lambda old: b"", MASKS), *PREPARE, "empty"),
    "mask cut off": Case(image(lambda old: old[:60], MASKS), *PREPARE, "damaged or cut off"),
    "mask missing": Case(remove_mask, seg_train, TRAIN, "lacks"),
    "mask without an image": Case(mask_of_none, *PREPARE, "for which there is no image"),
    # tables
    "label missing": Case(lines(lambda rows: rows[:3] + rows[4:]), *CLASSES, "lacks"),
    "label too many": Case(
        lines(lambda rows: [*rows, "ISIC_9000000" + rows[3][12:]], named=False),
        *CLASSES,
        "has ISIC_9000000, for which there is no image. Take each row too many out",
    ),
    "label double": Case(lines(lambda rows: [*rows, rows[3]]), *CLASSES, "twice"),
    "label unknown": Case(
        row(lambda line: "ISIC_9000000" + line[12:]),
        *CLASSES,
        "9000000, for which there is no image",
    ),
    "label without class": Case(value("0.0"), *CLASSES, "single 1.0"),
    "label of two classes": Case(
        row(lambda line: line.replace("0.0", "1.0", 1)), *CLASSES, "single 1.0"
    ),
    "label NaN": Case(value("nan"), *CLASSES, "single 1.0"),
    "label negative": Case(value("-1.0"), *CLASSES, "single 1.0"),
    "label 2.0": Case(value("2.0"), *CLASSES, "single 1.0"),
    "label of words": Case(value("yes"), *CLASSES, "single 1.0"),
    "label empty": Case(value(""), *CLASSES, "nothing"),
    "row too long": Case(
        row(lambda line: line + ",0.0", named=False), *CLASSES, r"8 values.*line 4 \(9\)"
    ),
    "row too short": Case(
        row(lambda line: line[:20], named=False), *CLASSES, r"8 values.*line 4 \(3\)"
    ),
    "id that leaves the folder, in labels": Case(
        row(lambda line: "../" + line, named=True), *CLASSES, "not an image id"
    ),
    "no id in labels": Case(
        row(lambda line: line[12:], named=False), *CLASSES, "'' .not an image id"
    ),
    "semicolons": Case(content(lambda old: old.replace(b",", b";")), *CLASSES, "by commas"),
    "header in other case": Case(content(bytes.lower), *CLASSES, "lacks MEL"),
    "column missing": Case(content(lambda old: old.replace(b"VASC", b"X")), *CLASSES, "lacks VASC"),
    "column double": Case(content(lambda old: old.replace(b"DF", b"NV")), *CLASSES, "lacks DF"),
    "column too many": Case(
        content(lambda old: old.replace(b"VASC", b"VASC,NV")), *CLASSES, "names one of them twice"
    ),
    "labels empty": Case(content(lambda old: b""), *CLASSES, "found: nothing"),
    "labels of a header alone": Case(
        content(lambda old: old.split(b"\n")[0]), *CLASSES, "lacks ISIC_"
    ),
    "labels missing": Case(without_file(LABELS), *CLASSES, "no such file"),
    "table not UTF-8": Case(
        content(lambda old: old.decode().encode("utf-16")), *CLASSES, "Save it as UTF-8"
    ),
    "table with NUL": Case(
        content(lambda old: old.replace(b"1.0", b"1\0.0", 1)), *CLASSES, r"1\\x00\.0|NUL"
    ),
    "quote left open": Case(content(lambda old: old + b'"ISIC_1,1'), *CLASSES, "Fix that line"),
    "quote left open in the first line": Case(
        content(lambda old: b'"' + old), *CLASSES, "Fix that line|by commas"
    ),
    "lesion missing": Case(lines(lambda rows: rows[:3] + rows[4:], GROUPS), *CLASSES, "no lesion_"),
    "lesion empty": Case(
        row(lambda line: line[:12] + ",," + line.split(",", 2)[2], GROUPS), *CLASSES, "nothing"
    ),
    "lesion NA": Case(
        row(lambda line: line[:12] + ",NA," + line.split(",", 2)[2], GROUPS), *CLASSES, r"\(NA\)"
    ),
    "lesion #N/A": Case(
        row(lambda line: line[:12] + ",#N/A," + line.split(",", 2)[2], GROUPS), *CLASSES, "#N/A"
    ),
    "lesion double": Case(lines(lambda rows: [*rows, rows[3]], GROUPS), *CLASSES, "twice"),
    "id that leaves the folder, in groups": Case(
        row(lambda line: "../" + line, GROUPS), *CLASSES, "not an image id"
    ),
    "groups empty": Case(content(lambda old: b"", GROUPS), *CLASSES, "found: nothing"),
    "groups missing": Case(without_file(GROUPS), *CLASSES, "no such file"),
    # flags
    "unknown fold": Case(None, seg_train, (*TRAIN, "--folds", 5), "there is no fold 5"),
    "negative fold": Case(None, seg_train, (*TRAIN, "--folds", -1), "there is no fold -1"),
    "no folds": Case(None, seg_train, (*TRAIN, "--num-folds", 0), "not 0"),
    "unknown backbone": Case(None, cls_train, ("--backbone", "vgg17"), "vgg17"),
    "unknown version": Case(None, seg_train, (*TRAIN, "--version", "a/b"), "letters, digits and -"),
    "odd image size": Case(None, seg_train, (*TRAIN, "--image-size", 50), "multiple"),
    "image size 0": Case(None, seg_train, (*TRAIN, "--image-size", 0), "image-size 0"),
    "image size -32": Case(None, preprocess_data, ("--image-size", -32), "image-size -32"),
    "image size 0 of classes": Case(None, cls_train, (*WHOLE, "--image-size", 0), "image-size 0"),
    "batches of -1": Case(None, seg_train, (*TRAIN, "--batch-size", -1), "batch-size -1"),
    "batches of 0": Case(None, seg_predict, ("--batch-size", 0), "batch-size 0"),
    "batches of 0 in views": Case(None, cls_views, ("--train.batch-size", 0), "train.batch-size 0"),
    "plateau factor 1": Case(None, seg_train, (*TRAIN, "--plateau-factor", 1), "plateau-factor 1"),
    "no epochs": Case(None, cls_train, (*WHOLE, "--epochs", 0), "epochs 0"),
    "learning rate nan": Case(
        None, seg_train, (*TRAIN, "--learning-rate", "nan"), "learning-rate nan"
    ),
    "learning rate -1": Case(None, cls_train, (*WHOLE, "--learning-rate", -1), "learning-rate -1"),
    "limit 0": Case(None, seg_predict, ("--limit", 0), "limit 0"),
    "limit -1": Case(None, cls_predict, ("--limit", -1), "limit -1"),
    "no workers": Case(None, seg_train, (*TRAIN, "--workers", 0), "workers 0"),
    "too few images": Case(None, seg_train, (*TRAIN, "--limit", 3), "cannot be split"),
    "eval without a run": Case(None, seg_eval, (), "no trained run of task 1"),
    "predict without a run": Case(None, seg_predict, (), "seg_train.py"),
    "classes without a run": Case(None, cls_eval, (), "no trained run of task 3"),
    "table without a run": Case(None, cls_predict, (), "cls_train.py"),
    "a version too long": Case(
        None, seg_train, (*TRAIN, "--version", "a" * 205), "--version .* has 205 characters"
    ),
    "image too small for the backbone": Case(
        None,
        seg_train,
        ("--backbone", "inception_v3", "--weights", "none", "--image-size", 64),
        "inception_v3 takes multiples of 32 from 96 on",
    ),
    "box margin nan": Case(None, cls_train, (*WHOLE, "--box-margin", "nan"), "box-margin nan"),
    "box margin -1": Case(None, cls_train, (*WHOLE, "--box-margin", -1), "box-margin -1"),
    "margin nan": Case(None, seg_predict, ("--margin", "nan"), "margin nan"),
    "dropout 1": Case(None, cls_train, (*WHOLE, "--dropout", 1), "dropout 1"),
    "seed -1": Case(None, seg_train, (*TRAIN, "--seed", -1), "seed -1"),
    "2000 workers": Case(None, cls_train, (*WHOLE, "--workers", 2000), "workers 2000"),
    "more folds than images": Case(
        None, seg_train, (*TRAIN, "--num-folds", 29), "28 images cannot be split into 29 folds"
    ),
    "more folds than lesions": Case(
        None, cls_train, (*WHOLE, "--num-folds", 60), "cannot be split into 60 folds|need a class"
    ),
    "similarity 2": Case(
        None, find_near_copies, ("--least-similarity", 2), "least-similarity 2: .* from 0 to 1"
    ),
    "near copies that were not looked for": Case(
        None,
        seg_train,
        (*TRAIN, "--near-copies"),
        "near_copies_task1_training.csv does not exist.*find_near_copies.py --task 1",
    ),
    "near copies in a broken table": Case(
        lambda data: (data / "near_copies_task3_training.csv").write_text("a;b") and None,
        cls_train,
        (*WHOLE, "--near-copies"),
        "columns image and other are expected",
    ),
    "near copies without data": Case(
        remove_data, find_near_copies, ("--task", 1), f"{IMAGES}.*no such folder"
    ),
    "radius of an edge 2": Case(
        None, seg_predict, ("--edge", "feather", "--edge-radius", 2), "0 to 1, not 2"
    ),
    "masks as JPEG": Case(
        None, seg_predict, ("mask", "--format", "jpeg"), "--format jpeg is for crops alone"
    ),
    "masks with a soft edge": Case(
        None, seg_predict, ("mask", "--edge", "feather"), "--edge feather is for crops alone"
    ),
    "ensemble of no name": Case(
        None, seg_eval, ("--ensemble", "vgg16"), "backbone:version, such as vgg16:0, not 'vgg16'"
    ),
    "ensemble of the same": Case(
        None, seg_eval, ("--backbone", "vgg16", "--ensemble", "vgg16:0"), "named twice"
    ),
    "tuning without a run": Case(None, seg_tune, (), "no trained run of task 1"),
    "tuning of classes without a run": Case(None, cls_tune, (), "no trained run of task 3"),
    "comparison without runs": Case(None, compare, (), "no trained run of task 1"),
    "near copies of Task 2": Case(
        None,
        seg_train,
        (*TRAIN, "--task", 2, "--near-copies"),
        "near_copies_task1_training.csv does not exist.*find_near_copies.py --task 1",
    ),
    "a measure that Task 2 does not have": Case(
        None,
        seg_train,
        (*TRAIN, "--task", 2, "--monitor", "val_threshold_jaccard"),
        "of task 2, choose one of val_jaccard, val_loss",
    ),
    "a sweep over several hosts": Case(
        None, sweep, ("--train", "devices=hosts", "weights=none"), "has one process"
    ),
    "views over several hosts": Case(
        None, cls_views, ("--train.devices", "hosts"), "views are compared by one process"
    ),
    "one view": Case(None, cls_views, ("--views", "whole"), "--views whole: name two different"),
    "the same view twice": Case(
        None, cls_views, ("--views", "whole", "whole"), "--views whole whole: name two different"
    ),
    "a step that cuts, of crops": Case(
        None,
        cls_views,
        ("--views", "whole", "crop", "--train.preprocess", "crop_borders"),
        "for classifiers that see the whole image",
    ),
    "search size 0": Case(None, seg_tune, ("--search-size", 0), "search-size 0"),
    "views without crops": Case(None, cls_views, ("--views", "whole", "crop"), "seg_predict.py"),
    "no crops yet": Case(
        None, cls_train, TRAIN, "runs/seg_predict.py --task 3 --pred-set training"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_nothing_half_done(case, root, run_script):
    spoil, script, flags, message = CASES[case]
    named = (spoil(root / "data") if spoil else None) or ()
    code, _, err = run_script(script, *flags)
    assert code in (1, 2)
    assert "Traceback" not in err and "Warning" not in err
    assert re.search(message, err, re.S), err
    assert all(name in err for name in named), err
    made = [file for name in ("model_data", "submissions") for file in (root / name).rglob("*")]
    assert not [file for file in made if ".locks" not in file.parts]
    assert not [file for file in root.rglob("*") if "partial" in file.name]


def pixels(picture):
    return np.array(picture.convert("RGB"))


# How an image may be stored: its bytes from an RGB picture, and what it shows then (RGB)
IMAGES_READ = {
    "PNG named .jpg": (encoded, pixels),
    "grey JPEG": (
        lambda p: encoded(p.convert("L"), "JPEG", quality=100),
        lambda p: pixels(p.convert("L")),
    ),
    "CMYK JPEG": (lambda p: encoded(p.convert("CMYK"), "JPEG", quality=100), pixels),
    "16-bit grey PNG": (
        lambda p: encoded(np.array(p.convert("L")).astype(np.uint16) * 256 + 77),
        lambda p: pixels(p.convert("L")),
    ),
    "16-bit RGB PNG": (lambda p: encoded(np.array(p).astype(np.uint16) * 257), lambda p: pixels(p)),
    "16-bit RGB TIFF": (
        lambda p: encoded(np.array(p).astype(np.uint16) * 257, "TIFF"),
        lambda p: pixels(p),
    ),
    "opaque alpha": (lambda p: encoded(p.convert("RGBA")), pixels),
    "grey with opaque alpha": (
        lambda p: encoded(p.convert("LA")),
        lambda p: pixels(p.convert("L")),
    ),
    "palette PNG": (lambda p: encoded(p.quantize(200)), lambda p: pixels(p.quantize(200))),
    "black and white PNG": (lambda p: encoded(p.convert("1")), lambda p: pixels(p.convert("1"))),
    "progressive JPEG": (lambda p: encoded(p, "JPEG", quality=100, progressive=True), pixels),
    "photograph of 6000x4000": (
        lambda p: encoded(p.resize((6000, 4000)), "JPEG", quality=90),
        lambda p: pixels(p.resize((6000, 4000))),
    ),
    "image of one pixel": (lambda p: encoded(p.resize((1, 1))), lambda p: pixels(p.resize((1, 1)))),
}
TURNS = {  # of the pixels as stored, by EXIF orientation
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
    9: lambda stored: stored,  # means nothing
}


def noted(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def exif_last(png):
    """The same PNG with its EXIF chunk behind the pixels."""
    start = png.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], "big")
    last = png.index(b"IEND") - 4
    assert end <= last
    return png[:start] + png[end:last] + png[start:end] + png[last:]


for orientation, turn in TURNS.items():
    IMAGES_READ[f"EXIF orientation {orientation}"] = (
        lambda p, o=orientation: encoded(p, "JPEG", quality=100, exif=noted(o)),
        lambda p, turn=turn: turn(pixels(p)),
    )
    IMAGES_READ[f"TIFF with EXIF orientation {orientation}"] = (
        lambda p, o=orientation: encoded(p, "TIFF", exif=noted(o)),
        lambda p, turn=turn: turn(pixels(p)),
    )
for kind in ("PNG", "WEBP"):
    IMAGES_READ[f"{kind} with EXIF orientation 6"] = (
        lambda p, kind=kind: encoded(p, kind, lossless=True, exif=noted(6)),
        lambda p: TURNS[6](pixels(p)),
    )
IMAGES_READ["PNG with EXIF behind its pixels"] = (
    lambda p: exif_last(encoded(p, exif=noted(6))),
    lambda p: TURNS[6](pixels(p)),
)
IMAGES_READ["orientation in XMP alone, which viewers do not look at"] = (
    lambda p: encoded(
        p,
        "JPEG",
        quality=100,
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>',
    ),
    pixels,
)
IMAGES_READ["16-bit grey PNG with EXIF orientation 6"] = (
    lambda p: encoded(
        Image.fromarray(np.array(p.convert("L")).astype(np.uint16) * 256), exif=noted(6)
    ),
    lambda p: TURNS[6](pixels(p.convert("L"))),
)
for kind in ("JPEG", "PNG"):
    for case, notes in {
        "nonsense": b"Exif\0\0no notes",
        "cut early": noted(6).tobytes()[:12],
        "cut late": noted(6).tobytes()[:20],
        "text for a number": noted(6).tobytes().replace(b"\x01\x12\0\3", b"\x01\x12\0\2"),
    }.items():
        IMAGES_READ[f"{kind} with EXIF: {case}"] = (
            lambda p, kind=kind, notes=notes: encoded(p, kind, quality=100, exif=notes),
            pixels,
        )


@pytest.mark.parametrize("case", IMAGES_READ)
def test_an_image_is_what_it_shows(case, root, run_script):
    stored, shown = IMAGES_READ[case]
    file = files(root / "data", IMAGES, ".jpg")[2]
    picture = Image.open(file).convert("RGB")
    truth = files(root / "data", MASKS, ".png")[2]
    file.write_bytes(stored(picture))
    height, width = shown(picture).shape[:2]
    Image.open(truth).resize((width, height), Image.Resampling.NEAREST).save(truth)
    shutil.rmtree(root / "data" / "ISIC2018_Task2_Training_GroundTruth_v3")  # of the old size
    code, _, err = run_script(*PREPARE[:1], *SMALL)
    assert code == 0, err
    assert "warning" not in err.lower()
    images = ISIC2018(root / "data").load_images(1, "training", 32)
    expected = pictures.resize(np.ascontiguousarray(shown(picture)), 32).astype(int)
    assert np.abs(images.array[2].astype(int) - expected).mean() < 4
    assert (images.heights[2], images.widths[2]) == (height, width)


@pytest.mark.parametrize("of_mask", [1, 8])
def test_a_mask_lies_under_the_upright_image(of_mask, root):
    """The lesion is found in the image again, whatever a camera noted of either file."""
    file, truth = files(root / "data", IMAGES, ".jpg")[2], files(root / "data", MASKS, ".png")[2]
    lesion = np.zeros((90, 60), np.uint8)  # upright
    lesion[10:50, 5:20] = 255
    stored = np.repeat(np.rot90(lesion)[..., None], 3, 2)
    file.write_bytes(encoded(stored, "JPEG", quality=100, exif=noted(6)))
    stored = np.rot90(lesion, -1) if of_mask == 8 else lesion
    truth.write_bytes(encoded(stored, exif=noted(of_mask)))
    images = ISIC2018(root / "data").load_images(1, "training", 32)
    masks = ISIC2018(root / "data").load_masks(1, "training", 32, of=images)
    assert ((images.array[2, ..., :1] > 127) == masks[2]).mean() > 0.98
    whole = pictures.read_original(file)[..., 0] > 127
    assert (whole == ISIC2018(Path()).read_truth(truth, 90, 60)).mean() > 0.98


def test_a_mask_of_the_picture_before_it_was_turned_is_refused(root, run_script):
    file, truth = files(root / "data", IMAGES, ".jpg")[2], files(root / "data", MASKS, ".png")[2]
    picture = Image.open(file)
    width, height = picture.size
    assert width > height
    file.write_bytes(encoded(picture, "JPEG", exif=noted(8)))
    code, _, err = run_script(*PREPARE[:1], *SMALL)
    assert code == 1 and str(truth) in err and "Traceback" not in err
    assert f"mask is {width}x{height} pixels, its image {height}x{width} (an image is turned" in err
    with pytest.raises(UserError) as told:  # of another size, whichever way it is turned
        ISIC2018(Path()).read_truth(truth, height + 1, width)
    assert "turned" not in str(told.value)


MASKS_READ = {
    "mask of 0 and 1": lambda mask: mask // 255,
    "mask of 1 bit": lambda mask: Image.fromarray(mask).convert("1"),
    "mask in RGB": lambda mask: np.repeat(mask[..., None], 3, axis=2),
    "mask with a palette": lambda mask: Image.fromarray(mask).convert("P"),
    "mask with a palette of two": lambda mask: Image.fromarray(mask).convert("RGB").quantize(2),
    "mask with opaque alpha": lambda mask: Image.fromarray(mask).convert("LA"),
    "mask of 16 bits": lambda mask: mask.astype(np.uint16) * 257,
    "mask of 16 bits, 255": lambda mask: mask.astype(np.uint16),
    "mask in RGB of 16 bits": lambda mask: np.stack([mask.astype(np.uint16) * 257] * 3, 2),
    "mask in RGB of 16 bits, 255": lambda mask: np.stack([mask.astype(np.uint16)] * 3, 2),
    "mask without lesion": lambda mask: mask * 0,
    "mask all lesion": lambda mask: mask | 255,
}


@pytest.mark.parametrize("case", MASKS_READ)
def test_a_mask_is_what_it_shows(case, root, run_script):
    file = files(root / "data", MASKS, ".png")[2]
    expected = np.array(Image.open(file)) > 0
    if case in ("mask without lesion", "mask all lesion"):
        expected[:] = case == "mask all lesion"
    file.write_bytes(encoded(MASKS_READ[case](np.array(Image.open(file)))))
    code, _, err = run_script(preprocess_data, *SMALL)
    assert code == 0, err
    assert (ISIC2018(Path()).read_truth(file, *expected.shape) == expected).all()


def test_an_image_replaced_by_another_size_is_noticed_though_its_mask_is_cached(root, run_script):
    assert run_script(preprocess_data, *SMALL)[0] == 0
    image, mask = files(root / "data", IMAGES, ".jpg")[2], files(root / "data", MASKS, ".png")[2]
    picture = Image.open(image)
    image.write_bytes(encoded(np.array(picture)[:-8], "JPEG"))
    code, _, err = run_script(seg_train, *TRAIN)
    width, height = picture.size
    assert code == 1 and str(mask) in err and "Traceback" not in err
    assert f"{width}x{height} pixels, its image {width}x{height - 8}, and 0 more" in err


TABLES_READ = {
    "byte-order mark and CRLF": lambda old: b"\xef\xbb\xbf" + old.replace(b"\n", b"\r\n"),
    "old Macintosh lines": lambda old: old.replace(b"\n", b"\r"),
    "spaces around values": lambda old: old.replace(b",", b" , "),
    "quotes": lambda old: re.sub(rb"(ISIC_\d+)", rb'"\1"', old),
    "empty lines at the end": lambda old: old + b"\n\n",
    "whole numbers": lambda old: old.replace(b".0", b""),
}


@pytest.mark.parametrize("case", TABLES_READ)
def test_a_table_is_what_it_says(case, root):
    data = root / "data"
    before = raw.read_labels(data / LABELS), raw.read_groups(data / GROUPS)
    for file in (LABELS, GROUPS):
        content(TABLES_READ[case], file)(data)
    assert (raw.read_labels(data / LABELS), raw.read_groups(data / GROUPS)) == before


def test_a_name_that_is_no_text_is_left_alone(root, run_script):
    file = files(root / "data", IMAGES, ".jpg")[2]
    name = os.fsencode(file.parent) + b"/ISIC_\xff\xfe.jpg"
    with open(name, "wb") as strange:
        strange.write(file.read_bytes())
    code, _, err = run_script(preprocess_data, *SMALL)
    assert code == 0, err
    assert len(ISIC2018(root / "data").load_images(1, "training", 32).image_ids) == 28


@pytest.mark.parametrize("built_before", [False, True])
def test_an_image_that_may_not_be_read(built_before, root, run_script, monkeypatch):
    file = files(root / "data", IMAGES, ".jpg")[2]
    if built_before:
        assert run_script(preprocess_data, *SMALL)[0] == 0
        os.utime(file, (1, 1))
    read = Path.read_bytes

    def forbidden(path):
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    code, _, err = run_script(preprocess_data, *SMALL)
    assert code == 1 and str(file) in err and "ermission" in err and "Traceback" not in err


def test_other_images_are_cached_again(root, run_script):
    assert run_script(preprocess_data, *SMALL)[0] == 0
    file = files(root / "data", IMAGES, ".jpg")[2]
    before = ISIC2018(root / "data").load_images(1, "training", 32)
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    assert run_script(preprocess_data, *SMALL)[0] == 0
    after = ISIC2018(root / "data").load_images(1, "training", 32)
    assert before.fingerprint != after.fingerprint
    expected = pictures.resize(pixels(Image.open(file)), 32).astype(int)
    assert np.abs(after.array[2] - expected).mean() < 4


CACHE = "task1_training_images_32"
CACHES_BUILT_AGAIN = {
    "array cut in half": (".npy", lambda old: old[: len(old) // 2]),
    "array of zero bytes": (".npy", lambda old: b""),
    "array that holds a pickle": (".npy", lambda old: pickled()),
    "manifest cut": (".json", lambda old: old[: len(old) // 2]),
    "manifest of zero bytes": (".json", lambda old: b""),
    "manifest that is a list": (".json", lambda old: b"[1, 2]"),
    "manifest that is a number": (".json", lambda old: b"7"),
    "manifest of other keys": (".json", lambda old: b'{"format": 1}'),
    "manifest that is no text": (".json", lambda old: b"\xff\xfe\x00"),
    "manifest of other types": (
        ".json",
        lambda old: re.sub(rb'"bytes": \[\d+', b'"bytes": ["x"', old),
    ),
}


class Loaded:
    """Leaves a trace when a pickle of it is loaded."""

    def __reduce__(self):
        return (os.mkdir, ("a_pickle_was_loaded",))


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Loaded()] * 28, dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("case", CACHES_BUILT_AGAIN)
def test_a_damaged_cache_is_built_again(case, root, run_script, caplog, monkeypatch):
    assert run_script(preprocess_data, *SMALL)[0] == 0
    before = np.array(ISIC2018(root / "data").load_images(1, "training", 32).array)
    ending, change = CACHES_BUILT_AGAIN[case]
    file = root / "data" / "cache" / (CACHE + ending)
    file.write_bytes(change(file.read_bytes()))
    monkeypatch.chdir(root)
    caplog.set_level("INFO")
    caplog.clear()
    code, _, err = run_script(preprocess_data, *SMALL)
    assert code == 0, err
    assert f"{CACHE}.npy: building it" in caplog.text
    assert not (root / "a_pickle_was_loaded").exists()
    assert (ISIC2018(root / "data").load_images(1, "training", 32).array == before).all()


def test_unreachable_weights_say_both_ways(root, run_script, monkeypatch):
    import keras

    def no_network(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.applications, "VGG16", no_network)
    flags = ("--backbone", "vgg16", "--image-size", 32, "--weights", "imagenet")
    code, _, err = run_script(seg_train, *flags)
    assert code == 1 and "Traceback" not in err
    assert str(root / "model_data" / "pretrained" / "vgg16_notop.weights.h5") in err
    assert "--weights none" in err and "internet" in err


def test_a_diverging_net_ends_with_an_error(root, run_script):
    code, _, err = run_script(seg_train, *TRAIN, "--folds", 0, "--learning-rate", 1e8)
    assert code == 1 and "--learning-rate" in err and "Traceback" not in err


def test_the_table_is_long_enough():
    read = len(IMAGES_READ) + len(MASKS_READ) + len(TABLES_READ) + len(CACHES_BUILT_AGAIN)
    print(f"{len(CASES)} inputs that are refused, {read} that are read")
    assert len(CASES) >= 48 and read >= 20
