import numpy as np
import pytest

from datasets import tasks
from datasets.cache import Cached
from datasets.catalogue import DATASETS, open_dataset
from datasets.challenge import ATTRIBUTES, CLASSES
from datasets.dataset import Masks, check_steps
from datasets.own_settings import OwnFolder
from datasets.tasks import TASKS
from evaluation.class_scoring import CLASS_MEASURES
from inference.postprocess import DEFAULT_RULES
from misc_utils.errors import UserError
from models.losses import CLASSIFICATION_LOSSES, SEGMENTATION_LOSSES
from training import run_folder


def test_every_data_set_opens_without_reading(tmp_path):
    for name in DATASETS:
        own = OwnFolder(images=str(tmp_path)) if name == "folder" else OwnFolder()
        dataset = open_dataset(tmp_path, name, own)
        assert dataset.name == name and "training" in dataset.sets
        assert dataset.group in ("lesion", "patient")
        assert tasks.prefix(name) == ("" if name == "isic2018" else f"{name}_")
    assert open_dataset(tmp_path).classes == CLASSES


@pytest.mark.parametrize("name", ["Isic2018", "isic 2018", "../data", "a_b", "", "x" * 41])
def test_other_names_are_refused_with_those_there_are(tmp_path, name):
    with pytest.raises(UserError, match="--dataset"):
        open_dataset(tmp_path, name)


def test_flags_of_an_own_folder_are_for_that_alone(tmp_path):
    with pytest.raises(UserError, match="--dataset folder, not for isic2019"):
        open_dataset(tmp_path, "isic2019", OwnFolder(table="x.csv"))
    with pytest.raises(UserError, match="needs --images"):
        open_dataset(tmp_path, "folder", OwnFolder(masks="x"))


def test_rows_of_tasks_name_what_there_is():
    for number, task in TASKS.items():
        assert task.loss in (SEGMENTATION_LOSSES if task.channels else CLASSIFICATION_LOSSES)
        assert (task.kind == "masks") == bool(task.channels) == (task.scripts == "seg")
        assert (number in DEFAULT_RULES) == bool(task.channels)
        assert tasks.script(number, "eval") == f"{task.scripts}_eval.py"
    assert TASKS[2].channels == ATTRIBUTES and "accuracy" in CLASS_MEASURES
    assert tasks.flags(1, "isic2018") == []
    assert tasks.flags(2, "ph2") == ["--task", "2", "--dataset", "ph2"]


def test_names_carry_the_data_set_where_it_is_not_the_usual_one():
    assert tasks.set_name(3, "test") == "task3_test"
    assert tasks.set_name(3, "test", "isic2019") == "isic2019_task3_test"
    assert run_folder.run_name(3, "tiny", 0, "0") == "task3_tiny_k0_v0"
    assert run_folder.run_name(3, "tiny", 0, "0", "isic2019") == "isic2019_task3_tiny_k0_v0"
    with pytest.raises(ValueError, match="task 1, 2 or 3"):
        tasks.set_name(4, "test")


def test_channels_are_one_array():
    arrays = [np.full((4, 2, 2, 1), k, np.uint8) for k in range(3)]
    size = np.full(4, 2)
    channels = [Cached(tuple("abcd"), one, size, size, f"{k}" * 64) for k, one in enumerate(arrays)]
    masks = Masks(channels)
    assert masks[np.array([2, 0])].shape == (2, 2, 2, 3) and masks.ndim == 4 and len(masks) == 4
    assert masks[1, 0, 0].tolist() == [0, 1, 2]
    assert masks.fingerprint != Masks(channels[::-1]).fingerprint
    assert Masks(channels[:1]).fingerprint == "0" * 64  # as that of the one array ever was


def test_steps_that_move_the_picture_are_for_whole_images():
    check_steps(("remove_hair", "shades_of_grey"), moved=False)
    check_steps(("crop_borders",), moved=True)
    with pytest.raises(UserError, match="crop_borders cuts the picture"):
        check_steps(("shades_of_grey", "crop_borders"), moved=False)
    with pytest.raises(UserError, match="twice"):
        check_steps(("remove_hair", "remove_hair"), moved=True)


def test_task_1_needs_no_table_of_lesions(root):
    """Which images of Task 3 a net of Task 1 knows: themselves, were they in both."""
    dataset = open_dataset(root / "data")
    for file in (root / "data").rglob("*LesionGroupings.csv"):
        file.unlink()
    related = dataset.find_related(3, "training", trained_task=1)
    assert related and all(ids == {image_id} for image_id, ids in related.items())
    with pytest.raises(UserError, match="LesionGroupings"):
        dataset.find_related(3, "training", trained_task=3)
