"""Tiny trees in the layouts that docs/data.md describes, read by the loaders and the scripts.

docs/data.md names the source of each layout.
"""

import io
import json
import logging
import os
import re
import shutil
from pathlib import Path

import cls_eval
import cls_predict
import cls_train
import cls_tune
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_predict
import seg_train
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from isic_challenge_scoring.load_csv import parse_csv, parse_truth_csv, validate_rows
from PIL import Image

from datasets import folds, inventory
from datasets.catalogue import open_dataset
from datasets.own_settings import OwnFolder
from inference import kept_logits
from inference.prediction import load_net, predict_logits
from misc_utils.errors import UserError
from training import run_folder

pytestmark = pytest.mark.usefixtures("eagerly")

TINY = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8, "workers": 1}
TINY |= {"num_folds": 2, "epochs": 1}
CLS = TINY | {"lesion_view": "whole"}
CLASSES = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"]
SITES = ["anterior torso", "head/neck", ""]


def draw(file, seed, size=(40, 30)):
    """A picture of a dark lesion on skin, another for each seed; its mask as bool (H, W)."""
    random = np.random.default_rng(seed)
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    lesion = np.hypot(x - width / 2, y - height / 2) < random.uniform(6, 12)
    pixels = np.where(lesion[..., None], (110, 60, 50), (220, 180, 160))
    pixels = pixels + random.integers(-20, 20, (height, width, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return lesion


def write(file, lines, end="\n"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())


def one_hot(label, count, one="1.0", zero="0.0"):
    return ",".join(one if k == label else zero for k in range(count))


def in_folds(dataset, num_folds=2):
    """Fold of each training image, split by class and by what the data set keeps together."""
    image_ids = list(dataset.list_images(3, "training"))
    labels, groups = dataset.load_labels("training", image_ids), dataset.load_lesions(image_ids)
    table = folds.split_lesions(labels, groups, num_folds, 0, dataset.classes)
    assert (table.groupby("lesion")["fold"].nunique() == 1).all()
    return table.set_index("image")


def message(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A root without data, named by ISIC_ROOT."""
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path))
    return tmp_path


def scores(root, name, images="fold"):
    return json.loads((root / "model_data" / name / f"{name}_scores_{images}.json").read_text())


def report(root, name, images="fold"):
    return (root / "model_data" / name / f"{name}_report_{images}.html").read_text()


def trained_folds(root, task, dataset):
    run = run_folder.find_runs(root / "model_data", task, "tiny", "0", [0], dataset)[0]
    return run_folder.load_folds(run)


# ISIC 2019


def draw_isic2019(data, nested=1, images=32, test_images=18):
    """Training images of all classes, every third `_downsampled`; two of the test are UNK."""
    truth = [",".join(["image", *CLASSES, "UNK"])]
    metadata = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for k in range(images):
        name = f"ISIC_{k:07}" + "_downsampled" * (k % 3 == 2)
        folders = ["ISIC_2019_Training_Input"] * nested
        draw(data.joinpath(*folders, f"{name}.jpg"), k)
        truth.append(f"{name},{one_hot(k // 2 % 8, 9)}")
        lesion = "" if k % 16 > 11 else f"BCN_{k // 2 % 8:07}"  # two images, or four
        age, sex = ("", "") if k == 1 else (f"{5 * k % 90}.0", ("male", "female")[k % 2])
        metadata.append(f"{name},{age},{SITES[k % 3]},{lesion},{sex}")
    write(data / "ISIC_2019_Training_GroundTruth.csv", truth)
    write(data / "ISIC_2019_Training_Metadata.csv", metadata)
    truth = [",".join(["image", *CLASSES, "UNK", "score_weight", "validation_weight"])]
    metadata = ["image,age_approx,anatom_site_general,sex"]
    for k in range(test_images):
        name = f"ISIC_{34321 + k:07}"
        folders = ["ISIC_2019_Test_Input"] * nested
        draw(data.joinpath(*folders, f"{name}.jpg"), 1000 + k)
        label = 8 if k in (3, 7) else k % 8
        truth.append(f"{name},{one_hot(label, 9)},{0.0 if k == 3 else 1.0},{float(k == 3)}")
        metadata.append(f"{name},{5 * k}.0,{SITES[k % 3]},female")
    write(data / "ISIC_2019_Test_GroundTruth.csv", truth)
    write(data / "ISIC_2019_Test_Metadata.csv", metadata)


@pytest.mark.parametrize("nested", [1, 2])
def test_isic2019(tmp_path, caplog, nested):
    caplog.set_level(logging.INFO)
    draw_isic2019(tmp_path, nested)
    dataset = open_dataset(tmp_path, "isic2019")
    files = dataset.list_images(3, "training")
    assert len(files) == 32 and list(files) == sorted(files)
    assert files["ISIC_0000002_downsampled"].name == "ISIC_0000002_downsampled.jpg"
    assert list(dataset.classes) == CLASSES
    labels = dataset.load_labels("training", list(files))
    assert [labels[image_id] for image_id in files] == [k // 2 % 8 for k in range(32)]

    lesions = dataset.load_lesions(list(files))
    known = {i: lesion for i, lesion in lesions.items() if lesion.startswith("BCN_")}
    assert len(known) == 24 and len(set(known.values())) == 6
    assert all(lesions[i] == i for i in files if i not in known)
    assert "no lesion_id, each counts as one of its own: 8: ISIC_0000012" in caplog.text
    assert len(in_folds(dataset)) == 32

    table, file = dataset.read_metadata("training")
    assert file.name == "ISIC_2019_Training_Metadata.csv" and list(table.index) == list(files)
    assert np.isnan(table["age"].iloc[1]) and table["age"].iloc[3] == 15
    assert table["sex"].iloc[:3].tolist() == ["male", "", "male"]
    assert table["site"].iloc[:3].tolist() == SITES


def test_isic2019_test_images_of_other_classes_are_left_out_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    draw_isic2019(tmp_path)
    dataset = open_dataset(tmp_path, "isic2019")
    files = list(dataset.list_images(3, "test"))
    labels = dataset.load_labels("test", files)
    others = (3, 7)
    assert [files.index(image_id) for image_id in labels] == [
        k for k in range(18) if k not in others
    ]
    assert list(labels.values()) == [k % 8 for k in range(18) if k not in others]
    assert "2 images of none of the classes (UNK) are not scored" in caplog.text
    assert dataset.known_labels("test") == labels
    assert dataset.read_metadata("test")[0]["age"].tolist() == [5 * k for k in range(18)]
    stock = {(found.task, found.images): found for found in inventory.take_stock(dataset)}
    for images in ("training", "test"):
        assert "8 classes" in stock[3, images].truth and not stock[3, images].wrong


def test_isic2019_truth_without_weights_and_without_points(tmp_path):
    """As some copies have it."""
    draw_isic2019(tmp_path)
    file = tmp_path / "ISIC_2019_Test_GroundTruth.csv"
    table = pd.read_csv(file).drop(columns=["score_weight", "validation_weight"])
    table.astype({name: int for name in table.columns[1:]}).to_csv(file, index=False)
    dataset = open_dataset(tmp_path, "isic2019")
    assert len(dataset.load_labels("test", list(dataset.list_images(3, "test")))) == 16


def test_isic2019_can_be_predicted_without_the_truth(tmp_path):
    draw_isic2019(tmp_path)
    (tmp_path / "ISIC_2019_Test_GroundTruth.csv").unlink()
    dataset = open_dataset(tmp_path, "isic2019")
    assert not dataset.has_labels("test") and dataset.known_labels("test") == {}
    image_ids = list(dataset.list_images(3, "test"))
    assert dataset.limited(3, "test", image_ids, 5) == image_ids[:5]
    assert "GroundTruth.csv: there is no such file" in message(
        dataset.load_labels, "test", image_ids
    )


@pytest.mark.filterwarnings("ignore:DataFrame.applymap:FutureWarning")
def test_isic2019_submission_is_what_the_organisers_ask_for(tmp_path):
    draw_isic2019(tmp_path)
    dataset = open_dataset(tmp_path, "isic2019")
    image_ids = list(dataset.list_images(3, "test"))
    probability = np.random.default_rng(0).dirichlet(np.ones(8), len(image_ids))
    table = dataset.submission(image_ids, probability)
    assert table.columns.tolist() == ["image", *CLASSES, "UNK"]
    assert (table["UNK"] == 0).all() and (table[CLASSES].to_numpy() == probability).all()
    truth, weights = parse_truth_csv(io.StringIO(file_text(tmp_path, "Test_GroundTruth")))
    assert list(truth.columns) == [*CLASSES, "UNK"] and weights.shape == (18, 2)
    validate_rows(truth, parse_csv(io.StringIO(table.to_csv(index=False)), truth.columns))


def file_text(data, name):
    return (data / f"ISIC_2019_{name}.csv").read_text()


def changed(data, name, old, new):
    """Replace a text in a table of ISIC 2019 wherever it stands; it must stand there."""
    file = data / f"ISIC_2019_{name}.csv"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def remove_column(data, name, column):
    file = data / f"ISIC_2019_{name}.csv"
    pd.read_csv(file).drop(columns=column).to_csv(file, index=False)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda data: shutil.rmtree(data / "ISIC_2019_Training_Input"), "no such folder. Unzip"),
        (
            lambda data: (data / "ISIC_2019_Training_Input/ISIC_0000004.jpg").unlink(),
            "no image for ISIC_0000004",
        ),
        (
            lambda data: draw(data / "ISIC_2019_Training_Input/ISIC_0099999.jpg", 99),
            "lacks ISIC_0099999. Add each missing row",
        ),
        (
            lambda data: (data / "ISIC_2019_Training_GroundTruth.csv").unlink(),
            "no such file. Put that of the release there; docs/data.md",
        ),
        (
            lambda data: (data / "ISIC_2019_Training_Metadata.csv").unlink(),
            "Training_Metadata.csv: there is no such file",
        ),
        (
            lambda data: remove_column(data, "Training_GroundTruth", "SCC"),
            "so SCC is missing. Replace it by the file of the release",
        ),
        (
            lambda data: remove_column(data, "Training_Metadata", "lesion_id"),
            "so lesion_id is missing. Replace it",
        ),
        (
            lambda data: changed(data, "Training_GroundTruth", "0.0\n", "1.0\n"),
            "expected a single 1",
        ),
        (
            lambda data: changed(
                data, "Training_GroundTruth", f"ISIC_0000000,{one_hot(0, 9)}", "ISIC_0000000"
            ),
            "line 2 \\(1\\)",
        ),
        (
            lambda data: changed(
                data,
                "Training_GroundTruth",
                f"ISIC_0000000,{one_hot(0, 9)}",
                f"ISIC_0000000,{one_hot(8, 9)}",
            ),
            "no training image of none of the classes .*found 1: ISIC_0000000",
        ),
    ],
)
def test_isic2019_that_is_incomplete_is_told(tmp_path, spoil, expected):
    draw_isic2019(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=expected) as error:
        in_folds(open_dataset(tmp_path, "isic2019"))
    assert str(tmp_path) in str(error.value)


def test_isic2019_has_no_masks(tmp_path):
    draw_isic2019(tmp_path)
    dataset = open_dataset(tmp_path, "isic2019")
    assert not dataset.has_masks(1, "training")
    assert "holds no masks" in message(dataset.list_masks, 1, "training", "lesion")
    assert "no validation set, only training, test" in message(dataset.list_images, 3, "validation")


@pytest.mark.filterwarnings("ignore:DataFrame.applymap:FutureWarning")
@pytest.mark.usefixtures("blank_charts")
def test_isic2019_through_the_scripts(bare, caplog, capsys):
    caplog.set_level(logging.INFO)
    draw_isic2019(bare / "data", nested=2)
    which = {"dataset": "isic2019"}
    cls_train.main(cls_train.Settings(**CLS, **which))
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", **which))
    cls_tune.main(cls_tune.Settings("tiny", **which))
    cls_predict.main(cls_predict.Settings("tiny", pred_set="training", browse=False, **which))
    cls_predict.main(cls_predict.Settings("tiny", pred_set="test", **which))
    capsys.readouterr()
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", eval_set="test", **which))
    assert "isic2019_task3_tiny_v0 on 16 images (the test set)" in capsys.readouterr().out
    assert "2 images of none of the classes (UNK) are not scored" in caplog.text

    split = trained_folds(bare, 3, "isic2019")
    assert len(split) == 32 and (split.groupby("lesion")["fold"].nunique() == 1).all()
    assert list(scores(bare, "isic2019_task3_tiny_v0")["per_class"]) == CLASSES
    assert "of 16 images" in report(bare, "isic2019_task3_tiny_v0", "test")
    pages = bare / "submissions" / "isic2019_task3_test_browse" / "index.html"
    assert "ISIC_0034324" in pages.read_text()  # one of the two others is predicted all the same

    for images, count in (("training", 32), ("test", 18)):
        file = bare / "submissions" / f"isic2019_task3_{images}_submission.csv"
        table = pd.read_csv(file)
        assert table.columns.tolist() == ["image", *CLASSES, "UNK"] and len(table) == count
        assert table[CLASSES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    # to the organisers, no image of the ninth class was recognised; the others count as here
    truth = bare / "data" / "ISIC_2019_Test_GroundTruth.csv"
    official = ClassificationScore.from_file(truth, file, ClassificationMetric.BALANCED_ACCURACY)
    ours = scores(bare, "isic2019_task3_tiny_v0", "test")["balanced_accuracy"]
    assert ours * 8 / 9 == pytest.approx(official.overall, abs=1e-9) and ours > 0


# ISIC 2020


def draw_isic2020(data, folder="ISIC_2020_Training_JPEG/train", version=2, crlf=False):
    """Six patients with four images each, every sixth image malignant; a test set without truth."""
    names = ["image_name", "patient_id", *(["lesion_id"] if version == 2 else []), "sex"]
    names += ["age_approx", "anatom_site_general_challenge", "diagnosis", "benign_malignant"]
    lines = [",".join([*names, "target"])]
    for k in range(24):
        draw(data / folder / f"ISIC_{15719 + k:07}.jpg", k)
        found = int(k % 6 == 0)
        row = [f"ISIC_{15719 + k:07}", f"IP_{k % 6:07}", *([f"IL_{k:07}"] if version == 2 else [])]
        row += ["" if k == 2 else "male", "NA" if k == 2 else f"{30 + k}.0", "lower extremity"]
        row += ["melanoma" if found else "unknown", ("benign", "malignant")[found], str(found)]
        lines.append(",".join(row))
    kaggle = folder.startswith("jpeg")
    ending = "_v2" * (version == 2)
    table = "train.csv" if kaggle else f"ISIC_2020_Training_GroundTruth{ending}.csv"
    write(data / table, lines)
    test = "jpeg/test" if kaggle else "ISIC_2020_Test_Input"
    lines = ["image,patient,age_approx,anatom_site_general,sex"]
    if kaggle:
        lines = ["image_name,patient_id,sex,age_approx,anatom_site_general_challenge"]
    for k in range(6):
        name, patient = f"ISIC_{52060 + k:07}", f"IP_{100 + k:07}"
        draw(data / test / f"{name}.jpg", 1000 + k)
        row = f"{name},{patient},{40 + k}.0,torso,female"
        lines.append(f"{name},{patient},female,{40 + k}.0,torso" if kaggle else row)
    write(data / ("test.csv" if kaggle else "ISIC_2020_Test_Metadata.csv"), lines)
    if not kaggle:
        pairs = ["image_name_1,image_name_2", "ISIC_0015719,ISIC_0015720"]
        duplicates = data / "ISIC_2020_Training_Duplicates.csv"
        write(duplicates, [*pairs, "ISIC_0015719,ISIC_0099999"], "\r\n" if crlf else "\n")


@pytest.mark.parametrize(
    ("folder", "version", "crlf"),
    [
        ("train", 1, False),
        ("ISIC_2020_Training_JPEG/train", 2, True),
        ("ISIC_2020_Training_JPEG", 1, True),
        ("jpeg/train", 1, False),
    ],
)
def test_isic2020(tmp_path, caplog, folder, version, crlf):
    caplog.set_level(logging.INFO)
    draw_isic2020(tmp_path, folder, version, crlf)
    dataset = open_dataset(tmp_path, "isic2020")
    files = dataset.list_images(3, "training")
    assert list(files) == [f"ISIC_{15719 + k:07}" for k in range(24)]
    assert dataset.classes == ("benign", "malignant") and dataset.group == "patient"
    labels = dataset.load_labels("training", list(files))
    assert list(labels.values()) == [int(k % 6 == 0) for k in range(24)]

    patients = dataset.load_lesions(list(files))
    table = in_folds(dataset)
    if folder == "jpeg/train":  # whose release has no table of duplicates
        assert list(patients.values()) == [f"IP_{k % 6:07}" for k in range(24)]
        assert "Duplicates.csv is not there" in caplog.text
    else:
        joined = [f"IP_{max(k % 6 - (k % 6 == 1), 0):07}" for k in range(24)]
        assert list(patients.values()) == joined
        assert table["fold"].iloc[0] == table["fold"].iloc[1]
        assert "copies, thus of one patient: 2 pairs" in caplog.text

    metadata, _ = dataset.read_metadata("training")
    assert metadata.iloc[2].isna()["age"] and metadata.iloc[2]["sex"] == ""
    assert metadata.iloc[3].tolist() == [33, "male", "lower extremity"]
    image_ids = list(dataset.list_images(3, "test"))
    assert image_ids == [f"ISIC_{52060 + k:07}" for k in range(6)]
    assert dataset.read_metadata("test")[0].iloc[1].tolist() == [41, "female", "torso"]
    assert not dataset.has_labels("test") and dataset.known_labels("test") == {}
    assert "no classes of its test images" in message(dataset.load_labels, "test", image_ids)


def test_isic2020_submission_is_the_probability_of_melanoma(tmp_path):
    table = open_dataset(tmp_path, "isic2020").submission(
        ["a", "b"], np.array([[1, 0], [0.2, 0.8]])
    )
    assert table.columns.tolist() == ["image_name", "target"]
    assert table.to_numpy().tolist() == [["a", 0.0], ["b", 0.8]]


def test_isic2020_from_kaggle_beside_dicom_files(tmp_path):
    draw_isic2020(tmp_path, "jpeg/train", 1)
    for name in ("train", "test"):
        write(tmp_path / name / "ISIC_0015719.dcm", ["DICM"])
    dataset = open_dataset(tmp_path, "isic2020")
    assert (
        len(dataset.list_images(3, "training")) == 24 and len(dataset.list_images(3, "test")) == 6
    )


def test_isic2020_that_is_incomplete_is_told(tmp_path):
    dataset = open_dataset(tmp_path, "isic2020")
    said = message(dataset.list_images, 3, "training")
    assert "ISIC_2020_Training_JPEG: there is no such folder" in said and "docs/data.md" in said
    draw_isic2020(tmp_path)
    table = tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv"
    text = table.read_text()
    table.write_text(text.replace("patient_id", "patient"))
    assert "patient_id is missing" in message(in_folds, open_dataset(tmp_path, "isic2020"))
    table.write_text(text.replace("IP_0000003", ""))
    in_folds(open_dataset(tmp_path, "isic2020"))  # each counts as one of its own, as told
    table.write_text(text.replace("benign,0", "harmless,0"))
    said = message(in_folds, open_dataset(tmp_path, "isic2020"))
    assert "one of the classes benign, malignant" in said and "line 3 (harmless)" in said
    table.write_text(text)
    duplicates = tmp_path / "ISIC_2020_Training_Duplicates.csv"
    write(duplicates, ["ISIC_id,ISIC_id_paired", "ISIC_0015719,ISIC_0015720"])
    said = message(in_folds, open_dataset(tmp_path, "isic2020"))
    assert "image_name_1, image_name_2; found ISIC_id, ISIC_id_paired" in said
    table.unlink()
    dataset = open_dataset(tmp_path, "isic2020")
    assert "no such file" in message(in_folds, dataset)


def test_isic2020_through_the_scripts(bare, capsys, caplog):
    draw_isic2020(bare / "data")
    cls_train.main(cls_train.Settings(dataset="isic2020", **CLS))
    capsys.readouterr()
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", dataset="isic2020"))
    printed = capsys.readouterr().out
    assert "benign" in printed and "malignant" in printed
    split = trained_folds(bare, 3, "isic2020")
    assert split["lesion"].nunique() == 5  # six patients, two of them joined by copies
    assert (split.groupby("lesion")["fold"].nunique() == 1).all()

    stored, page = (look(bare, "isic2020_task3_tiny_v0") for look in (scores, report))
    assert re.search(rf"^auc +{stored['auc']:.3f} +[01]\.", printed, re.MULTILINE)
    assert len(stored["intervals_95"]["auc"]) == 2
    assert stored["auc"] == pytest.approx(stored["per_class"]["malignant"]["auc"][0])
    for share in (80, 90, 95):
        name = f"sensitivity_at_specificity_{share}"
        assert name in printed and f'<th scope="col">{name.replace("_", " ")}' in page
        value, low, high = stored["per_class"]["malignant"][name]
        assert 0 <= low <= value <= high <= 1
    assert "Confusion matrix" in page and ">AUC<" in page

    cls_predict.main(cls_predict.Settings("tiny", pred_set="test", dataset="isic2020"))
    table = pd.read_csv(bare / "submissions" / "isic2020_task3_test_submission.csv")
    assert table.columns.tolist() == ["image_name", "target"]
    assert table["image_name"].tolist() == [f"ISIC_{52060 + k:07}" for k in range(6)]
    assert table["target"].between(0, 1).all() and table["target"].nunique() > 1
    with pytest.raises(UserError, match="no classes of its test images"):
        cls_eval.main(cls_eval.Settings("tiny", eval_set="test", dataset="isic2020"))


# PH2

PH2_HEADER = (
    "|| Name   || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | "
    "Dots/Globules | Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)
PH2_LEGEND = (
    "",
    "Legends: ",
    "- Histological Diagnosis/Clinical Diagnosis: ",
    "     0 - Common Nevus;",
    "     1 - Atypical Nevus;",
    "     2 - Melanoma.",
    "- Colors: 1 - White; 2 - Red; 3 - Light-Brown; 4 - Dark-Brown; 5 - Blue-Gray; 6 - Black",
    "|| is a separator",
)


def draw_ph2(data, cases=18):
    """A folder per case, with numbers that have gaps; masks of one bit, and of colours."""
    folder, lines = data / "PH2Dataset" / "PH2 Dataset images", [PH2_HEADER]
    for k in range(cases):
        name = f"IMD{2 + 3 * k:03}"
        size = (40 + k % 2, 30)
        lesion = draw(folder / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp", k, size)
        mask = folder / name / f"{name}_lesion" / f"{name}_lesion.bmp"
        mask.parent.mkdir()
        Image.fromarray(lesion).save(mask)  # one bit per pixel
        assert Image.open(mask).mode == "1"
        if k % 4:
            draw(folder / name / f"{name}_roi" / f"{name}_R1_Label4.bmp", 500 + k, size)
        cells = f"||         {k % 2} |               T |             A |       A |"
        cells += "                A |                 A ||                4 ||"
        lines.append(f"|| {name} ||                        ||{k % 3:19} {cells}")
    root = data / "PH2Dataset"
    write(root / "PH2_dataset.txt", [*lines, *PH2_LEGEND], "\r\n")
    write(root / "Readme.txt", ["PH2"])
    return folder


def test_ph2(tmp_path, caplog):
    folder = draw_ph2(tmp_path)
    dataset = open_dataset(tmp_path, "ph2")
    names = [f"IMD{2 + 3 * k:03}" for k in range(18)]
    for task in (1, 3):
        files = dataset.list_images(task, "training")
        assert list(files) == names
        assert all(file.parent.name.endswith("_Dermoscopic_Image") for file in files.values())
    assert dataset.classes == ("common nevus", "atypical nevus", "melanoma")
    labels = dataset.load_labels("training", names)
    assert list(labels.values()) == [k % 3 for k in range(18)]
    assert dataset.has_masks(1, "training")
    masks, _ = dataset.list_masks(1, "training", "lesion")
    assert [file.name for file in masks.values()] == [f"{name}_lesion.bmp" for name in names]

    images, truth = dataset.load_pairs(1, "training", 32)
    assert set(np.unique(truth[:])) == {0, 1} and 0.05 < truth[:].mean() < 0.5
    dark = images.array.mean(axis=3) < 150
    assert (dark == truth[:][..., 0]).mean() > 0.9  # the mask is of the lesion, not of the skin
    whole = dataset.read_truth(masks["IMD005"], 30, 41)
    assert whole.shape == (30, 41)

    assert dataset.read_groups(3) is None
    assert in_folds(dataset).index.tolist() == names
    assert "--group-column" not in caplog.text
    assert "no age, sex and site" in message(dataset.read_metadata, "training")
    assert "no test set" in message(dataset.list_images, 3, "test")
    assert folder.is_dir()


def test_ph2_that_is_incomplete_is_told(tmp_path):
    dataset = open_dataset(tmp_path, "ph2")
    assert "PH2 Dataset images: there is no such folder" in message(
        dataset.list_images, 1, "training"
    )
    folder = draw_ph2(tmp_path)
    table = tmp_path / "PH2Dataset" / "PH2_dataset.txt"
    text = table.read_text()
    names = list(open_dataset(tmp_path, "ph2").list_images(3, "training"))

    def said():
        return message(open_dataset(tmp_path, "ph2").load_labels, "training", names)

    table.write_text(text.replace("||                  2 ||", "||                  x ||", 1))
    assert "PH2_dataset.txt: expected lines such as" in said() and "in line 4" in said()
    table.write_text("no table")
    assert "found no line of an image" in said()
    table.write_text("".join(line for line in text.splitlines(True) if "IMD005" not in line))
    assert "PH2_dataset.txt lacks IMD005" in said()
    table.unlink()
    assert "no such file" in said()
    shutil.rmtree(folder / "IMD008" / "IMD008_lesion")
    dataset = open_dataset(tmp_path, "ph2")
    assert "lacks IMD008. Add each missing mask" in message(dataset.load_pairs, 1, "training", 32)


@pytest.mark.usefixtures("blank_charts")
def test_ph2_through_the_scripts(bare):
    draw_ph2(bare / "data")
    which = {"dataset": "ph2"}
    seg_train.main(seg_train.Settings(**TINY, **which))
    seg_eval.main(seg_eval.Settings("tiny", k_fold="all", **which))
    stored = pd.read_csv(bare / "model_data/ph2_task1_tiny_v0/ph2_task1_tiny_v0_scores_fold.csv")
    assert len(stored) == 18 and stored["jaccard"].between(0, 1).all()
    assert "IMD005" in report(bare, "ph2_task1_tiny_v0")
    seg_predict.main(seg_predict.Settings("mask", "tiny", task=1, pred_set="training", **which))
    folder = bare / "submissions" / "ph2_task1_training"
    with Image.open(folder / "IMD005_segmentation.png") as mask:
        assert mask.mode == "L" and mask.size == (41, 30)
    cls_train.main(cls_train.Settings(**CLS, **which))
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", **which))
    assert list(scores(bare, "ph2_task3_tiny_v0")["per_class"]) == [
        *("common nevus", "atypical nevus", "melanoma")
    ]
    with pytest.raises(UserError, match="no test set"):
        cls_predict.main(cls_predict.Settings("tiny", **which))
    with pytest.raises(UserError, match="no age, sex and site"):
        cls_train.main(cls_train.Settings(**CLS, **which, version="1", metadata=True))


# HAM10000

HAM_CLASSES = ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
HAM_COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]


def draw_ham10000(root, part="HAM10000_images_part_{}", table="HAM10000_metadata", images=28):
    """Lesions of two images, in both folders; masks in theirs, with what macOS leaves behind."""
    rows = []
    for k in range(images):
        name = f"ISIC_{24306 + k:07}"
        lesion = draw(root / part.format(1 + k % 2) / f"{name}.jpg", k)
        mask = root / "HAM10000_segmentations_lesion_tschandl" / f"{name}_segmentation.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(lesion.astype(np.uint8) * 255).save(mask)
        write(mask.parent / "__MACOSX" / f"._{mask.name}", ["Mac OS X"])
        age = "" if k == 4 else f"{5 * k % 90}.0"
        sex, site = ("unknown", "unknown") if k == 4 else ("female", ("back", "face")[k % 2])
        row = [f"HAM_{k // 2:07}", name, HAM_CLASSES[k // 2 % 7], "histo", age, sex, site]
        rows.append([*row, "vidir_modern"])
    write_ham_table(root / table, HAM_COLUMNS, rows)
    return rows


def write_ham_table(file, columns, rows):
    """As the file's name says: `.tab` with tabs and quotes, `.csv` of Kaggle without dataset."""
    if file.suffix == ".tab":
        quoted = [[cell if k == 4 else f'"{cell}"' for k, cell in enumerate(row)] for row in rows]
        write(file, ["\t".join(row) for row in [columns, *quoted]])
        return
    kept = len(columns) - (file.name == "HAM10000_metadata.csv")
    write(file, [",".join(row[:kept]) for row in [columns, *rows]])


@pytest.mark.parametrize("root", ["", "HAM10000"])
@pytest.mark.parametrize(
    ("part", "table"),
    [
        ("HAM10000_images_part_{}", "HAM10000_metadata"),
        ("HAM10000_images_part_{}", "HAM10000_metadata.tab"),
        ("ham10000_images_part_{}", "HAM10000_metadata.csv"),
        ("HAM10000_images_part_{0}/HAM10000_images_part_{0}", "HAM10000_metadata.csv"),
    ],
)
def test_ham10000(tmp_path, root, part, table):
    draw_ham10000(tmp_path / root, part, table)
    dataset = open_dataset(tmp_path, "ham10000")
    names = [f"ISIC_{24306 + k:07}" for k in range(28)]
    for task in (1, 3):
        assert list(dataset.list_images(task, "training")) == names
    assert list(dataset.classes) == HAM_CLASSES
    labels = dataset.load_labels("training", names)
    assert list(labels.values()) == [k // 2 % 7 for k in range(28)]
    assert list(dataset.load_lesions(names).values()) == [f"HAM_{k // 2:07}" for k in range(28)]
    assert in_folds(dataset)["lesion"].nunique() == 14
    metadata, _ = dataset.read_metadata("training")
    assert np.isnan(metadata["age"].iloc[4]) and metadata.iloc[4, 1:].tolist() == ["", ""]
    assert metadata.iloc[5].tolist() == [25, "female", "face"]
    images, masks = dataset.load_pairs(1, "training", 32)
    assert images.image_ids == masks.image_ids == tuple(names)
    assert ((images.array.mean(axis=3) < 150) == masks[:][..., 0]).mean() > 0.9


def test_ham10000_of_kaggle_may_hold_both_ways_of_writing_its_folders(tmp_path):
    draw_ham10000(tmp_path, table="HAM10000_metadata.csv")
    for k in (1, 2):
        other = tmp_path / f"ham10000_images_part_{k}"
        if other.exists():
            pytest.skip("this disk does not tell them apart")
        shutil.copytree(tmp_path / f"HAM10000_images_part_{k}", other)
    dataset = open_dataset(tmp_path, "ham10000")
    files = dataset.list_images(3, "training")
    assert len(files) == 28
    assert {file.parent.name for file in files.values()} == {
        f"HAM10000_images_part_{k}" for k in (1, 2)
    }
    assert len(set(dataset.load_lesions(list(files)).values())) == 14


@pytest.mark.parametrize("ending", [".csv", ".tab"])
def test_ham10000_test_images(tmp_path, caplog, ending):
    """Its table holds a row of an image that was not released."""
    caplog.set_level(logging.INFO)
    draw_ham10000(tmp_path)
    rows = []
    for k in range(7):
        name = "ISIC_0035068" if k == 6 else f"ISIC_{34524 + k:07}"
        rows.append([f"HAM_{9000 + k:07}", name, HAM_CLASSES[k], "histo", "40.0", "male", "back"])
        rows[-1].append("rosendahl")
        if k != 6:
            draw(tmp_path / "ISIC2018_Task3_Test_Images" / f"{name}.jpg", 700 + k)
    write_ham_table(tmp_path / f"ISIC2018_Task3_Test_GroundTruth{ending}", HAM_COLUMNS, rows)
    dataset = open_dataset(tmp_path, "ham10000")
    image_ids = list(dataset.list_images(3, "test"))
    labels = dataset.load_labels("test", image_ids)
    assert list(labels.values()) == list(range(6))
    assert "ISIC_0035068, not released, is left aside" in caplog.text
    assert dataset.read_metadata("test")[0]["age"].tolist() == [40] * 6


def test_ham10000_that_is_incomplete_is_told(tmp_path):
    dataset = open_dataset(tmp_path, "ham10000")
    assert "HAM10000_images_part_1: there is no such folder" in message(
        dataset.list_images, 3, "training"
    )
    draw_ham10000(tmp_path)
    shutil.rmtree(tmp_path / "HAM10000_segmentations_lesion_tschandl")
    dataset = open_dataset(tmp_path, "ham10000")
    assert not dataset.has_masks(1, "training") and len(in_folds(dataset)) == 28
    said = message(dataset.list_masks, 1, "training", "lesion")
    assert "lesion_tschandl: there is no such folder. Unzip the release there" in said
    table = tmp_path / "HAM10000_metadata"
    text = table.read_text()
    table.write_text(text.replace("lesion_id", "lesion", 1))
    assert "lesion_id is missing" in message(in_folds, open_dataset(tmp_path, "ham10000"))
    table.write_text(text.replace(",df,", ",wart,"))
    assert "(wart)" in message(in_folds, open_dataset(tmp_path, "ham10000"))
    table.write_text("".join(text.splitlines(True)[:-1]))
    assert "lacks ISIC_0024333" in message(in_folds, open_dataset(tmp_path, "ham10000"))
    table.unlink()
    said = message(in_folds, open_dataset(tmp_path, "ham10000"))
    assert "HAM10000_metadata: there is no such file" in said
    shutil.rmtree(tmp_path / "HAM10000_images_part_2")
    said = message(in_folds, open_dataset(tmp_path, "ham10000"))
    assert "HAM10000_images_part_2: there is no such folder" in said


@pytest.mark.usefixtures("blank_charts")
def test_ham10000_with_metadata_through_the_scripts(bare):
    draw_ham10000(bare / "data")
    which = {"dataset": "ham10000"}
    cls_train.main(cls_train.Settings(**CLS, **which, metadata=True))
    run = run_folder.find_runs(bare / "model_data", 3, "tiny", "0", [0], "ham10000")[0]
    assert list(run.sites) == ["back", "face"] and list(run.classes) == HAM_CLASSES
    split = trained_folds(bare, 3, "ham10000")
    assert split["lesion"].nunique() == 14
    assert (split.groupby("lesion")["fold"].nunique() == 1).all()
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", **which))
    cls_predict.main(cls_predict.Settings("tiny", pred_set="training", browse=False, **which))
    table = pd.read_csv(bare / "submissions" / "ham10000_task3_training_submission.csv")
    assert table.columns.tolist() == ["image", *HAM_CLASSES] and len(table) == 28
    assert scores(bare, "ham10000_task3_tiny_v0")["balanced_accuracy"] >= 0
    # nets that were told other things of the patients are not asked about these
    file = bare / "data" / "HAM10000_metadata"
    file.write_text(file.read_text().replace(",female,", ",male,"))
    with pytest.raises(UserError, match="trained on other images"):
        cls_predict.main(cls_predict.Settings("tiny", pred_set="training", overwrite=True, **which))


# An own folder of many classes

MANY = [f"diagnosis {k}" if k % 3 else f"a rare disease with a long name {k}" for k in range(31)]


def test_31_classes_of_an_own_folder_through_the_scripts(bare, capsys):
    lines = ["file;diagnosis;patient"]
    for k in range(93):
        draw(bare / "photos" / f"photo {k}.png", k)
        lines.append(f"photo {k}.png;{MANY[k % 31]};patient {k}")
    write(bare / "table.csv", lines)
    own = OwnFolder(images=str(bare / "photos"), table=str(bare / "table.csv"))
    which = {"dataset": "folder"}
    cls_train.main(cls_train.Settings(**CLS, **which, own=own))
    capsys.readouterr()
    cls_eval.main(cls_eval.Settings("tiny", k_fold="all", **which))
    printed = capsys.readouterr().out
    assert all(name in printed for name in MANY)
    before = scores(bare, "folder_task3_tiny_v0")
    assert sorted(before["per_class"]) == sorted(MANY)
    page = report(bare, "folder_task3_tiny_v0")
    assert all(f'<th scope="row">{name}</th>' in page for name in MANY)
    assert page.count("data:image/png") >= 3  # confusion matrix, ROC, calibration
    cls_tune.main(cls_tune.Settings("tiny", decision_weights=True, **which))
    cls_predict.main(cls_predict.Settings("tiny", pred_set="training", browse=False, **which))

    table = pd.read_csv(bare / "submissions" / "folder_task3_training_submission.csv")
    assert table.shape == (93, 32) and sorted(table.columns[1:]) == sorted(MANY)
    as_json = json.loads((bare / "submissions/folder_task3_training_classes.json").read_text())
    assert as_json["classes"] == table.columns[1:].tolist() and len(as_json["images"]) == 93

    # the net, loaded again, says what was kept of it
    runs = run_folder.find_runs(bare / "model_data", 3, "tiny", "0", [0], "folder")
    dataset = open_dataset(bare / "data", "folder", own)
    net = load_net(runs[0], dataset.load_inputs(dataset.load_images(3, "training", 32), "x", None))
    held_out = run_folder.held_out_images(run_folder.load_folds(runs[0]), 0)
    ((_, logits),) = predict_logits([net], held_out, 100, 1)
    kept = kept_logits.load_logits(runs[0], "fold", 1, held_out)
    assert logits.shape == (len(held_out), 31)
    np.testing.assert_allclose(logits, [kept[image_id] for image_id in held_out], atol=1e-4)


DATA = Path(os.environ.get("ISIC_TEST_DATA", "/nonexistent"))


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="ISIC_TEST_DATA names no folder of real images")
def test_ham10000_of_the_release(tmp_path):
    """The images and tables of ISIC 2018, linked as Dataverse has them."""
    files = sorted((DATA / "ISIC2018_Task3_Training_Input").glob("*.jpg"))
    for k, file in enumerate(files):
        part = tmp_path / f"HAM10000_images_part_{1 if k < 5000 else 2}"
        part.mkdir(exist_ok=True)
        (part / file.name).symlink_to(file)
    (tmp_path / "HAM10000_metadata").symlink_to(DATA / "HAM10000_metadata.csv")
    name = "HAM10000_segmentations_lesion_tschandl"
    (tmp_path / name).symlink_to(DATA / name)
    dataset = open_dataset(tmp_path, "ham10000")
    image_ids = list(dataset.list_images(3, "training"))
    labels, lesions = dataset.load_labels("training", image_ids), dataset.load_lesions(image_ids)
    counts = np.bincount(list(labels.values()), minlength=7).tolist()
    assert dict(zip(dataset.classes, counts, strict=True)) == {
        **{"mel": 1113, "nv": 6705, "bcc": 514, "akiec": 327, "bkl": 1099, "df": 115, "vasc": 142}
    }
    assert len(image_ids) == 10015 and len(set(lesions.values())) == 7470
    assert in_folds(dataset, 5)["fold"].value_counts().between(1900, 2100).all()
    metadata, _ = dataset.read_metadata("training")
    assert metadata["age"].isna().sum() < 100 and set(metadata["sex"]) == {"male", "female", ""}
    masks = dataset.find_masks(1, "training", image_ids)["lesion"]
    assert len(masks) == 10015
    for image_id in image_ids[::200]:
        with Image.open(dataset.list_images(1, "training")[image_id]) as image:
            width, height = image.size
        assert 0 < dataset.read_truth(masks[image_id], height, width).mean() < 1
