import base64
import io
import math

import jinja2
import numpy as np
import pytest
from PIL import Image

from reports import pages

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8284, ".828"),
        (0, ".000"),
        (1, "1.000"),
        (10.04, "10.040"),
        (-0.0123, "−.012"),
        (-0.0001, ".000"),
        (NAN, "none"),
        (math.inf, "infinite"),
    ],
)
def test_scores_are_written_without_the_zero(value, text):
    assert pages.format_score(value) == text


def test_intervals():
    assert pages.format_interval(0.828, 0.811, 0.845) == ".828 (.811 – .845)"
    assert pages.format_interval(0.004, -0.008, 0.016) == ".004 (−.008 – .016)"
    assert pages.format_interval(0.828, NAN, NAN) == ".828"
    assert pages.format_interval(NAN, NAN, NAN) == "none"


def test_counts_have_thousands_separators():
    assert pages.format_measure("images", 10015, NAN, NAN) == "10,015"
    assert pages.format_measure("recall", 0.5, NAN, NAN) == ".500"
    assert pages.format_measure("images", NAN, NAN, NAN) == "none"
    assert pages.format_share(47, 1519) == "47 of 1,519 (3.1 %)"
    assert pages.format_share(0, 0) == "0 of 0"


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (10015, "10,015"),
        (np.int64(10015), "10,015"),
        (1e-3, "0.001"),
        (True, "yes"),
        (np.False_, "no"),
        (None, "none"),
        (NAN, "none"),
        ([0, 1], "0, 1"),
        ([], "none"),
        ({"a": 1, "b": None}, "a: 1, b: none"),
        ("2594", "2594"),
    ],
)
def test_facts(fact, text):
    assert pages.format_fact(fact) == text


def test_measures_in_words():
    assert pages.readable("threshold_jaccard") == "threshold Jaccard"
    assert pages.readable("macro_auc") == "macro AUC"


def test_embedded_pictures_are_small_jpegs():
    image = np.zeros((300, 800, 3), np.uint8)
    image[..., 0] = 200  # red, were it BGR it would be blue
    uri = pages.embed(image)
    start = "data:image/jpeg;base64,"
    assert uri.startswith(start)
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(uri[len(start) :]))))
    assert picture.shape == (135, 360, 3)
    assert abs(picture.astype(int) - [200, 0, 0]).max() < 8
    small = pages.embed(image[:4, :7], longest=100)
    assert Image.open(io.BytesIO(base64.b64decode(small[len(start) :]))).size == (7, 4)


def test_thin_lines_keep_their_colour():
    image = np.full((64, 64, 3), 90, np.uint8)
    image[20] = 240, 228, 66
    content = base64.b64decode(pages.embed(image).partition(",")[2])
    line = np.array(Image.open(io.BytesIO(content)))[20].astype(int)
    assert np.abs(line - [240, 228, 66]).max() < 25


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_other_arrays_are_no_pictures(image):
    with pytest.raises(ValueError, match="must be uint8"):
        pages.embed(image)


def test_a_name_that_a_template_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        pages.render("report.html.j2", title="a")
