"""The six scripts, one after another, on drawn lesions; each step is checked by what it left."""

import csv
import gc
import json
import re
import shutil
import weakref

import cls_eval
import cls_predict
import cls_train
import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_predict
import seg_train
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image
from quickly import draw_nothing

from training import run_folder

pytestmark = pytest.mark.usefixtures("blank_charts")

TINY = {"backbone": "tiny", "weights": "none", "image_size": 64, "batch_size": 8}
SEG = TINY | {"num_folds": 2, "epochs": 4, "learning_rate": 5e-3, "workers": 2}
CLS = TINY | {"num_folds": 2, "epochs": 2, "learning_rate": 5e-3, "workers": 2}
CLS |= {"dropout": 0.3, "schedule": "cosine"}  # random states, and a rate that depends on the step


@pytest.fixture(scope="module")
def chain(tmp_path_factory, drawn_data):
    """A root in which all six scripts have run; module-wide, so read it and change nothing."""
    root = tmp_path_factory.mktemp("chain")
    shutil.copytree(drawn_data, root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISIC_ROOT", str(root))
        draw_nothing(patch)
        seg_train.main(seg_train.Settings(**SEG))
        for k in range(2):
            seg_eval.main(seg_eval.Settings("tiny", k_fold=k))
        seg_eval.main(seg_eval.Settings("tiny", k_fold="all"))
        seg_predict.main(seg_predict.Settings(backbone="tiny"))
        seg_predict.main(seg_predict.Settings(backbone="tiny", pred_set="test"))
        seg_predict.main(seg_predict.Settings("mask", "tiny", task=1))
        seg_predict.main(seg_predict.Settings("mask", "tiny", task=1, pred_set="test", tta=True))
        seg_predict.main(seg_predict.Settings("mask", "tiny", task=3, pred_set="validation"))
        cls_train.main(cls_train.Settings(**CLS))
        for k in range(2):
            cls_eval.main(cls_eval.Settings("tiny", k_fold=k))
        cls_eval.main(cls_eval.Settings("tiny", k_fold="all"))
        cls_predict.main(cls_predict.Settings("tiny"))
        cls_predict.main(cls_predict.Settings("tiny", pred_set="training", tta=True))
    return root


@pytest.fixture
def copied(chain, tmp_path, monkeypatch):
    """A copy of the chain's root, named by ISIC_ROOT."""
    shutil.copytree(chain, tmp_path / "root")
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def scores(root, name):
    return json.loads((root / "model_data" / name / f"{name}_scores_fold.json").read_text())


def test_a_run_folder_holds_all_it_should(chain):
    folder = chain / "model_data" / "task1_tiny_k1_v0"
    record = json.loads((folder / "settings.json").read_text())
    assert record["settings"] | SEG == record["settings"] and record["finished"]
    assert record["k_fold"] == 1 and record["backend"] and record["versions"]["keras"]
    rows = list(csv.DictReader((folder / "task1_tiny_k1_v0.csv").open()))
    assert [row["epoch"] for row in rows] == list("0123")
    assert {"val_jaccard", "val_threshold_jaccard", "learning_rate"} <= set(rows[0])
    best = max(range(4), key=lambda k: float(rows[k]["val_threshold_jaccard"]))
    assert record["best_epoch"] == best
    names = []
    with h5py.File(folder / "task1_tiny_k1_v0.weights.h5") as file:
        file.visit(names.append)
    assert names and not [name for name in names if "optimizer" in name]


def test_each_image_is_held_out_by_one_fold(chain, drawn_data):
    held_out = []
    for k in range(2):
        run = run_folder.find_runs(chain / "model_data", 1, "tiny", "0", [k])[0]
        folds = run_folder.load_folds(run)
        held_out += run_folder.held_out_images(folds, k)
        table = pd.read_csv(run.file("scores_fold.csv"))
        assert sorted(table["image"]) == sorted(run_folder.held_out_images(folds, k))
    files = (drawn_data / "ISIC2018_Task1-2_Training_Input").glob("*.jpg")
    assert sorted(held_out) == sorted(file.stem for file in files)


def folds_of(root, task):
    return run_folder.load_folds(
        run_folder.find_runs(root / "model_data", task, "tiny", "0", [0])[0]
    )


def test_lesions_stay_together(chain):
    folds = run_folder.load_folds(
        run_folder.find_runs(chain / "model_data", 3, "tiny", "0", [0])[0]
    )
    assert folds["lesion"].duplicated().any()  # several photographs of one lesion are there
    assert (folds.groupby("lesion")["fold"].nunique() == 1).all()


def test_printed_scores_of_masks_are_the_organisers(chain, tmp_path):
    """Out-of-fold masks of the training set: their score, fold by fold, by the official scorer."""
    truth = chain / "data" / "ISIC2018_Task1_Training_GroundTruth"
    for k in range(2):
        ours = scores(chain, f"task1_tiny_k{k}_v0")
        ids = pd.read_csv(
            chain / "model_data" / f"task1_tiny_k{k}_v0" / f"task1_tiny_k{k}_v0_scores_fold.csv"
        )["image"]
        folders = tmp_path / f"truth{k}", tmp_path / f"prediction{k}"
        for folder, source in zip(
            folders, (truth, chain / "submissions" / "task1_training"), strict=True
        ):
            folder.mkdir()
            for image_id in ids:
                shutil.copy(source / f"{image_id}_segmentation.png", folder)
        official = SegmentationScore.from_dir(*folders).to_dict()["macro_average"]
        for measure in ("jaccard", "threshold_jaccard", "dice", "accuracy"):
            assert ours[measure] == pytest.approx(official[measure], abs=1e-9)
        assert ours["jaccard"] > 0.3  # the nets did learn


def test_printed_scores_of_classes_are_the_organisers(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("ISIC_ROOT", str(chain))
    truth = pd.read_csv(
        chain / "data/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
    )
    cls_predict.main(cls_predict.Settings("tiny", pred_set="training", overwrite=True))
    predicted = pd.read_csv(chain / "submissions" / "task3_training_submission.csv")
    assert predicted["image"].tolist() == sorted(truth["image"])
    for k in range(2):
        run = run_folder.find_runs(chain / "model_data", 3, "tiny", "0", [k])[0]
        held_out = run_folder.held_out_images(run_folder.load_folds(run), k)
        files = tmp_path / f"truth{k}.csv", tmp_path / f"prediction{k}.csv"
        truth[truth["image"].isin(held_out)].to_csv(files[0], index=False)
        predicted[predicted["image"].isin(held_out)].to_csv(files[1], index=False)
        official = ClassificationScore.from_file(*files, ClassificationMetric.BALANCED_ACCURACY)
        assert scores(chain, run.name)["balanced_accuracy"] == pytest.approx(
            official.overall, abs=1e-9
        )


def test_masks_have_the_form_the_organisers_ask_for(chain):
    for task, images, name in (
        (1, "Test", "task1_test"),
        (3, "Validation", "task3_validation_masks"),
    ):
        source = chain / "data" / f"ISIC2018_Task{'1-2' if task == 1 else 3}_{images}_Input"
        files = sorted((chain / "submissions" / name).glob("*.png"))
        assert [f.stem.removesuffix("_segmentation") for f in files] == sorted(
            f.stem for f in source.glob("*.jpg")
        )
        for file in files:
            with Image.open(file) as mask, Image.open(source / f"{file.stem[:12]}.jpg") as image:
                assert mask.mode == "L" and mask.size == image.size
                assert set(np.unique(mask)) <= {0, 255}


def test_crops_are_box_times_mask(chain):
    folder = chain / "submissions" / "task3_training_crops"
    table = pd.read_csv(folder / "crops.csv")
    assert list(table.columns) == [
        "image",
        "top",
        "left",
        "height",
        "width",
        "source_height",
        "source_width",
        "lesion_pixels",
    ]
    assert sorted(f.stem for f in folder.glob("*.png")) == table["image"].tolist()
    for row in table.itertuples():
        crop = np.asarray(Image.open(folder / f"{row.image}.png"))
        assert crop.shape == (row.height, row.width, 3)
        source = chain / "data" / "ISIC2018_Task3_Training_Input" / f"{row.image}.jpg"
        image = np.asarray(Image.open(source))
        assert image.shape == (row.source_height, row.source_width, 3)
        part = image[row.top : row.top + row.height, row.left : row.left + row.width]
        black = (crop == 0).all(axis=2)
        assert (crop[~black] == part[~black]).all()
        if row.lesion_pixels:
            assert row.lesion_pixels == pytest.approx((~black).sum(), abs=5)  # black lesion pixels
            assert (~black).any(axis=0)[[0, -1]].all() and (~black).any(axis=1)[[0, -1]].all()


def test_every_image_of_the_training_set_is_predicted_by_the_net_that_held_it_out(chain):
    record = json.loads((chain / "submissions" / "task1_training.json").read_text())
    folds = run_folder.load_folds(
        run_folder.find_runs(chain / "model_data", 1, "tiny", "0", [0])[0]
    )
    by_nets = record["made_by"]["images_by_nets"]
    names = [f"task1_tiny_k{k}_v0" for k in range(2)]
    assert by_nets == {name: run_folder.held_out_images(folds, k) for k, name in enumerate(names)}
    on_task_3 = json.loads((chain / "submissions" / "task3_training_crops.json").read_text())
    assert list(on_task_3["made_by"]["images_by_nets"]) == [" ".join(names)]
    assert set(record["made_by"]["weights"]) == set(names)


def test_the_submission_table_has_every_test_image(chain):
    table = pd.read_csv(chain / "submissions" / "task3_test_submission.csv")
    source = chain / "data" / "ISIC2018_Task3_Test_Input"
    assert table["image"].tolist() == sorted(f.stem for f in source.glob("*.jpg"))
    assert ",".join(table.columns) == "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    assert table.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    assert all(dtype.kind == "f" for dtype in table.dtypes[1:])


def test_figures_are_drawn(chain):
    drawn = {file.name for file in chain.rglob("*.png") if "segmentation" not in file.name}
    assert {
        "task1_tiny_k0_v0_history.png",
        "task3_training_crops_examples.png",
        "task1_test_examples.png",
    } <= drawn


def test_nothing_partial_is_left(chain):
    assert not [file for file in chain.rglob("*") if "partial" in file.name]


def test_eval_prints_the_users_table(chain, run_script, monkeypatch):
    monkeypatch.setenv("ISIC_ROOT", str(chain))
    code, out, _ = run_script(seg_eval, "--backbone", "tiny", "--k-fold", 1, "--limit", 3)
    assert code == 0 and "on 3 images (fold 1, held out), at original size" in out
    assert re.search(r"^mean jaccard: 0\.\d{3}, threshold jaccard: 0\.\d{3}$", out, re.M)
    code, out, _ = run_script(seg_eval, "--backbone", "tiny", "--eval_set", "test", "--tta")
    assert code == 0 and "(the test set)" in out
    code, out, _ = run_script(cls_eval, "--backbone", "tiny", "--eval-set", "test")
    assert code == 0 and re.search(r"balanced accuracy: 0\.\d{3}", out)


def test_the_same_prediction_again_is_fine_another_is_refused(chain, run_script, monkeypatch):
    monkeypatch.setenv("ISIC_ROOT", str(chain))
    flags = ("mask", "--task", 3, "--backbone", "tiny", "--pred-set", "validation")
    assert run_script(seg_predict, *flags)[0] == 0
    code, _, err = run_script(seg_predict, *flags, "--threshold", 0.4)
    assert code == 1 and "threshold" in err and "--overwrite" in err and "Traceback" not in err
    assert run_script(seg_predict, *flags, "--threshold", 0.4, "--overwrite")[0] == 0
    assert run_script(seg_predict, *flags, "--overwrite")[0] == 0


@pytest.mark.parametrize(("task", "script", "settings"), [(1, seg_train, SEG), (3, cls_train, CLS)])
def test_a_fold_gives_the_same_weights_alone_and_after_another(copied, task, script, settings):
    """The second fold starts from the same weights, random states and optimiser as the first."""
    script.main(script.Settings(**settings | {"version": "alone", "folds": (1,)}))
    runs = [
        run_folder.find_runs(copied / "model_data", task, "tiny", version, [1])[0]
        for version in ("0", "alone")
    ]
    steps = np.ceil(run_folder.load_folds(runs[0])["fold"].value_counts() / settings["batch_size"])
    assert steps.nunique() == 1  # so that both folds of version 0 were trained by one net
    tensors = [weights_of(run) for run in runs]
    assert tensors[0].keys() == tensors[1].keys() and len(tensors[0]) > 20
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])
    assert runs[0].history.read_text() == runs[1].history.read_text()


def weights_of(run):
    tensors = {}
    with h5py.File(run.weights) as file:
        file.visititems(
            lambda name, item: (
                tensors.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return tensors


def test_one_net_serves_all_folds(root, monkeypatch):
    """It is built anew only where a schedule must have another length; the old one then goes."""
    import models.classifier

    built = []

    def small_net(backbone, image_size, **options):
        gc.collect()
        assert sum(reference() is not None for reference in built) <= 1
        images = keras.Input((image_size, image_size, 3), dtype="uint8")
        mean = keras.layers.GlobalAveragePooling2D(dtype="float32")(images)
        hidden = keras.layers.Dense(2, name="fc1")(mean)
        logits = keras.layers.Dense(options["num_classes"], name="logits")(hidden)
        built.append(weakref.ref(model := keras.Model(images, keras.layers.Softmax()(logits))))
        return model

    monkeypatch.setattr(models.classifier, "build_classifier", small_net)
    # 15 images: 7 and 8 to train on, as many steps
    quick = CLS | {"lesion_view": "whole", "epochs": 1, "batch_size": 1, "limit": 15}
    cls_train.main(cls_train.Settings(**quick | {"schedule": "plateau", "version": "p"}))
    assert len(built) == 1
    built.clear()
    cls_train.main(cls_train.Settings(**quick | {"version": "c"}))
    folds = run_folder.load_folds(run_folder.find_runs(root / "model_data", 3, "tiny", "c", [0])[0])
    assert len(built) == folds["fold"].value_counts().nunique()


def test_a_partly_trained_split_leaves_images_out(copied, run_script):
    shutil.rmtree(copied / "model_data" / "task1_tiny_k0_v0")
    flags = ("--backbone", "tiny", "--pred-set", "training", "--task", 1, "--overwrite")
    code, out, _ = run_script(seg_predict, "mask", *flags)
    assert code == 0 and "not trained: tiny:0 fold 0" in out and "left out" in out
    record = json.loads((copied / "submissions" / "task1_training.json").read_text())
    run = run_folder.find_runs(copied / "model_data", 1, "tiny", "0", [1])[0]
    held_out = run_folder.held_out_images(run_folder.load_folds(run), 1)
    total = len(list((copied / "data" / "ISIC2018_Task1-2_Training_Input").glob("*.jpg")))
    assert record["made_by"]["images_by_nets"] == {run.name: held_out}
    assert record["summary"]["images"] == len(held_out)
    assert record["summary"]["left_out"] == total - len(held_out)


# crop is what the chain trains on, whole what test_runs_scores.py does
@pytest.mark.parametrize("lesion_view", ["box", "feather"])
def test_each_view_trains_and_predicts(copied, lesion_view):
    if lesion_view == "feather":
        for images in ("training", "test"):
            seg_predict.main(
                seg_predict.Settings(
                    backbone="tiny", pred_set=images, edge="feather", format="webp"
                )
            )
            assert_fades(copied / "submissions", f"task3_{images}_crops")
    version = f"0-{lesion_view}"
    settings = CLS | {"lesion_view": lesion_view, "version": version, "epochs": 1, "folds": (0,)}
    cls_train.main(cls_train.Settings(**settings))
    means = cls_eval.main(cls_eval.Settings("tiny", version=version))
    assert 0 <= means["balanced_accuracy"] <= 1
    cls_predict.main(cls_predict.Settings("tiny", version=version, overwrite=True))
    assert (copied / "data" / "cache" / f"task3_test_{lesion_view}_64.npy").exists()


def assert_fades(submissions, name):
    """Crops with a soft edge beside those with a hard one: the same lesions, and more around."""
    hard, soft = submissions / name, submissions / f"{name}_feather"
    settings = [
        json.loads((submissions / f"{folder.name}.json").read_text())["made_by"]["settings"]
        for folder in (hard, soft)
    ]
    assert [part.get("edge_radius") for part in settings] == [None, 0.05]
    boxes = [pd.read_csv(folder / "crops.csv", index_col="image") for folder in (hard, soft)]
    assert boxes[0].index.equals(boxes[1].index)
    assert boxes[0]["lesion_pixels"].equals(boxes[1]["lesion_pixels"])
    wider = 0
    for image_id, old in boxes[0].iterrows():
        new = boxes[1].loc[image_id]
        cut, faded = (
            np.asarray(Image.open(file)).astype(int)
            for file in (hard / f"{image_id}.png", soft / f"{image_id}.webp")
        )
        assert faded.shape == (new["height"], new["width"], 3)
        top, left = old["top"] - new["top"], old["left"] - new["left"]
        same = faded[top : top + old["height"], left : left + old["width"]]
        assert (same >= cut).all()  # black outside the lesion in one, something or black in both
        lesion = cut.any(axis=2)
        assert (same[lesion] == cut[lesion]).all()
        wider += (faded > 0).sum() > (cut > 0).sum()
    assert wider > len(boxes[0]) / 2


def test_a_limit_means_the_same_images_to_prediction_and_training(copied):
    """Crops of the first N images are those that training asks for; here in a hold-out split."""
    seg_predict.main(seg_predict.Settings(backbone="tiny", limit=21, overwrite=True))
    limited = CLS | {"version": "limited", "epochs": 1, "limit": 21, "num_folds": 1}
    cls_train.main(cls_train.Settings(**limited))
    run = run_folder.find_runs(copied / "model_data", 3, "tiny", "limited", [0])[0]
    folds = run_folder.load_folds(run)
    assert len(folds) == 21 and set(folds["label"]) == set(range(7))
    assert set(folds["fold"]) == {0, 1} and (folds["fold"] == 1).mean() == pytest.approx(
        0.8, abs=0.1
    )


def test_what_is_stored_is_what_was_in_force(root):
    """No ImageNet weights of the tiny net: asked for or not, it is the same training."""
    settings = {"backbone": "tiny", "image_size": 32, "batch_size": 8, "num_folds": 1, "epochs": 1}
    seg_train.main(seg_train.Settings(**settings))
    run = run_folder.find_runs(root / "model_data", 1, "tiny", "0")[0]
    assert run.settings["weights"] == "none" and run.finished
    before = (run.folder / "settings.json").read_bytes()
    seg_train.main(seg_train.Settings(**settings, weights="none"))
    assert (run.folder / "settings.json").read_bytes() == before
