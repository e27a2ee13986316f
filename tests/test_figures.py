import contextlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports import figures


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that would have been written."""
    made: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: made.append(figure))
    monkeypatch.setattr(figures, "partial_file", contextlib.nullcontext)
    return made


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), 200, np.uint8)


def lesion(height: int = 30, width: int = 40) -> np.ndarray:
    """A mask whose rows height/3 .. 2 height/3 and columns width/4 .. width/2 are lesion."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : 2 * height // 3, width // 4 : width // 2] = 255
    return mask


@pytest.mark.parametrize("number", [1, 2, 5, 12])
def test_images_of_a_sheet_stand_apart(drawn, number):
    sizes = ([(40, 20), (20, 40), (30, 30)] * 4)[:number]
    figures.draw_sheet("", [picture(*size) for size in sizes], ["ISIC_0000001"] * number)
    (sheet,) = drawn
    FigureCanvasAgg(sheet)
    sheet.draw_without_rendering()
    boxes = [cell.get_window_extent() for cell in sheet.axes]
    boxes += [cell.title.get_window_extent() for cell in sheet.axes]
    for row, box in enumerate(boxes):
        assert sheet.bbox.containsx(box.x0) and sheet.bbox.containsx(box.x1)
        assert sheet.bbox.containsy(box.y0) and sheet.bbox.containsy(box.y1)
        assert not [other for other in boxes[:row] if box.overlaps(other)]


def test_images_of_a_sheet_have_the_pixels_that_are_seen(drawn):
    sizes = {(1500, 2000): (300, 400), (2000, 1500): (533, 400), (3000, 1000): (600, 200)}
    figures.draw_sheet("", [picture(*size) for size in sizes], ["ISIC_0000001"] * 3)
    shapes = [cell.images[0].get_array().shape[:2] for cell in drawn[0].axes]
    assert shapes == list(sizes.values())


def test_a_picture_without_a_title_is_refused():
    with pytest.raises(ValueError, match="1 images and 2 titles"):
        figures.draw_sheet("", [picture()], ["a", "b"])
    with pytest.raises(ValueError, match="0 images"):
        figures.draw_sheet("", [], [])


def test_crops_stand_on_grey(tmp_path):
    file = tmp_path / "crops.png"
    figures.draw_sheet(file, [picture() * 0, picture(60, 20)], ["ISIC_1", "ISIC_2"])
    sheet = cv2.imread(str(file))
    assert (sheet[-1, -1] == 153).all()
    values, counts = np.unique(sheet, return_counts=True)
    assert {0, 153, 200} <= set(values[counts > 0.03 * sheet.size])  # black crop, page, other crop


def test_no_display_is_needed():
    code = "import sys, reports.charts, reports.figures; print('matplotlib.pyplot' in sys.modules)"
    root = Path(figures.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Places (n, 2) of the pixels that are near a colour, row before column."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=2) < 12)


@pytest.mark.parametrize("size", [(300, 360), (2304, 3072), (2305, 3073)], ids=str)
@pytest.mark.parametrize("kind", ["0 and 255", "0 and 1", "bool"])
def test_outline_lies_along_the_mask(size, kind):
    height, width = size
    mask = lesion(*size)
    mask = {"0 and 255": mask, "0 and 1": mask // 255, "bool": mask > 0}[kind]
    small = figures.outline(picture(*size), mask, None)
    assert small.dtype == np.uint8 and small.shape[1] == 360
    yellow = coloured(small, figures.TRUTH_RGB)
    scale = 360 / width
    box = [height / 3, width / 4, 2 * height / 3, width / 2]
    corners = [*yellow.min(axis=0), *yellow.max(axis=0)]
    np.testing.assert_allclose(corners, np.multiply(box, scale), atol=2.5)
    assert len(coloured(small, figures.PREDICTION_RGB)) == 0
    assert len(coloured(small, (0, 0, 0))) > 50  # the halo
    inside = small[int(height * scale / 2), int(width * scale * 3 / 8)]
    assert inside.tolist() == [200, 200, 200]


def test_prediction_is_dashed():
    image, mask = picture(300, 360), lesion(300, 360)
    solid = coloured(figures.outline(image, mask, None), figures.TRUTH_RGB)
    dashed = coloured(figures.outline(image, None, mask), figures.PREDICTION_RGB)
    assert 0.3 < len(dashed) / len(solid) < 0.9
    both = figures.outline(image, mask, mask)
    assert len(coloured(both, figures.TRUTH_RGB)) > 20 < len(coloured(both, figures.PREDICTION_RGB))


def test_outline_leaves_its_input_as_it_was():
    image, mask = picture(), lesion()
    small = figures.outline(image, mask, mask)
    assert (image == 200).all() and small.shape == image.shape and (small != 200).any()
    assert (figures.outline(image, mask * 0, None) == 200).all()
    assert figures.outline(picture(100, 200), None, None, longest=50).shape == (25, 50, 3)
    with pytest.raises(ValueError, match=r"prediction .* differ in size"):
        figures.outline(image, mask, mask[1:])


def test_shrinking_keeps_the_mean_and_never_enlarges():
    image = np.random.default_rng(0).integers(0, 255, (400, 600, 3), np.uint8)
    small = figures.shrink(image, 150)  # halves of halves
    assert small.shape == (100, 150, 3)
    whole = image.reshape(100, 4, 150, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - whole).max() <= 1
    assert figures.shrink(image, 600) is image
    assert figures.shrink(image[:1], 60).shape == (1, 60, 3)
