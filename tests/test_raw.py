from pathlib import Path

import pytest

from datasets.ISIC2018 import raw
from misc_utils.errors import UserError
from misc_utils.messages import check_same_ids

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


def test_folder_names_are_those_of_the_release(tmp_path):
    assert raw.image_folder(tmp_path, 1, "test").name == "ISIC2018_Task1-2_Test_Input"
    assert raw.image_folder(tmp_path, 3, "training").name == "ISIC2018_Task3_Training_Input"
    assert (
        raw.truth_folder(tmp_path, 1, "validation").name == "ISIC2018_Task1_Validation_GroundTruth"
    )
    assert raw.labels_file(tmp_path, "test").name == "ISIC2018_Task3_Test_GroundTruth.csv"
    assert raw.groups_file(tmp_path).name == "ISIC2018_Task3_Training_LesionGroupings.csv"


def test_listing_sorts_by_id_and_leaves_companions_out(tmp_path):
    for name in ("ISIC_0000010.jpg", "ISIC_0000002.JPG", "ISIC_0000002_superpixels.png"):
        (tmp_path / name).touch()
    for name in ("LICENSE.txt", "ATTRIBUTION.txt", ".DS_Store"):
        (tmp_path / name).touch()
    assert list(raw.list_images(tmp_path)) == ["ISIC_0000002", "ISIC_0000010"]


def test_unknown_files_are_said(tmp_path, caplog):
    for name in ("ISIC_0000010.jpg", "notes.docx"):
        (tmp_path / name).touch()
    raw.list_images(tmp_path)
    assert "notes.docx" in caplog.text


def test_two_files_of_one_image_are_refused(tmp_path):
    for name in ("ISIC_0000010.jpg", "ISIC_0000010.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="same image"):
        raw.list_images(tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"ISIC2018_gone.*no such folder"):
        raw.list_images(tmp_path / "ISIC2018_gone")
    with pytest.raises(UserError, match="holds no file"):
        raw.list_images(tmp_path)


def test_labels_are_class_indices_by_id(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text(HEADER + "ISIC_2,0,0,0,0,0,0,1\nISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n")
    assert raw.read_labels(file) == {"ISIC_1": 1, "ISIC_2": 6}


def test_column_order_does_not_matter(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("NV,image,MEL,BCC,AKIEC,BKL,DF,VASC\n1,ISIC_1,0,0,0,0,0,0\n")
    assert raw.read_labels(file) == {"ISIC_1": 1}


@pytest.mark.parametrize(
    "rows",
    [
        "ISIC_1,0,0,0,0,0,0,0\n",  # no class
        "ISIC_1,1,1,0,0,0,0,0\n",  # two classes
        "ISIC_1,-1,1,1,0,0,0,0\n",
        "ISIC_1,nan,0,0,0,0,0,0\n",
        "ISIC_1,x,0,0,0,0,0,0\n",
        "ISIC_1,,1,0,0,0,0,0\n",
        "ISIC_1,1,0,0,0,0,0,0\nISIC_1,1,0,0,0,0,0,0\n",  # twice
    ],
)
def test_wrong_label_rows_are_named(tmp_path, rows):
    file = tmp_path / "labels.csv"
    file.write_text(HEADER + "ISIC_0,1,0,0,0,0,0,0\n" + rows)
    with pytest.raises(UserError, match=r"labels.csv.*ISIC_1"):
        raw.read_labels(file)


def test_a_table_without_a_column_is_refused(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image;MEL\nISIC_1;1\n")
    with pytest.raises(UserError, match="separated by commas"):
        raw.read_labels(file)
    with pytest.raises(UserError, match="no such file"):
        raw.read_labels(tmp_path / "gone.csv")


@pytest.mark.parametrize("row", ["ISIC_1,1", "ISIC_1,1,0,0,0,0,0,0,0"])
def test_rows_of_another_length_are_named(tmp_path, row):
    file = tmp_path / "labels.csv"
    file.write_text(HEADER + f"ISIC_0,1,0,0,0,0,0,0\n{row}\n")
    with pytest.raises(UserError, match=rf"8 values.*line 3 \({row.count(',') + 1}\)"):
        raw.read_labels(file)


def test_groups(tmp_path):
    file = tmp_path / "groups.csv"
    file.write_text("image,lesion_id,diagnosis_confirm_type\nISIC_2,L1,x\nISIC_1,L1,x\n")
    assert raw.read_groups(file) == {"ISIC_1": "L1", "ISIC_2": "L1"}
    file.write_text("image,lesion_id\nISIC_2,\n")
    with pytest.raises(UserError, match="ISIC_2"):
        raw.read_groups(file)


def test_images_whose_lesion_is_unknown_are_lesions_of_their_own(tmp_path, caplog):
    file = tmp_path / "groups.csv"
    rows = [f"ISIC_{k},{'Unknown' if k % 2 else 'L1'}\n" for k in range(24)]
    file.write_text("image,lesion_id\n" + "".join(rows))
    groups = raw.read_groups(file)
    assert [groups[f"ISIC_{k}"] for k in range(4)] == ["L1", "ISIC_1", "L1", "ISIC_3"]
    assert len(set(groups.values())) == 13
    assert f"{file}: lesion unknown, each counts as one of its own: 12: ISIC_1" in caplog.text


def test_same_ids_names_what_differs_and_what_to_do():
    with pytest.raises(UserError) as told:
        check_same_ids("table", ["ISIC_1", "IMG_2"], ["ISIC_1", "ISIC_3"], Path("images"), "row")
    assert str(told.value) == (
        "table lacks IMG_2 and has ISIC_3, for which there is no image. Add each missing row, or "
        "take the image out of images. Not named as in the release, so probably strays: IMG_2. "
        "Take each row too many out, or put its image into images."
    )
