import io

import numpy as np
import pytest
from isic_challenge_scoring.load_csv import parse_csv, parse_truth_csv, validate_rows
from isic_challenge_scoring.types import ScoreError

from inference.class_table import add_missing_image, check_classes_file
from misc_utils.errors import UserError

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
COLUMNS = ("image", *CLASSES)
IDS = ["ISIC_0000001", "ISIC_0000002"]
HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
FIRST = "ISIC_0000001,0.5,0.1,0.1,0.1,0.1,0.1,0.0"
SECOND = "ISIC_0000002,0.4,0.2,0.1,0.1,0.1,0.1,0.0"
TRUTH = "\n".join([HEADER, "ISIC_0000001,1,0,0,0,0,0,0", "ISIC_0000002,0,1,0,0,0,0,0"])


def organisers_take(text):
    """Whether the organisers' own reader accepts the table."""
    truth, _ = parse_truth_csv(io.StringIO(TRUTH))
    try:
        validate_rows(truth, parse_csv(io.StringIO(text), truth.columns))
    except ScoreError:
        return False
    return True


pytestmark = pytest.mark.filterwarnings("ignore:DataFrame.applymap:FutureWarning")  # the scorer's


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER, FIRST, SECOND],
        [HEADER, SECOND, FIRST.replace(",", ".jpg,", 1)],  # any order; .jpg is cut off
        ["VASC,image,MEL,NV,BCC,AKIEC,BKL,DF", "0.0," + FIRST[:-4], "0.0," + SECOND[:-4]],
        [HEADER, FIRST, "ISIC_0000002,1,1,1,1,1,1,1"],  # 1 among floats; sums do not matter
        [HEADER, "ISIC_0000001,0.0,0.0,0.0,0.0,0.0,0.0,1e-07", SECOND],
    ],
)
def test_accepted(tmp_path, lines):
    text = "\n".join(lines) + "\n"
    assert organisers_take(text)
    (tmp_path / "mine.csv").write_text(text)
    check_classes_file(tmp_path / "mine.csv", COLUMNS, IDS)


RANGE = "values not in 0..1 (or none)"
INTEGERS = [HEADER, FIRST.replace("0.0", "0"), SECOND.replace("0.0", "0")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, FIRST], "images missing: 1: ISIC_0000002"),
        (
            [HEADER, FIRST, SECOND, FIRST.replace("1,", "7,", 1)],
            "images not wanted: 1: ISIC_0000007",
        ),
        ([HEADER, FIRST, SECOND, FIRST], "images twice: 1: ISIC_0000001"),
        ([HEADER, FIRST.replace(",", ".png,", 1), SECOND], "images missing: 1: ISIC_0000001"),
        (INTEGERS, "columns not of floats: 1: VASC"),
        ([HEADER, FIRST, SECOND.replace("0.4", "high")], "columns not of floats: 1: MEL"),
        ([HEADER, FIRST, SECOND.replace("0.4", "")], f"{RANGE}: 1: ISIC_0000002"),
        ([HEADER, FIRST, SECOND.replace("0.4", "1.1")], f"{RANGE}: 1: ISIC_0000002"),
        ([HEADER, FIRST.replace("0.5", "-0.1"), SECOND], f"{RANGE}: 1: ISIC_0000001"),
        ([HEADER.replace(",NV", ", NV"), FIRST, SECOND], "columns missing: 1: NV"),
        ([HEADER.replace("MEL", "mel"), FIRST, SECOND], "columns not wanted: 1: mel"),
        ([HEADER.replace("image", "id"), FIRST, SECOND], "columns missing: 1: image"),
        ([f"{HEADER},SCC", f"{FIRST},0.1", f"{SECOND},0.1"], "columns not wanted: 1: SCC"),
        ([HEADER], "images missing: 2: ISIC_0000001, ISIC_0000002"),
        ([""], "cannot be read as a table"),
    ],
)
def test_refused_as_by_the_organisers(tmp_path, lines, message):
    text = "\n".join(lines) + "\n"
    assert not organisers_take(text)
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UserError) as error:
        check_classes_file(tmp_path / "mine.csv", COLUMNS, IDS)
    assert message in str(error.value) and str(tmp_path / "mine.csv") in str(error.value)


def test_every_reason_is_listed_and_the_shown_name_used(tmp_path):
    (tmp_path / "partial.csv").write_text("\n".join([HEADER, FIRST.replace("0.5", "2.5")]) + "\n")
    with pytest.raises(UserError) as error:
        check_classes_file(tmp_path / "partial.csv", COLUMNS, IDS, shown=tmp_path / "final.csv")
    message = str(error.value)
    assert "images missing: 1: ISIC_0000002" in message and "not in 0..1" in message
    assert "final.csv" in message and "partial.csv" not in message


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        check_classes_file(tmp_path / "none.csv", COLUMNS, IDS)


def test_unreleased_image_gets_the_mean_of_the_others():
    values = np.array([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]], np.float32) * np.float32(0.5)
    expected = ["ISIC_0000002", "ISIC_0035068", "ISIC_0000001", "ISIC_0000003"]
    ids, rows = add_missing_image([*IDS, "ISIC_0000003"], values, expected)
    assert ids == [*IDS, "ISIC_0000003", "ISIC_0035068"]
    np.testing.assert_array_equal(rows[:3], values)
    np.testing.assert_array_equal(rows[3], np.float32([0.25, 0.25]))
    assert rows.dtype == np.float32


def test_nothing_missing_nothing_added():
    values = np.eye(2)
    ids, rows = add_missing_image(IDS, values, IDS[:1])
    assert ids == IDS and rows is values


@pytest.mark.parametrize(
    "expected", [[*IDS, "ISIC_0000003"], [*IDS, "ISIC_0000003", "ISIC_0035068"]]
)
def test_other_missing_images_are_listed(expected):
    with pytest.raises(UserError, match="ISIC_0000003"):
        add_missing_image(IDS, np.eye(2), expected)


def test_no_mean_of_no_rows():
    with pytest.raises(UserError, match="ISIC_0035068"):
        add_missing_image([], np.zeros((0, 7)), ["ISIC_0035068"])
