"""What a user can get wrong: one message that names it and the mend, and nothing half-done."""

import re

import cls_eval
import cls_predict
import cls_train
import numpy as np
import pytest
import seg_eval
import seg_predict
import seg_train
from PIL import Image

TRAIN = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--epochs", 1)
WHOLE = (*TRAIN, "--lesion-view", "whole")
IMAGES = "ISIC2018_Task1-2_Training_Input"
MASKS = "ISIC2018_Task1_Training_GroundTruth"
LABELS = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
GROUPS = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_LesionGroupings.csv"


def files(data, folder, ending):
    return sorted((data / folder).glob(f"*{ending}"))


def remove_data(data):
    data.rename(data.with_name("elsewhere"))


def empty_folder(data):
    for file in files(data, IMAGES, ""):
        file.unlink()


def spoil_two_images(data):
    first, second = files(data, IMAGES, ".jpg")[2:4]
    first.write_bytes(first.read_bytes()[:700])
    second.write_bytes(b"")
    return first.name, second.name


def spoil_mask_size(data):
    file = files(data, MASKS, ".png")[1]
    Image.open(file).resize((50, 40), Image.Resampling.NEAREST).save(file)
    return file.name, "50x40"


def spoil_mask_values(data):
    file = files(data, MASKS, ".png")[1]
    mask = np.array(Image.open(file))
    mask[:4] = 128
    Image.fromarray(mask).save(file)
    return file.name, "128"


def remove_mask(data):
    file = files(data, MASKS, ".png")[1]
    file.unlink()
    return (file.name[:12],)


def edit_lines(change, file=LABELS):
    """A spoiler that rewrites the lines of a table; the id of its row 3 is in the message."""

    def spoil(data):
        path = data / file
        lines = path.read_text().splitlines()
        image_id = lines[3].split(",")[0]
        path.write_text("\n".join(change(lines)) + "\n")
        return path.name, image_id

    return spoil


drop = edit_lines(lambda lines: lines[:3] + lines[4:])
double = edit_lines(lambda lines: [*lines, lines[3]])
unknown = edit_lines(lambda lines: [*lines[:3], "ISIC_9000000" + lines[3][12:], *lines[4:]])
no_class = edit_lines(lambda lines: [*lines[:3], lines[3].replace("1.0", "0.0"), *lines[4:]])
no_lesion = edit_lines(lambda lines: lines[:3] + lines[4:], GROUPS)

CASES = {
    "no data folder": (remove_data, seg_train, TRAIN, f"{IMAGES}.*no such folder"),
    "empty folder": (empty_folder, seg_train, TRAIN, f"{IMAGES}.*holds no file"),
    "corrupt images": (spoil_two_images, seg_train, TRAIN, "2 of .* files cannot be used"),
    "mask of another size": (spoil_mask_size, seg_train, TRAIN, "the mask is 50x40 pixels"),
    "mask of other values": (spoil_mask_values, seg_train, TRAIN, "0 and 255 only"),
    "mask missing": (remove_mask, seg_train, TRAIN, "lacks"),
    "label missing": (drop, cls_train, WHOLE, "lacks"),
    "label double": (double, cls_train, WHOLE, "twice"),
    "label unknown": (unknown, cls_train, WHOLE, "ISIC_9000000, which no image bears"),
    "label without class": (no_class, cls_train, WHOLE, "single 1.0"),
    "lesion missing": (no_lesion, cls_train, WHOLE, "no lesion_id"),
    "unknown fold": (None, seg_train, (*TRAIN, "--folds", 5), "there is no fold 5"),
    "no folds": (None, seg_train, (*TRAIN, "--num-folds", 0), "not 0"),
    "unknown backbone": (None, cls_train, ("--backbone", "vgg17"), "vgg17"),
    "unknown version": (None, seg_train, (*TRAIN, "--version", "a/b"), "letters, digits and -"),
    "odd image size": (None, seg_train, (*TRAIN, "--image-size", 50), "multiple"),
    "too few images": (None, seg_train, (*TRAIN, "--limit", 3), "cannot be split"),
    "eval without a run": (None, seg_eval, (), "no trained run of task 1"),
    "predict without a run": (None, seg_predict, (), "seg_train.py"),
    "classes without a run": (None, cls_eval, (), "no trained run of task 3"),
    "table without a run": (None, cls_predict, (), "cls_train.py"),
    "no crops yet": (None, cls_train, TRAIN, "runs/seg_predict.py --task 3 --pred-set training"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_nothing_half_done(case, root, run_script):
    spoil, script, flags, message = CASES[case]
    named = (spoil(root / "data") if spoil else None) or ()
    code, _, err = run_script(script, *flags)
    assert code in (1, 2)
    assert "Traceback" not in err
    assert re.search(message, err, re.S), err
    assert all(name in err for name in named), err
    assert not (root / "model_data").exists() or not list((root / "model_data").iterdir())
    assert not [file for file in root.rglob("*") if "partial" in file.name]


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


def test_weights_of_another_architecture(root, run_script):
    code, _, err = run_script(seg_train, *TRAIN, "--folds", 0)
    assert code == 0, err
    run = root / "model_data" / "task1_tiny_k0_v0"
    settings = (run / "settings.json").read_text()
    (run / "settings.json").write_text(settings.replace('"deconv"', '"subpixel"'))
    code, _, err = run_script(seg_eval, "--backbone", "tiny", "--tta")  # one view is kept
    assert code == 1 and "task1_tiny_k0_v0.weights.h5" in err and "Traceback" not in err
    (run / "settings.json").write_text(settings)
    weights = run / "task1_tiny_k0_v0.weights.h5"
    weights.write_bytes(weights.read_bytes()[:20_000])
    code, _, err = run_script(seg_predict, "mask", "--task", 1, "--backbone", "tiny")
    assert code == 1 and "task1_tiny_k0_v0.weights.h5" in err and "Traceback" not in err
    assert not list((root / "submissions").glob("*/*")) if (root / "submissions").exists() else True


def test_a_run_that_is_there_is_not_trained_over(root, run_script):
    assert run_script(seg_train, *TRAIN, "--folds", 0)[0] == 0
    weights = root / "model_data" / "task1_tiny_k0_v0" / "task1_tiny_k0_v0.weights.h5"
    before = weights.read_bytes()
    code, _, err = run_script(seg_train, *TRAIN)
    assert code == 1 and "task1_tiny_k0_v0 exists" in err and "--overwrite" in err
    assert weights.read_bytes() == before
    assert run_script(seg_train, *TRAIN, "--folds", 0, "--overwrite", "--seed", 7)[0] == 0
    assert weights.read_bytes() != before


def test_other_images_than_trained_with_are_not_scored(root, run_script):
    assert run_script(seg_train, *TRAIN, "--folds", 0)[0] == 0
    file = files(root / "data", IMAGES, ".jpg")[0]
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    code, _, err = run_script(seg_eval, "--backbone", "tiny")
    assert code == 1 and "trained on other images" in err


def test_a_diverging_net_ends_with_an_error(root, run_script):
    code, _, err = run_script(seg_train, *TRAIN, "--folds", 0, "--learning-rate", 1e38)
    assert code == 1 and "--learning-rate" in err and "Traceback" not in err
