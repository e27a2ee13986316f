import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from reports import figures


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that would have been written."""
    made: list[Figure] = []
    monkeypatch.setattr(figures, "_write", lambda figure, path: made.append(figure))
    return made


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), 200, np.uint8)


def lesion(height: int = 30, width: int = 40) -> np.ndarray:
    """A mask whose rows height/3 .. 2 height/3 and columns width/4 .. width/2 are lesion."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : 2 * height // 3, width // 4 : width // 2] = 255
    return mask


def outlines(cell) -> dict[str, np.ndarray]:
    """{colour: corner points (n, 2) of the outline}, x before y."""
    found = {}
    for lines in cell.collections:
        found[to_hex(lines.get_edgecolor()[0])] = np.vstack([p.vertices for p in lines.get_paths()])
    return found


@pytest.mark.parametrize("size", [(30, 40), (1500, 2000)], ids=["small", "shrunk"])
def test_outlines_lie_where_the_masks_are(drawn, size):
    height, width = size
    truth, prediction = lesion(*size), np.full(size, 255, np.uint8)
    figures.draw_overlays("", [picture(*size)], [truth // 255], [prediction], ["ISIC_0000001"])
    cell = drawn[0].axes[0]
    found = outlines(cell)
    assert set(found) == {"#f0e442", "#56b4e9"}  # truth, prediction
    pixel = width / min(width, 400)
    for colour, box in (
        ("#f0e442", [width / 4, height / 3, width / 2, 2 * height / 3]),
        ("#56b4e9", [0, 0, width, height]),  # along the border
    ):
        points = found[colour]
        corners = [*points.min(axis=0), *points.max(axis=0)]
        np.testing.assert_allclose(corners, box, atol=0.6 * pixel)
    small = (30, 40) if width == 40 else (300, 400)
    assert cell.images[0].get_array().shape[:2] == small
    assert tuple(cell.images[0].get_extent()) == (0, width, height, 0)
    assert (cell.get_xlim(), cell.get_ylim()) == ((0, width), (height, 0))


def test_overlays_name_their_lines(drawn):
    images, masks, titles = [picture()] * 5, [lesion()] * 5, [f"ISIC_{n}" for n in range(5)]
    figures.draw_overlays("", images, masks, masks, titles)
    figures.draw_overlays("", images, None, masks, titles)
    assert [cell.get_title() for cell in drawn[0].axes] == titles
    names = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert names == [["truth", "prediction"], ["prediction"]]
    assert [len(figure.axes[4].collections) for figure in drawn] == [2, 1]


@pytest.mark.parametrize("number", [1, 2, 5, 12])
def test_images_of_a_sheet_stand_apart(drawn, number):
    sizes = ([(40, 20), (20, 40), (30, 30)] * 4)[:number]
    masks = [lesion(*size) for size in sizes]
    figures.draw_overlays(
        "", [picture(*size) for size in sizes], None, masks, ["ISIC_0000001"] * number
    )
    (sheet,) = drawn
    FigureCanvasAgg(sheet)
    sheet.draw_without_rendering()
    boxes = [cell.get_window_extent() for cell in sheet.axes]
    boxes += [cell.title.get_window_extent() for cell in sheet.axes]
    boxes.append(sheet.legends[0].get_window_extent())
    for row, box in enumerate(boxes):
        assert sheet.bbox.containsx(box.x0) and sheet.bbox.containsx(box.x1)
        assert sheet.bbox.containsy(box.y0) and sheet.bbox.containsy(box.y1)
        assert not [other for other in boxes[:row] if box.overlaps(other)]


def test_images_of_a_sheet_have_the_pixels_that_are_seen(drawn):
    sizes = {(1500, 2000): (300, 400), (2000, 1500): (533, 400), (3000, 1000): (600, 200)}
    figures.draw_crops("", [picture(*size) for size in sizes], ["ISIC_0000001"] * 3)
    shapes = [cell.images[0].get_array().shape[:2] for cell in drawn[0].axes]
    assert shapes == list(sizes.values())


def test_an_empty_mask_has_no_outline(drawn):
    figures.draw_overlays("", [picture()], [lesion()], [lesion() * 0], ["ISIC_0000001"])
    assert set(outlines(drawn[0].axes[0])) == {"#f0e442"}


def test_overlays_refused(drawn):
    with pytest.raises(ValueError, match="1 images and 2 titles"):
        figures.draw_overlays("", [picture()], None, [lesion()], ["a", "b"])
    with pytest.raises(ValueError, match="0 images"):
        figures.draw_crops("", [], [])
    with pytest.raises(ValueError, match="differ in size"):
        figures.draw_overlays("", [picture(20, 20)], None, [lesion()], ["a"])
    with pytest.raises(ValueError, match="shorter"):
        figures.draw_overlays("", [picture()] * 2, None, [lesion()], ["a", "b"])


def test_crops_stand_on_grey(tmp_path):
    file = tmp_path / "crops.png"
    figures.draw_crops(file, [picture() * 0, picture(60, 20)], ["ISIC_1", "ISIC_2"])
    sheet = cv2.imread(str(file))
    assert (sheet[-1, -1] == 153).all()
    values, counts = np.unique(sheet, return_counts=True)
    assert {0, 153, 200} <= set(values[counts > 0.03 * sheet.size])  # black crop, page, other crop


CONFUSION = np.array([[30, 10, 0, 0], [1, 1, 2, 0], [0, 0, 0, 0]])


def cells_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_confusion_shows_counts_and_shares_of_the_row(drawn):
    figures.draw_confusion("", CONFUSION, ["MEL", "NV", "BCC"], "a title")
    axes = drawn[0].axes[0]
    assert cells_of(drawn[0]) == [
        *("30\n75.0%", "10\n25.0%", "0"),
        *("1\n25.0%", "1\n25.0%", "2\n50.0%"),
        *("0", "0", "0"),  # no truth, no share
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["MEL", "NV", "BCC"]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["MEL\n(40)", "NV\n(4)", "BCC\n(0)"]
    assert axes.get_title() == "a title"


def test_undecided_is_drawn_only_if_any_is(drawn):
    confusion = CONFUSION.copy()
    confusion[1, 3] = 4
    figures.draw_confusion("", confusion, ["MEL", "NV", "BCC"], "")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["MEL", "NV", "BCC", "undecided"]
    assert cells_of(drawn[0])[7] == "4\n50.0%"
    with pytest.raises(ValueError, match="no confusion matrix of 3 classes"):
        figures.draw_confusion("", CONFUSION[:, :3], ["MEL", "NV", "BCC"], "")


def test_history_has_a_panel_for_the_loss_and_one_for_the_scores(drawn):
    history = {
        "loss": [3.0, 2.0, 1.0],
        "accuracy": [0.1, 0.2, 0.3],
        "val_loss": [4.0, 3.0, 2.0],
        "val_accuracy": [0.0, 0.1, 0.2],
        "val_balanced_accuracy": [0.0, 0.0, 0.1],
        "learning_rate": [1e-3] * 3,
    }
    figures.draw_history("", history, "task3_tiny_k0_v0")
    loss, score = drawn[0].axes
    assert [list(line.get_ydata()) for line in loss.lines] == [history["loss"], history["val_loss"]]
    assert [line.get_linestyle() for line in loss.lines] == ["--", "-"]
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3]
    assert [list(line.get_ydata()) for line in score.lines] == [
        history["accuracy"],
        history["val_accuracy"],
        history["val_balanced_accuracy"],
    ]
    colours = [line.get_color() for line in score.lines]
    assert colours[0] == colours[1] != colours[2]
    names = [text.get_text() for text in score.get_legend().get_texts()]
    assert names == ["accuracy", "balanced accuracy", "training", "validation"]


def test_a_single_epoch_is_seen(drawn):
    figures.draw_history("", {"loss": [1.0], "val_loss": [2.0]}, "")
    assert len(drawn[0].axes) == 1
    assert [line.get_marker() for line in drawn[0].axes[0].lines] == ["o", "o"]


def test_files_are_whole_pictures_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "history.png"
    figures.draw_history(file, {"loss": [1.0, 0.5]}, "")
    assert cv2.imread(str(file)).shape[0] > 300
    before = file.read_bytes()

    def full_disk(figure, target, **settings):
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        figures.draw_history(file, {"loss": [2.0, 0.5]}, "")
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_no_display_is_needed():
    code = "import sys, reports.figures; print('matplotlib.pyplot' in sys.modules)"
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
