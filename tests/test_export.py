"""Bundles: export.py, and predict.py --bundle where nothing but a bundle's packages can be had."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cls_train
import cv2
import export as export_script
import keras
import numpy as np
import predict
import pytest
from quickly import draw_nothing

from deploy import answers, bundle, export, load, model_card, onnx_file, runtimes
from deploy.nets import Cut
from misc_utils.errors import UserError
from models.classifier import build_classifier

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or any(map(export.lacking, export.CONVERTERS)),
    reason="nets are exported with TensorFlow and the packages of requirements-dev.txt",
)

TINY = {
    "backbone": "tiny",
    "weights": "none",
    "image_size": 32,
    "num_folds": 2,
    "epochs": 1,
    "batch_size": 8,
}
# what predict.py --bundle must do without: all that requirements-bundle.txt does not bring
BLOCKED = ("keras", "tensorflow", "jax", "torch", "h5py", "onnx", "tf2onnx")
BLOCKED += ("pandas", "scipy", "sklearn", "skimage", "matplotlib")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, trained_root):
    """A root with data, trained and scored nets, and what was exported of them."""
    import cls_eval
    import cls_tune
    import seg_eval

    root = Path(shutil.copytree(trained_root, tmp_path_factory.mktemp("export") / "root"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISIC_ROOT", str(root))
        draw_nothing(patch)
        seg_eval.main(seg_eval.Settings(backbone="tiny", k_fold="all"))
        cls_eval.main(cls_eval.Settings(backbone="tiny", k_fold="all"))
        cls_tune.main(cls_tune.Settings(backbone="tiny", decision_weights=True))
        export_script.main(export_script.Settings(verify_images=5))
    return root


@pytest.fixture
def copy(at_root, tmp_path):
    """A copy of the bundle, to damage."""
    return Path(shutil.copytree(at_root / "submissions/bundle", tmp_path / "copy"))


@pytest.fixture
def photos(tmp_path, drawn_data):
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted((drawn_data / "ISIC2018_Task3_Test_Input").glob("*.jpg"))[:5]:
        shutil.copy(file, folder)
    (folder / "broken.jpg").write_text("no picture")
    return folder


def described(folder):
    return json.loads((folder / "bundle.json").read_text())


def answered(root, name):
    return json.loads((root / "submissions" / name / "predictions.json").read_text())["images"]


def same_answers(root, one, other, most=1e-5):
    """Whether two folders of predictions say the same, apart from the last digits."""
    for left, right in zip(answered(root, one), answered(root, other), strict=True):
        assert left.keys() == right.keys() and left["name"] == right["name"]
        if "reason" in left:
            assert left["reason"] == right["reason"]
            continue
        assert left["class"] == right["class"] and left["box"] == right["box"]
        for name, value in left["probability"].items():
            assert right["probability"][name] == pytest.approx(value, abs=most)
        for name in ("agreement", "spread", "unlikeness", "mask_agreement", "lesion_share"):
            assert right[name] == pytest.approx(left[name], abs=1e-3), name
        masks = [
            cv2.imread(str(root / "submissions" / name / row["files"]["masks"]), -1)
            for name, row in ((one, left), (other, right))
        ]
        assert (masks[0] == masks[1]).mean() >= export.LEAST_ALIKE


def test_a_bundle_says_what_its_answers_depend_on(at_root):
    folder = at_root / "submissions/bundle"
    content = described(folder)
    assert (
        content["format"] == bundle.FORMAT
        and content["net_format"] == "onnx"
        and "Not for diagnosis" in content["use"]
    )
    names = {f"task{task}_tiny_k{fold}_v0" for task in (1, 3) for fold in (0, 1)}
    assert content["made_from"].keys() == names
    nets = content["masks"]["nets"] + content["classes"]["nets"]
    assert {net["name"] for net in nets} == names
    listed = {*content["files"], "bundle.json", "MODEL_CARD.md"}
    assert {file.name for file in folder.iterdir()} == listed and len(listed) == 10
    assert content["classes"]["by_views"]["1"]["tuned"]
    assert not content["classes"]["by_views"]["8"]["tuned"]
    compared = content["compared"]
    assert compared["images"] == 5 and compared["source"] == "training images of isic2018"
    assert compared["least_alike"] >= 0.999 and compared["most_apart"] < 1e-4
    assert list((at_root / "submissions").glob(".exported_*")) == []
    found = load.find_trained(at_root / "model_data", None, None)
    for net in content["classes"]["nets"]:
        with np.load(folder / net["reference"]["file"]) as kept:
            assert kept["features"].dtype == np.float16
            assert kept["features"].shape == (net["reference"]["images"], 64)
        assert content["made_from"][net["name"]]["weights_sha256"] in (
            found.classifier.weight_hashes.values()
        )


def test_nets_answer_for_any_number_of_images(at_root):
    import onnxruntime

    folder = at_root / "submissions/bundle"
    net = described(folder)["classes"]["nets"][0]
    session = onnxruntime.InferenceSession(folder / net["file"])
    (taken,), given = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("image", ["batch", 32, 32, 3], "tensor(uint8)")
    assert [entry.name for entry in given] == ["logits", "pooled", "features"]
    assert session.get_modelmeta().custom_metadata_map["use"] == answers.NOT_FOR_DIAGNOSIS
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    together = session.run(None, {"image": images})
    for row, image in enumerate(images):
        for one, all_of_them in zip(
            session.run(None, {"image": image[None]}), together, strict=True
        ):
            np.testing.assert_allclose(one[0], all_of_them[row], atol=1e-5)
    np.testing.assert_allclose(together[2].mean(axis=(1, 2)), together[1], atol=1e-5)


@pytest.fixture
def blocked(tmp_path):
    """An environment in which nothing but the packages of requirements-bundle.txt is imported."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
"""
    )
    (tmp_path / "root").mkdir()
    return os.environ | {"PYTHONPATH": str(folder), "ISIC_ROOT": str(tmp_path / "root")}


def test_the_same_answers_without_keras(at_root, photos, tmp_path, blocked, run_script):
    code = "import importlib, sys; importlib.import_module(sys.argv[1])"
    for name in ("keras", "pandas"):
        done = subprocess.run([sys.executable, "-c", code, name], env=blocked, capture_output=True)
        assert done.returncode == 1 and b"is blocked" in done.stderr
    folder = shutil.copytree(at_root / "submissions/bundle", tmp_path / "elsewhere")
    for flags in ((), ("--tta",)):
        name = "without" + "_tta" * bool(flags)
        command = [sys.executable, ROOT / "runs/predict.py", photos, "--bundle", folder, *flags]
        command += ["--name", name, "--batch-size", "4"]
        done = subprocess.run(command, env=blocked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "answered: 5, not answered: 1" in done.stdout
        written = tmp_path / "root/submissions" / name
        page = (written / "index.html").read_text()
        assert page.count("<article") == 6 and "task3_tiny_v0" in page
        shutil.copytree(written, at_root / "submissions" / name)
        code, _, err = run_script(predict, photos, "--name", f"{name}_keras", *flags)
        assert code == 0, err
        same_answers(at_root, name, f"{name}_keras")


def test_an_archive_gets_the_same_answers(at_root, photos, tmp_path, blocked, run_script):
    tables = pytest.importorskip("pyarrow.parquet")
    folder = at_root / "submissions/bundle"
    asked = ["--bundle", folder, "--name", "of_archive", "--batch-size", "4"]
    assert run_script(predict, photos, *asked)[0] == 0
    for script, *flags in (
        ("predict_archive.py", photos, *asked, "--part-size", "4"),
        ("merge_archive.py", "--name", "of_archive"),
    ):
        command = [sys.executable, ROOT / "runs" / script, *flags]
        done = subprocess.run(command, env=blocked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    written = tmp_path / "root/submissions/of_archive"
    rows = tables.read_table(written / "predictions.parquet").to_pylist()
    expected = answered(at_root, "of_archive")
    for row, said in zip(rows, sorted(expected, key=lambda one: one["path"]), strict=True):
        assert row["path"] == said["path"] and (row["reason"] or None) == said.get("reason")
        if row["reason"]:
            continue
        assert row["class"] == said["class"]
        box = [row[f"box_{part}"] for part in ("top", "left", "height", "width")]
        assert box == said["box"] and row["unlikeness"] == pytest.approx(said["unlikeness"])
        for name, value in said["probability"].items():
            assert row[f"probability_{name}"] == pytest.approx(value, abs=1e-6)


@pytest.fixture
def one_net(tmp_path, trained):
    """A root with a single fold of the classifier."""
    root = tmp_path / "one"
    (root / "model_data").mkdir(parents=True)
    name = "task3_tiny_k0_v0"
    shutil.copytree(trained / "model_data" / name, root / "model_data" / name)
    (root / "data").symlink_to(trained / "data")
    return root


def test_a_bundle_of_litert_needs_neither_keras_nor_onnxruntime(
    one_net, photos, tmp_path, blocked, run_script, monkeypatch
):
    monkeypatch.setenv("ISIC_ROOT", str(one_net))
    flags = ("--format", "litert", "--half", "--no-mask", "--verify-images", "2")
    code, out, err = run_script(export_script, *flags)
    assert code == 0 and "probabilities" in out, err
    folder = one_net / "submissions/bundle"
    content = described(folder)
    assert content["net_format"] == "litert" and content["compared"]["most_apart"] > 1e-8
    (net,) = content["classes"]["nets"]
    weights = one_net / "model_data/task3_tiny_k0_v0/task3_tiny_k0_v0.weights.h5"
    size = (folder / net["file"]).stat().st_size
    assert net["file"].endswith(".tflite") and size < 0.7 * weights.stat().st_size
    card = (folder / model_card.NAME).read_text()
    assert "library_name: tflite" in card and "LiteRT files" in card and "ONNX" not in card
    code, _, err = run_script(export_script, "--no-mask")
    assert code == 1 and "settings.format" in err

    (tmp_path / "blocker/onnxruntime.py").write_text("raise ImportError('blocked')")
    command = [sys.executable, ROOT / "runs/predict.py", photos, "--bundle", folder, "--no-mask"]
    done = subprocess.run(
        [*command, "--batch-size", "3"], env=blocked, capture_output=True, text=True
    )
    assert done.returncode == 0 and "XNNPACK" not in done.stderr, done.stderr
    found = answered(tmp_path / "root", "predictions")
    predictor = load.load_predictor(
        one_net, load.find_trained(one_net / "model_data", None, None, mask=False)
    )
    answers_there = [row for row in found if "reason" not in row]
    assert len(answers_there) == 5
    for row in answers_there[:2]:
        for name, value in predictor.predict(Path(row["path"]).read_bytes()).probability.items():
            assert row["probability"][name] == pytest.approx(value, abs=1e-3)


def test_what_is_done_is_left_alone(at_root, photos, run_script):
    folder = at_root / "submissions/bundle"
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, out, err = run_script(export_script)
    assert code == 0 and "is there already" in out, err
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    code, _, err = run_script(export_script, "--no-mask")
    assert code == 1 and "--overwrite" in err
    # answers of a bundle and of the trainings are not mixed
    code, _, err = run_script(predict, photos, "--bundle", folder, "--name", "mixed")
    assert code == 0, err
    code, _, err = run_script(predict, photos, "--name", "mixed")
    assert code == 1 and "--overwrite" in err


def test_answers_of_a_bundle_that_was_written_again_are_not_mixed(copy, photos, run_script):
    flags = (photos, "--bundle", copy, "--name", "again")
    code, _, err = run_script(predict, *flags)
    assert code == 0, err
    by_views = described(copy)["classes"]["by_views"]
    by_views["1"]["temperature"] = 3.5
    change(copy, classes=described(copy)["classes"] | {"by_views": by_views})
    code, _, err = run_script(predict, *flags)
    assert code == 1 and "bundle: " in err and "--overwrite" in err


def test_of_earlier_bundles_all_lesions_are_cut_alike(copy):
    content = described(copy)
    about = content["classes"] | {"crop_margin": 0.2, "edge_radius": 0.1}
    for net in about["nets"]:
        assert net.pop("cut") == {"crop_margin": 0.0, "edge_radius": 0.05}
    change(copy, classes=about)
    loaded = bundle.load_bundle(bundle.read_bundle(copy))
    assert {net.cut for net in loaded.class_nets} == {Cut(0.2, 0.1)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "bundle.json").unlink(), "this is no bundle"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "cannot be read as a bundle"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "cannot be read as a bundle"),
        (lambda folder: change(folder, format=99), "format 99"),
        (lambda folder: change(folder, net_format="rolls"), "its nets are rolls files"),
        (lambda folder: change(folder, classes=None), "this bundle has no classifier"),
        (lambda folder: change(folder, masks={"name": "x"}), "cannot be read as a bundle"),
        (lambda folder: change(folder, files={}), "cannot be read as a bundle"),
        (lambda folder: next(folder.glob("*task1*.onnx")).unlink(), "there is no such file"),
        (lambda folder: next(folder.glob("*_head.npz")).unlink(), "there is no such file"),
        (lambda folder: spoil(next(folder.glob("*task3*.onnx"))), "its SHA-256 is another"),
        (lambda folder: spoil(next(folder.glob("*_reference.npz"))), "its SHA-256 is another"),
        (lambda folder: outside(folder), "is not the name of a file"),
    ],
)
def test_a_damaged_bundle_ends_in_one_message(damage, message, copy, photos, run_script):
    damage(copy)
    code, out, err = run_script(predict, photos, "--bundle", copy, "--name", "damaged")
    assert code == 1 and message in err and "Traceback" not in err and "answering" not in out
    assert len(err.strip().splitlines()) == 1


def change(folder, **values):
    (folder / "bundle.json").write_text(json.dumps(described(folder) | values))


def spoil(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def outside(folder):
    content = described(folder)
    net = content["masks"]["nets"][0]
    content["files"]["../net.onnx"] = content["files"][net["file"]]
    net["file"] = "../net.onnx"
    change(folder, **content)


def test_nets_of_earlier_bundles_are_onnx(copy):
    content = described(copy)
    del content["net_format"]
    (copy / "bundle.json").write_text(json.dumps(content))
    assert len(bundle.load_bundle(bundle.read_bundle(copy)).names) == 4


def test_flags_that_do_not_fit_a_bundle(copy, photos, run_script):
    code, _, err = run_script(predict, photos, "--bundle", copy, "--segmenter", "tiny:0")
    assert code == 1 and "leave out --segmenter" in err
    code, _, err = run_script(predict, photos, "--bundle", photos)
    assert code == 1 and "this is no bundle" in err


def test_halves_and_halved(at_root, photos, run_script, monkeypatch):
    """Only one half; weights as float16; drawn images where those of the training are not there."""
    monkeypatch.setattr(export, "open_dataset_of", refuse)
    code, out, err = run_script(export_script, "--no-mask", "--half", "--name", "half")
    assert code == 0, err
    assert "on 8 drawn images" in out and "probabilities" in out and "masks" not in out
    folder = at_root / "submissions/half"
    half = described(folder)
    assert half["masks"] is None and half["half"] and half["compared"]["most_apart"] > 1e-7
    sizes = [
        sum(file.stat().st_size for file in place.glob("task3*.onnx"))
        for place in (folder, at_root / "submissions/bundle")
    ]
    assert sizes[0] < 0.6 * sizes[1]
    code, _, err = run_script(predict, photos, "--bundle", folder, "--name", "half_asked")
    assert code == 1 and "--no-mask" in err
    code, _, err = run_script(
        predict, photos, "--bundle", folder, "--name", "half_asked", "--no-mask"
    )
    assert code == 0, err


def refuse(*_):
    raise UserError("not there")


def test_a_bundle_that_answers_otherwise_is_not_written(at_root, run_script, monkeypatch):
    loaded = bundle.load_bundle

    def three_times_as_sure(*arguments):
        predictor = loaded(*arguments)
        net = predictor.class_nets[0]

        def classify(batch):
            logits, *rest = net.classify(batch)
            return 3 * logits, *rest

        return replace(predictor, class_nets=[replace(net, classify=classify)])

    monkeypatch.setattr(bundle, "load_bundle", three_times_as_sure)
    folder = at_root / "submissions/bundle"
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, _, err = run_script(export_script, "--overwrite", "--verify-images", "2")
    assert code == 1 and "no bundle was written" in err and "probabilities" in err
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert list((at_root / "submissions").glob(".exported_*")) == []
    assert bundle.is_whole(folder)


def test_the_model_card_is_filled_from_files(at_root):
    card = (at_root / "submissions/bundle" / model_card.NAME).read_text()
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    rows = dict(re.findall(r"(?m)^(\w+): (.+)$", head))
    assert rows["license"] == "other"  # the images are drawn, whatever the data set is called
    assert "\ntags:\n- " in head and "\ndatasets:\n- isic2018" in head
    assert "\nmetrics:\n- jaccard" in head and "- balanced_accuracy" in head
    assert "Not for diagnosis" in body and "## Intended use" in body
    assert "Computer drawings" in body  # LICENSE.txt beside the images
    found = load.find_trained(at_root / "model_data", None, None)
    for runs in found.both:
        scores = json.loads(runs.file("scores_fold.json").read_text())
        name = "jaccard" if runs.task == 1 else "balanced_accuracy"
        low, high = scores["intervals_95"][name]
        assert f"{scores[name]:.3f} ({low:.3f} to {high:.3f})" in body
        assert all(digest in body for digest in runs.weight_hashes.values())
        assert len(runs.folds[runs.runs[0].name]) > 0
    for line in ("mostly light skin", "Held-out images come from", "temperature"):
        assert line in body
    for line in body.splitlines():  # every row of a table has as many cells as its head
        if line.startswith("|"):
            assert line.endswith("|")


def test_trainings_have_a_card_too(at_root):
    found = load.find_trained(at_root / "model_data", None, None)
    for runs, tuned in ((found.segmenter, "Not tuned"), (found.classifier, "temperature")):
        card = (runs.folder / model_card.NAME).read_text()
        assert "library_name: keras" in card and "Not for diagnosis" in card
        assert "ONNX" not in card and "bundle" not in card and tuned in card
        scores = json.loads(runs.file("scores_fold.json").read_text())
        name = "jaccard" if runs.task == 1 else "balanced_accuracy"
        assert f"{scores[name]:.3f} ({scores['intervals_95'][name][0]:.3f} to" in card
        for run in runs.runs:
            assert f"`{run.name}/{run.weights.name}`" in card
            assert (runs.folder.parent / run.name / run.weights.name).is_file()
    assert "BCC, basal cell carcinoma |" in card


def test_the_card_says_what_the_intervals_were_found_by(at_root):
    found = load.find_trained(at_root / "model_data", None, None)
    for runs, what in ((found.segmenter, "images"), (found.classifier, "lesions, with all their")):
        card = (runs.folder / model_card.NAME).read_text()
        assert re.findall(r"by resampling (.*?)[.]", card.replace("\n", " ")), card
        assert all(one.startswith(what) for one in re.findall(r"by resampling (.*?)[.]", card))


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("misc_utils.messages.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tf2onnx, onnx, onnxruntime .*requirements-export\.txt"):
        export.check_packages("onnx")
    with pytest.raises(UserError, match=r"(?s)requirements-bundle-litert\.txt.*Linux"):
        export.check_packages("litert")


def test_a_runtime_that_is_missing_is_said(copy, monkeypatch):
    for name in ("onnxruntime", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"onnxruntime cannot be loaded.*requirements-bundle\.txt"):
        bundle.load_bundle(bundle.read_bundle(copy))
    change(copy, net_format="litert")
    with pytest.raises(
        UserError, match=r"ai-edge-litert cannot be loaded.*-litert\.txt\nThere are"
    ):
        bundle.load_bundle(bundle.read_bundle(copy))


@pytest.fixture
def session_of():
    """Converts a model; what it says of images, by Keras and by the file."""

    def answers_of(model, *taken, net_format="onnx"):
        content = export.CONVERTERS[net_format].convert(model, "net", ["said"], {})
        run = runtimes.load_net(net_format, Path("net"), content, ["said"])
        names = [entry.name for entry in model.inputs]
        (said,) = run(dict(zip(names, taken, strict=True)))
        asked = taken[0] if len(taken) == 1 else list(taken)
        return np.asarray(model.predict_on_batch(asked)), said

    return answers_of


@pytest.mark.parametrize("net_format", export.CONVERTERS)
def test_layers_that_converters_do_not_know(net_format, session_of):
    """Those of DenseNet, EfficientNetV2, ConvNeXt and decoders; they are replaced by others."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, dtype="float32")(image)
    x = x / keras.ops.convert_to_tensor(np.array([1.0, 2.0, 3.0], np.float32))
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(x)
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.Conv2D(4, 3, groups=4, padding="same")(x)
    x = keras.layers.Activation("gelu")(x)
    x = keras.layers.Conv2DTranspose(5, 2, strides=2)(x)
    model = keras.Model(image, x)
    random = np.random.default_rng(0)
    for layer in (model.layers[-3], model.layers[-1]):
        layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    before = [weights.copy() for weights in model.get_weights()]
    expected, found = session_of(model, images, net_format=net_format)
    assert np.abs(expected).max() > 1 and found.shape == (2, 12, 12, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_net_that_takes_metadata_is_told_that_nothing_is_known(
    tmp_path, drawn_data, photos, monkeypatch, run_script
):
    root = tmp_path / "another"
    (root / "data").mkdir(parents=True)
    for folder in drawn_data.glob("ISIC2018_*"):
        (root / "data" / folder.name).symlink_to(folder)
    images = sorted((drawn_data / "ISIC2018_Task3_Training_Input").glob("*.jpg"))
    rows = [f"{file.stem},{30 + k},male,back" for k, file in enumerate(images)]
    table = "\n".join(["image_id,age,sex,localization", *rows])
    (root / "data/HAM10000_metadata.csv").write_text(table)
    monkeypatch.setenv("ISIC_ROOT", str(root))
    settings = {**TINY, "lesion_view": "whole", "metadata": True, "folds": (0,)}
    cls_train.main(cls_train.Settings(**settings))
    code, _, err = run_script(export_script, "--no-mask", "--name", "known")
    assert code == 0, err
    (net,) = described(root / "submissions/known")["classes"]["nets"]
    assert net["metadata"]["sites"] == ["back"]
    assert net["metadata"]["nothing_known"] == [0, 1, 0, 0, 1, 0, 1]
    for name, flags in (("keras", ()), ("onnx", ("--bundle", root / "submissions/known"))):
        code, _, err = run_script(predict, photos, "--no-mask", "--name", name, *flags)
        assert code == 0, err
    pairs = zip(answered(root, "keras"), answered(root, "onnx"), strict=True)
    for one, other in pairs:
        for name, value in one.get("probability", {}).items():
            assert other["probability"][name] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("size", [24, 48, 56, 112])
def test_maps_of_any_size_are_enlarged(size, session_of):
    """Of InceptionV3 and Xception they are; what follows must not take itself for trained."""
    keras.utils.set_random_seed(1)
    image = keras.Input((size - 1, size - 1, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    skip = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = keras.layers.Resizing(size, size, interpolation="bilinear")(x)
    x = keras.layers.Concatenate()([x, skip])
    model = keras.Model(image, keras.layers.BatchNormalization()(x))
    images = np.random.default_rng(0).integers(0, 256, (2, size - 1, size - 1, 3), np.uint8)
    expected, found = session_of(model, images)
    assert found.shape == (2, size, size, 6)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_age_sex_and_site_are_a_second_input(session_of):
    model = build_classifier("tiny", image_size=32, weights="none", num_metadata=6)
    model = keras.Model(model.inputs, model.get_layer("logits").output)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    numbers = np.random.default_rng(1).random((2, 6), np.float32)
    expected, found = session_of(model, images, numbers)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_net_that_cannot_be_converted_is_named():
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, dtype="float32")(image)
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.Conv2D(8, 3, groups=2)(x)  # neither one group nor a group for each filter
    with pytest.raises(UserError, match="strange: this net cannot be written as ONNX"):
        onnx_file.convert(keras.Model(image, x), "strange", ["said"], {})
