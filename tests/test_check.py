"""What check.py says is right, and the commands that it prints work."""

import json
import shlex
import shutil

import check
import cls_eval
import cls_train
import pytest
import seg_eval
import seg_train
from test_own_folder import FOLDER, NAMES, photos_with_all, put, write

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")

SCRIPTS = {script.__name__: script for script in (seg_train, seg_eval, cls_train, cls_eval)}
SMALL = {
    "train": ("--backbone", "tiny", "--epochs", 1, "--batch-size", 4, "--folds", 0, 1),
    "eval": ("--backbone", "tiny"),
}
ALL = (*FOLDER, "--images", "photos", "--masks", "masks", "--table", "table.csv")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory; the root of the scripts lies beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "here"


@pytest.fixture
def said(run_script):
    """Runs check.py: the lines it prints."""

    def run(*flags):
        code, out, err = run_script(check, *flags)
        assert code == 0, err
        return out.splitlines()

    return run


def commands(lines):
    """The commands at the end: (script, its flags)."""
    assert "next:" in lines
    words = [shlex.split(line) for line in lines[lines.index("next:") + 1 :]]
    words = [line[1:] if line[0].startswith("ISIC_ROOT=") else line for line in words]
    return [(line[1].rpartition("/")[2].removesuffix(".py"), line[2:]) for line in words]


def test_drawn_data(root, said):
    lines = said("--image-size", 64)
    assert lines[0] == f"data set isic2018, {root / 'data'}"
    assert lines[1] == "  task 1 (lesion boundary), training: 28 images, 28 masks"
    assert lines[4] == "  task 2 (attributes), training: 28 images, 140 masks"
    assert lines[7].startswith("  task 3 (diagnosis), training: 41 images, 7 classes: MEL 5, NV 20")
    assert lines[7].endswith("; 28 lesions") and len(lines[1:10]) == 9
    # 3 bytes of 42 and 55 images, one of 42 x 6 masks; two of 28 x 6 logits
    assert "64 px 2.2 MB, kept predictions of all folds 1.4 MB" in lines[10]
    assert "not known before a training here" in lines[11]
    assert [script for script, _ in commands(lines)] == ["seg_train", "seg_eval"] * 2 + [
        "cls_train",
        "cls_eval",
    ]
    assert not (root / "data" / "cache").exists() and not (root / "model_data").exists()


def test_an_empty_root(tmp_path, monkeypatch, said):
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path))
    lines = said()
    folder = tmp_path / "data" / "ISIC2018_Task1-2_Training_Input"
    where = f"missing: {folder}; docs/data.md says where to get it"
    assert lines[1] == f"  task 1 (lesion boundary), training: {where}"
    assert len(lines) == 8 and lines[-1].startswith("nothing can be trained on yet")
    assert not list(tmp_path.iterdir())
    assert sum("missing" in line for line in said("--dataset", "isic2019")) == 2  # Task 3 only


def test_drawn_data_with_faults(root, said):
    data = root / "data"
    shutil.rmtree(data / "ISIC2018_Task1_Training_GroundTruth")
    shutil.rmtree(data / "ISIC2018_Task3_Test_Input")
    gone = sorted((data / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[0]
    gone.unlink()
    text = "\n".join(said())
    assert "task 1 (lesion boundary), training: 28 images, missing: " in text
    assert "Task1_Training_GroundTruth: there is no such folder" in text
    assert f"task 3 (diagnosis), test: missing: {data / 'ISIC2018_Task3_Test_Input'};" in text
    assert f"training: 40 images\n    wrong: {data}" in text and gone.stem in text
    assert "--task 2" in text and "cls_train.py" not in text
    assert "task 1 (lesion boundary), test: 7 images, 7 masks" in text


def test_an_own_folder(place, said, run_script):
    photos_with_all(place)
    lines = said(*FOLDER, "--images", "photos")
    assert lines[0] == f"data set folder, {place / 'photos'}"
    assert lines[1].endswith(
        "12 images, missing: folder holds no masks of task 1. Tell where they are with --masks."
    )
    assert lines[2].endswith("are with --table.") and lines[3].startswith("nothing can be trained")
    lines = said(*FOLDER, "--images", "photos", "--masks", "masks")
    assert lines[1] == "  task 1 (lesion boundary), training: 12 images, 12 masks"
    assert lines[2].startswith("disk: ")
    lines = said(*ALL, "--image-size", 32)
    assert lines[2].endswith("3 classes: nv 4, mel 4, x 4; 6 patients")

    # the commands work as they are; smaller ones, as the real ones are long
    for script, flags in commands(lines):
        small = SMALL[script.partition("_")[2]]
        code, _, err = run_script(SCRIPTS[script], *flags, *small)
        assert code == 0, err

    # what is trained is to be scored; another folder is trained as another version
    lines = said(*ALL, "--image-size", 32)
    assert "trained: task 1, tiny:0, folds finished: 0, 1; 1 epochs of a fold at 32 px" in lines[4]
    assert lines[5].startswith("trained: task 3, tiny:0, folds finished: 0, 1;")
    assert [script for script, _ in commands(lines)] == ["seg_eval", "cls_eval"]
    for script, flags in commands(lines):
        code, _, err = run_script(SCRIPTS[script], *flags)
        assert code == 0, err
    shutil.copytree(place / "photos", place / "other")
    (place / "other" / f"{NAMES[0]}.jpg").unlink()
    lines = said(*FOLDER, "--images", "other", "--masks", "masks", "--subset", "--image-size", 32)
    (train, flags), (score, more) = commands(lines)
    assert (
        "--subset" in flags and flags[flags.index("--version") + 1] == "1" and "--version" in more
    )
    assert run_script(SCRIPTS[train], *flags, *SMALL["train"])[0] == 0
    assert run_script(SCRIPTS[score], *more, *SMALL["eval"])[0] == 0


def test_an_own_folder_with_faults(place, said):
    photos_with_all(place)
    put(place, "photos/new.jpg")
    write(place / "photos" / "c1.jpg", "no picture")
    text = "\n".join(said(*ALL))
    assert f"13 images\n    wrong: {place / 'masks'} lacks new." in text
    assert f"13 images\n    wrong: {place / 'table.csv'} lacks new." in text
    assert text.endswith("docs/data.md says what belongs where")
    (place / "photos" / "new.jpg").unlink()
    assert "next:" in said(*ALL)
    text = "\n".join(said(*ALL, "--read", "--image-size", 32))
    assert f"{place / 'photos' / 'c1.jpg'}: no picture that can be read" in text
    assert text.count("wrong: 1 of 12 files cannot be used") == 2 and "next:" not in text


def test_too_few_images(place, said):
    put(place, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg")
    put(place, "masks/a.png", "masks/b.png", "masks/c.png")
    (_, flags), _ = commands(said(*FOLDER, "--images", "photos", "--masks", "masks"))
    assert flags[-2:] == ["--num-folds", "3"]
    write(place / "table.csv", "image,dx,patient\na,nv,1\nb,mel,1\nc,nv,1\n")
    text = "\n".join(said(*ALL))
    assert text.count("wrong: too few images, of too few lesions or patients, to train") == 2


def test_patients_that_would_leave_a_fold_empty(place, said):
    put(place, *(f"photos/{k}.jpg" for k in range(9)))
    pairs = zip("112203302", "110000001", strict=True)
    rows = [f"{k},{label},{patient}" for k, (patient, label) in enumerate(pairs)]
    write(place / "table.csv", "\n".join(["image,target,patient", *rows]))
    (_, flags), _ = commands(said(*FOLDER, "--images", "photos", "--table", "table.csv"))
    assert flags[-2:] == ["--num-folds", "3"]


def test_a_described_data_set(place, said):
    folder = place.parent / "root" / "data" / "mine"
    photos_with_all(folder)
    put(folder, "test/1.png")
    content = {"images": "photos", "masks": "masks", "test": {"images": "test"}}
    write(folder / "dataset.json", json.dumps(content))
    lines = said("--dataset", "mine")
    assert lines[1].endswith("training: 12 images, 12 masks")
    assert "test: 1 images, missing: " in lines[2] and '"masks" in ' in lines[2]
    assert commands(lines)[0] == ("seg_train", ["--dataset", "mine"])


def test_a_broken_run(root, said):
    write(root / "model_data" / "task1_tiny_k0_v0" / "settings.json", "{")
    lines = said()
    assert any("cannot be read as the settings of a run" in line for line in lines)
    assert "next:" in lines
