"""predict.py and what stands behind it, with nets of a minute's training."""

import errno
import json
import os
import shutil
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import predict
import pytest

from datasets import lesion_crops
from deploy import answers, load, sources
from deploy.kept_features import load_reference
from deploy.nets import Cut
from evaluation import tuned
from evaluation.calibration import ClassChoice
from inference import ensemble
from inference.scope import Scope
from misc_utils import provenance
from misc_utils.errors import UserError

TINY = {
    "backbone": "tiny",
    "weights": "none",
    "image_size": 32,
    "num_folds": 2,
    "epochs": 1,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, trained_root):
    """A root with data, a segmenter and a classifier of two folds each."""
    return shutil.copytree(trained_root, tmp_path_factory.mktemp("predict") / "root")


@pytest.fixture
def mixed(tmp_path, drawn_data):
    """Thirty files of many kinds in a folder, three of them broken, and a zip archive."""
    folder = tmp_path / "my photos"
    (folder / "sub").mkdir(parents=True)
    drawn = sorted((drawn_data / "ISIC2018_Task3_Training_Input").glob("*.jpg"))
    for number, file in enumerate(drawn[:25]):
        picture = cv2.imread(str(file))
        ending = (".jpg", ".png", ".bmp", ".tif", ".webp")[number % 5]
        place = folder / "sub" if number % 2 else folder
        cv2.imwrite(str(place / f"photo {number // 2} ü{ending}"), picture)
    (folder / "broken.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "cut.jpg").write_bytes(drawn[0].read_bytes()[:700])
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.jpg").write_bytes(drawn[0].read_bytes())
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(drawn[26], "deep/one.jpg")
        archive.write(drawn[27], "__MACOSX/._one.jpg")
        archive.write(drawn[27], "photo 1 ü.jpg")
    return tmp_path


def rows_of(root, name="predictions"):
    return json.loads((root / "submissions" / name / "predictions.json").read_text())["images"]


def test_a_folder_of_everything(at_root, mixed, run_script):
    flags = (mixed / "my photos", mixed / "more.zip", "--name", "mixed", "--batch-size", "4")
    code, out, err = run_script(predict, *flags)
    assert code == 0, err
    rows = rows_of(at_root, "mixed")
    assert len(rows) == 30 and len({row["name"] for row in rows}) == 30
    failed = {row["path"].rsplit("/")[-1]: row["reason"] for row in rows if "reason" in row}
    assert set(failed) == {"broken.jpg", "empty.png", "cut.jpg"}
    assert "the file is empty" in failed["empty.png"]
    assert "answered: 27, not answered: 3" in out and "broken.jpg: no picture" in out
    folder = at_root / "submissions/mixed"
    for row in rows:
        if "reason" in row:
            continue
        assert sum(row["probability"].values()) == pytest.approx(1, abs=1e-6)
        assert row["class"] == max(row["probability"], key=row["probability"].get)
        assert 0 <= row["agreement"] <= 1 and 0 <= row["mask_agreement"] <= 1
        assert row["unlike_training_images"] == (row["unlikeness"] > 1)
        mask = cv2.imread(str(folder / row["files"]["masks"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (row["height"], row["width"]) and set(np.unique(mask)) <= {0, 255}
        assert row["lesion_share"] == pytest.approx((mask > 0).mean())
        assert set(row["files"]) == {"overlays", "masks", "crops", "heat"}
        assert all((folder / file).is_file() for file in row["files"].values())
    table = pd.read_csv(folder / "predictions.csv")
    assert table["name"].tolist() == [row["name"] for row in rows]
    assert table["MEL"].notna().sum() == 27 and table["reason"].notna().sum() == 3
    page = (folder / "index.html").read_text()
    assert page.count("<article") == 30 and "Not for diagnosis" in page
    assert 'src="http' not in page and 'src="//' not in page

    # once more: nothing is asked again; a picture that was lost, or another content, is
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix == ".png"}
    code, out, _ = run_script(predict, *flags)
    assert code == 0 and "30 of 30 are there already" in out and "answering" not in out
    lost = folder / rows[5]["files"]["masks"]
    kept = lost.read_bytes()
    lost.unlink()
    code, out, _ = run_script(predict, *flags)
    assert "29 of 30 are there already" in out and lost.read_bytes() == kept
    after = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix == ".png"}
    assert {file for file in before if before[file] != after[file]} == {lost}
    # other nets or settings are refused until told
    code, _, err = run_script(predict, *flags, "--no-mask")
    assert code == 1 and "--overwrite" in err


def test_answers_do_not_depend_on_their_batch(at_root, drawn_data):
    found = load.find_trained(at_root / "model_data", None, None)
    predictor = load.load_predictor(at_root, found)
    files = sorted((drawn_data / "ISIC2018_Task3_Test_Input").glob("*.jpg"))[:3]
    one_by_one = [predictor.predict(file.read_bytes()) for file in files]
    from datasets.pictures import read_original

    together = predictor.predict_batch([read_original(file) for file in files])
    for alone, among in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(alone.mask, among.mask)
        for name, value in alone.probability.items():
            assert among.probability[name] == pytest.approx(value, abs=1e-5)
        np.testing.assert_allclose(alone.heat, among.heat, atol=1e-3)
        assert alone.unlikeness == pytest.approx(among.unlikeness, abs=1e-3)
        assert alone.seen.shape == (32, 32, 3) and alone.heat.max() <= 1
    with pytest.raises(ValueError, match="no picture"):
        predictor.predict(b"nonsense")


def test_the_answer_is_that_of_the_other_scripts(at_root, run_script):
    """The masks and probabilities of a whole test set are those that cls_predict.py writes."""
    import cls_predict
    import seg_predict

    for script, *flags in (
        (seg_predict, "mask", "--backbone", "tiny", "--task", "3", "--pred-set", "test"),
        (cls_predict, "--backbone", "tiny", "--pred-set", "test", "--no-browse"),
        (predict, at_root / "data/ISIC2018_Task3_Test_Input", "--name", "test"),
    ):
        code, _, err = run_script(script, *flags)
        assert code == 0, err
    table = pd.read_csv(at_root / "submissions/task3_test_submission.csv").set_index("image")
    for row in rows_of(at_root, "test"):
        expected = table.loc[row["name"]]
        for name, value in row["probability"].items():
            assert value == pytest.approx(expected[name], abs=1e-5)
        mask = cv2.imread(str(at_root / "submissions/test" / row["files"]["masks"]), -1)
        file = at_root / "submissions/task3_test_masks" / f"{row['name']}_segmentation.png"
        np.testing.assert_array_equal(mask, cv2.imread(str(file), -1))


def test_the_notebook_runs(at_root, monkeypatch, capsys):
    notebook = json.loads((Path(__file__).parents[1] / "docs/predict.ipynb").read_text())
    monkeypatch.chdir(Path(__file__).parents[1] / "docs")
    monkeypatch.setattr("sys.path", list(sys.path))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert (
        names["root"] == at_root and names["prediction"].decided in names["prediction"].probability
    )
    said = capsys.readouterr().out
    assert names["file"].name in said and "unlikeness: " in said


def test_only_one_half_and_only_overlays(at_root, mixed, run_script):
    image = mixed / "my photos" / "photo 0 ü.jpg"
    code, _, err = run_script(predict, image, "--no-classes", "--overlay-only", "--name", "half")
    assert code == 0, err
    (row,) = rows_of(at_root, "half")
    assert set(row["files"]) == {"overlays"} and "probability" not in row
    code, _, err = run_script(predict, image, "--no-mask", "--name", "other", "--tta")
    assert code == 0, err
    (row,) = rows_of(at_root, "other")
    assert set(row["files"]) == {"overlays", "heat"} and "lesion_share" not in row
    assert row["spread"] > 0  # over two nets and eight views


def test_what_is_not_there_is_said(at_root, tmp_path, run_script):
    (tmp_path / "itself").symlink_to("itself")
    for flags, message in (
        ((tmp_path / "nothing",), "there is no such file or folder"),
        (("~nobody of this name/x",), "there is no such file or folder"),
        ((tmp_path / "itself",), "there is no such file or folder"),
        ((), "no images are named"),
        ((tmp_path,), "no image in it"),
        ((tmp_path, "--segmenter", "vgg16:0"), "no trained run of task 1"),
        ((tmp_path, "--name", "../x"), "--name"),
        ((tmp_path, "--name", "task3_test"), "--name"),
    ):
        code, _, err = run_script(predict, *flags)
        assert code == 1 and message in err and "Traceback" not in err
    (tmp_path / "bad.zip").write_text("no archive")
    code, _, err = run_script(predict, tmp_path / "bad.zip")
    assert code == 1 and "cannot be read as an archive" in err


def test_which_training_answers(tmp_path, monkeypatch, at_root):
    with pytest.raises(UserError, match=r"0 trainings of the lesion boundary.*--no-mask"):
        load.find_trained(tmp_path, None, None)
    found = load.find_trained(at_root / "model_data", "tiny:0", "tiny:0")
    assert len(found.segmenter.runs) == 2 and len(found.weight_hashes) == 4
    assert load.find_trained(at_root / "model_data", None, None, classes=False).classifier is None


def test_features_are_kept_by_training_and_hold_for_these_weights(at_root):
    runs = ensemble.find_ensemble(at_root / "model_data", 3, "tiny", "0")
    references = [load_reference(run) for run in runs.runs]
    for run, reference in zip(runs.runs, references, strict=True):
        folds = runs.folds[run.name]
        assert len(reference.features) == (folds["fold"] != run.k_fold).sum()
        assert reference.threshold > 0
    run = runs.runs[0]
    file = run.file("features.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    assert load_reference(run) is None
    predictor = load.load_predictor(at_root, load.find_trained(at_root / "model_data", None, None))
    again = load_reference(run)  # made again, as the images are there
    np.testing.assert_array_equal(again.features, references[0].features)
    assert predictor.class_nets[0].reference.threshold == references[0].threshold
    weights = run.weights.read_bytes()
    run.weights.write_bytes(weights + b" ")
    assert load_reference(run) is None
    run.weights.write_bytes(weights)


def test_names_of_results_are_short_and_apart(tmp_path):
    for name in ("a b.jpg", "a_b.png", "ä/ö.jpg", "x" * 120 + ".jpg", "...jpg"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "A b.JPG").touch()
    names = [source.name for source in sources.find_sources([str(tmp_path)])]
    assert len({name.casefold() for name in names}) == len(names) == 5  # ...jpg is hidden
    assert all(len(name) <= 84 and "/" not in name and " " not in name for name in names)


def test_names_of_results_fit_on_any_disk(tmp_path):
    (tmp_path / f"{'病' * 80}.jpg").touch()
    (tmp_path / f"{'病' * 79}変.jpg").touch()
    one, other = sources.find_sources([str(tmp_path)])
    assert one.name == "病" * 26 and other.name == f"{one.name}-2"


def test_a_folder_is_looked_through_as_an_archive_is(tmp_path):
    """Links are followed; what cannot be read is an image with a reason, or ends the command."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").write_bytes(b"content")
    (tmp_path / "photos/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/broken.png").symlink_to("nowhere")
    (tmp_path / "photos/itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "photos/pipe.png")
    found = {source.name: source for source in sources.find_sources([str(tmp_path / "photos")])}
    assert list(found) == ["broken", "itself", "a", "pipe"]
    assert found["a"].read() == b"content" and found["a"].shown.endswith("photos/link/a.png")
    for name in ("broken", "itself", "pipe"):
        with pytest.raises((OSError, ValueError)):
            found[name].read()
    (tmp_path / "photos/round").symlink_to(tmp_path / "photos")
    with pytest.raises(UserError, match="leads back to a folder that it is in"):
        sources.find_sources([str(tmp_path / "photos")])


def test_many_images_of_one_name_are_numbered_in_no_time(tmp_path):
    found = ((f"{k}/image.jpg", None) for k in range(20_000))
    began = time.perf_counter()
    names = [one.name for one in sources._named(found)]
    assert names[0] == "image" and names[-1] == "image-20000" and len(set(names)) == 20_000
    assert time.perf_counter() - began < 10  # it was more than a minute


def test_a_folder_that_cannot_be_listed_ends_the_command(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def refuse(folder):
        if os.fsdecode(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed: no permission to look into this folder"):
        sources.find_sources([str(tmp_path)])


def test_no_entry_of_a_zip_archive_vanishes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened, pytest.warns(UserWarning):
        for name, content in (
            ("../photos/a.png", b"above"),
            ("b.png", b"one"),
            ("b.png", b"other"),
            (".hidden/c.png", b""),
        ):
            opened.writestr(name, content)
    found = sources.find_sources([str(tmp_path / "a.zip"), str(tmp_path / "a.zip")])
    assert [source.name for source in found] == ["a", "b", "b-2"]
    assert [source.read() for source in found] == [b"above", b"one", b"other"]


def damaged_zip(file, method):
    """A zip archive of two images, the first of whose content is damaged."""
    content = np.random.default_rng(0).integers(0, 4, 5000, np.uint8).tobytes()
    with zipfile.ZipFile(file, "w", method) as opened:
        opened.writestr("bad.png", content)
        opened.writestr("good.png", content)
    damaged = bytearray(file.read_bytes())
    damaged[60:90] = bytes(range(200, 230))
    file.write_bytes(damaged)
    return content


@pytest.mark.parametrize("method", (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
def test_an_entry_that_cannot_be_unpacked_is_the_only_one_lost(tmp_path, method):
    content = damaged_zip(tmp_path / "a.zip", method)
    bad, good = sources.find_sources([str(tmp_path / "a.zip")])
    with pytest.raises(ValueError, match=r"cannot be unpacked|Invalid data"):
        bad.read()
    assert good.read() == content


def damage_name(content):
    """UTF-8 is said of the names, which are not."""
    return content.replace("ä".encode(), b"\xff\xff")


def damage_version(content):
    """A later version of the format than there is, in the directory."""
    place = content.index(b"PK\1\2") + 6
    return content[:place] + b"\xff" + content[place + 1 :]


def damage_to_nothing(content):
    """A name that begins with the byte that ends names."""
    place = content.index(b"PK\1\2") + 46
    return content[:place] + b"\0" + content[place + 1 :]


@pytest.mark.parametrize(
    "damage, said",
    (
        (damage_name, "cannot be read as an archive"),
        (damage_version, "cannot be read as an archive"),
        (damage_to_nothing, "no image in it"),
    ),
)
def test_a_damaged_directory_of_a_zip_archive_is_said(damage, said, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a/ä.png", b"content")
    content = damage((tmp_path / "a.zip").read_bytes())
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=f"a.zip: {said}"):
        sources.find_sources([str(tmp_path / "a.zip")])


@pytest.fixture
def own_root(at_root, tmp_path, monkeypatch):
    """A copy of the trained root, for tests that change its nets' files."""
    root = Path(shutil.copytree(at_root, tmp_path / "own root"))
    monkeypatch.setenv("ISIC_ROOT", str(root))
    return root


def test_an_image_with_a_reason_is_tried_again(at_root, mixed, run_script, monkeypatch):
    from deploy import ask

    flags = (mixed / "my photos/photo 0 ü.jpg", mixed / "my photos/broken.jpg", "--name", "again")
    able = ask.read_image

    def unable(content):
        raise ValueError("install something first")

    monkeypatch.setattr(ask, "read_image", unable)
    code, out, err = run_script(predict, *flags)
    assert code == 0 and "answered: 0, not answered: 2" in out, err
    monkeypatch.setattr(ask, "read_image", able)
    code, out, _ = run_script(predict, *flags)
    assert code == 0 and "answered: 1, not answered: 1" in out and "install" not in out
    code, out, _ = run_script(predict, *flags)  # the same reason: no net is loaded for it
    assert code == 0 and "2 of 2 are there already" in out and "answering" not in out


def test_other_images_are_refused_or_have_a_place_of_their_own(at_root, mixed, run_script):
    photos = mixed / "my photos"
    one, other = photos / "photo 0 ü.jpg", photos / "sub/photo 0 ü.png"
    assert run_script(predict, one, other, "--name", "two")[0] == 0
    before = rows_of(at_root, "two")
    for images in ((one,), (photos / "broken.jpg",)):
        code, _, err = run_script(predict, *images, "--name", "two")
        assert code == 1 and "--overwrite" in err and "--name" in err and "not named now" in err
        assert rows_of(at_root, "two") == before
    code, out, err = run_script(predict, one, other, photos / "cut.jpg", "--name", "two")
    assert code == 0 and "2 of 3 are there already" in out, err
    assert run_script(predict, one, "--name", "two", "--overwrite")[0] == 0
    assert len(rows_of(at_root, "two")) == 1


def test_the_same_images_by_another_path_and_without_one(
    at_root, mixed, run_script, monkeypatch, caplog
):
    photos = mixed / "my photos"
    one, other = photos / "photo 0 ü.jpg", photos / "sub/photo 0 ü.png"
    assert run_script(predict, one, other, "--name", "paths")[0] == 0
    monkeypatch.chdir(photos)
    code, out, err = run_script(predict, "photo 0 ü.jpg", f"./sub/{other.name}", "--name", "paths")
    assert code == 0 and "2 of 2 are there already" in out, err
    other.unlink()
    code, out, err = run_script(predict, one, "--name", "paths")
    assert code == 0 and "1 of 1 are there already" in out
    assert f"left out of tables and page: 1: {other}" in caplog.text
    assert len(rows_of(at_root, "paths")) == 1


def test_while_an_image_is_asked_again_the_results_are_not_complete(
    at_root, mixed, run_script, monkeypatch
):
    image = mixed / "my photos/photo 0 ü.jpg"
    assert run_script(predict, image, "--name", "changed")[0] == 0
    shutil.copyfile(mixed / "my photos/sub/photo 0 ü.png", image)
    record = at_root / "submissions/changed.json"
    said = []

    def stop(*_):
        said.append(json.loads(record.read_text())["complete"])
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "answer", stop)
    with pytest.raises(KeyboardInterrupt):
        predict.main(predict.Settings((str(image),), name="changed"))
    assert said == [False]


def test_what_was_tuned_since_is_not_mixed_with_what_was_not(own_root, mixed, run_script):
    flags = (mixed / "my photos/photo 0 ü.jpg", "--name", "tuning")
    assert run_script(predict, *flags)[0] == 0
    runs = ensemble.find_ensemble(own_root / "model_data", 3, "tiny", "0")
    scope = Scope(runs, "fold", False)
    tuned.write_tuned(scope, ClassChoice((1.0,), 2.5, None), {})
    code, _, err = run_script(predict, *flags)
    assert code == 1 and '"not tuned" there' in err and "temperature" in err
    assert "--overwrite" in err
    assert run_script(predict, *flags, "--overwrite")[0] == 0
    # an earlier record, which says nothing of it
    record = own_root / "submissions/tuning.json"
    content = json.loads(record.read_text())
    del content["made_by"]["tuned"], content["made_by"]["knows_training_images"]
    record.write_text(json.dumps(content))
    code, _, err = run_script(predict, *flags)
    assert code == 1 and "nothing there" in err and "--overwrite" in err


def test_answers_with_and_without_training_images_are_not_mixed(own_root, mixed, run_script):
    flags = (mixed / "my photos/photo 0 ü.jpg", "--name", "known")
    (own_root / "data").rename(own_root / "away")
    for file in (own_root / "model_data").rglob("*_features.npz"):
        file.unlink()
    code, _, err = run_script(predict, *flags)
    assert code == 0 and rows_of(own_root, "known")[0]["unlikeness"] is None, err
    assert run_script(predict, *flags)[0] == 0  # nothing has changed
    (own_root / "away").rename(own_root / "data")
    code, _, err = run_script(predict, *flags)
    assert code == 1 and "knows_training_images" in err and "--overwrite" in err
    assert run_script(predict, *flags, "--overwrite")[0] == 0
    assert rows_of(own_root, "known")[0]["unlikeness"] is not None
    code, out, err = run_script(predict, *flags)
    assert code == 0 and "1 of 1 are there already" in out, err


def test_tuned_values_of_other_weights_name_no_flag_that_is_not_there(own_root, mixed, run_script):
    runs = ensemble.find_ensemble(own_root / "model_data", 3, "tiny", "0")
    file = tuned.tuned_file(Scope(runs, "fold", False))
    for damaged in (True, False):
        tuned.write_tuned(Scope(runs, "fold", False), ClassChoice((1.0,), 2.5, None), {})
        content = json.loads(file.read_text()) | {"weights": {}}
        file.write_text("{" if damaged else json.dumps(content))
        code, _, err = run_script(predict, mixed / "my photos", "--name", "other_weights")
        assert code == 1 and str(file) in err and "cls_tune.py" in err
        assert "or delete the file." in err and "--no-tuned" not in err


def with_view(member, view, maker):
    """The runs as they would be if they had been trained on crops."""
    settings = member[0].settings | {"lesion_view": view}
    changed = {"settings": settings, "crops_maker": maker}
    return tuple(replace(run, record=run.record | changed) for run in member)


def test_lesions_are_cut_as_those_that_a_net_was_trained_on(at_root, tmp_path, caplog):
    runs = ensemble.find_ensemble(at_root / "model_data", 3, "tiny", "0")
    makers = {}

    def record(edge, **settings):
        name = lesion_crops.crop_folder(3, "training", edge)
        made_by = {"settings": settings | {"format": "png"}, "weights": {"net": "1234"}}
        provenance.write_record(tmp_path, name, made_by, complete=True)
        alike = {key: value for key, value in settings.items() if key != "format"}
        makers[edge] = provenance.fingerprint_of_maker(made_by | {"settings": alike})

    record("hard", margin=0.1)
    record("feather", margin=0.2, edge_radius=0.3)
    (member,) = runs.members
    views = {"whole": None, "box": "hard", "crop": "hard", "feather": "feather"}
    for view, edge in views.items():
        mixed = replace(runs, members=(with_view(member, view, makers.get(edge)),))
        cuts = load.how_cut(tmp_path, mixed)
        margin = {"whole": 0.0, "feather": 0.2}.get(view, 0.1)
        expected = Cut(margin, 0.3 if view == "feather" else 0.05)
        assert cuts == {run.name: expected for run in member}
    first, other = (
        with_view((run,), *pair)
        for run, pair in zip(
            member, (("crop", makers["hard"]), ("feather", makers["feather"])), strict=True
        )
    )
    both = replace(runs, members=(first, other))
    assert [cut.crop_margin for cut in load.how_cut(tmp_path, both).values()] == [0.1, 0.2]
    record("feather", margin=0.4, edge_radius=0.3)
    with pytest.raises(UserError, match=r"crops_feather.json.*trained on crops made by other"):
        load.how_cut(tmp_path, both)
    provenance.record_of(tmp_path, lesion_crops.crop_folder(3, "training", "feather")).unlink()
    assert load.how_cut(tmp_path, both)[other[0].name] == Cut()
    assert "cut without a margin" in caplog.text


def test_crops_that_were_made_again(own_root, mixed, run_script, eagerly, blank_charts):
    import cls_train
    import seg_predict

    crops = {"backbone": "tiny", "pred_set": "training", "format": "webp"}
    seg_predict.main(seg_predict.Settings(**crops, margin=0.1))
    cls_train.main(cls_train.Settings(**TINY, folds=(0,), lesion_view="crop", version="crops"))
    flags = (mixed / "my photos/photo 0 ü.jpg", "--classifier", "tiny:crops", "--name", "cut")
    code, _, err = run_script(predict, *flags)
    assert code == 0, err
    record = json.loads((own_root / "submissions/cut.json").read_text())
    (cut,) = record["made_by"]["cut"].values()
    assert cut == {"crop_margin": 0.1, "edge_radius": 0.05}
    seg_predict.main(seg_predict.Settings(**crops, margin=0.3, overwrite=True))
    # the run says how its lesions were cut, whatever lies there now
    code, out, err = run_script(predict, *flags)
    assert code == 0 and "1 of 1 are there already" in out, err
    # one of earlier code does not
    file = own_root / "model_data/task3_tiny_k0_vcrops/settings.json"
    content = json.loads(file.read_text())
    assert content.pop("crops_cut") == {"margin": 0.1}
    file.write_text(json.dumps(content))
    code, _, err = run_script(predict, *flags)
    assert code == 1 and "task3_training_crops.json" in err and "seg_predict.py" in err


def test_odd_names_are_shown_as_text(at_root, drawn_data, tmp_path, run_script):
    odd = tmp_path / os.fsdecode(b"photos \xff")
    odd.mkdir()
    image = min((drawn_data / "ISIC2018_Task3_Test_Input").glob("*.jpg"))
    shutil.copyfile(image, odd / os.fsdecode(b"one \xfe.jpg"))
    (odd / "two \x1b[2J\n.jpg").write_text("no picture")
    code, out, err = run_script(predict, odd, "--name", "odd")
    assert code == 0, err
    paths = [row["path"] for row in rows_of(at_root, "odd")]
    assert paths[0].endswith("photos \\xff/one \\xfe.jpg")
    for name in ("predictions.csv", "index.html"):
        assert "one \\xfe.jpg" in (at_root / "submissions/odd" / name).read_text("utf-8")
    assert "two \\x1b[2J\\n.jpg" in out and "\x1b" not in out


def test_files_of_other_endings_are_named(tmp_path, caplog):
    for name in ("a.jpg", "b.gif", ".hidden", "notes.txt"):
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for name in ("d.png", "e.gif", "__MACOSX/f.png"):
            archive.writestr(name, b"")
    found = sources.find_sources([str(tmp_path), str(tmp_path / "c.zip")])
    assert [source.name for source in found] == ["a", "d"]
    assert "left out" in caplog.text and f": 4: {tmp_path}/b.gif" in caplog.text
    assert "c.zip/e.gif" in caplog.text and "hidden" not in caplog.text
    caplog.clear()
    sources.find_sources([str(tmp_path / "a.jpg")])
    assert not caplog.text


def test_heat_is_laid_over_what_the_net_saw():
    seen = np.full((64, 64, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 1] = 1
    drawn = answers.draw_heat(seen, heat)
    assert drawn.shape == seen.shape and (drawn[50:, 50:] == 100).all()
    assert np.abs(drawn[20:28, 20:28].astype(int) - 100).max() > 40
