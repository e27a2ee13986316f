import numpy as np
import pytest

from evaluation import calibration
from reports import class_figures, score_figures

CLASSES = ["MEL", "NV", "BCC"]


@pytest.fixture
def built(monkeypatch):
    """Functions hand back the figure instead of its bytes."""
    monkeypatch.setattr(score_figures, "to_png", lambda figure: figure)


def test_confusion_is_drawn():
    png = class_figures.draw_confusion(np.array([[3, 1, 0, 0], [0, 0, 0, 2], [0] * 4]), CLASSES)
    assert png.startswith(b"\x89PNG")


def test_roc_of_the_classes_there_are(built):
    truth = np.array([0, 0, 1, 1])
    probability = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0], [0.2, 0.8, 0]])
    axes = class_figures.draw_roc(truth, probability, CLASSES).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    # MEL .9 and .4 against .5 and .2: three of four pairs in order; so for NV
    assert names == ["MEL  .750  (2)", "NV  .750  (2)"]
    assert list(axes.lines[1].get_ydata()) == [0, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("truth", [0, 2], ids=["held alone", "third class"])
def test_one_class_alone_has_no_curve(built, truth):
    axes = class_figures.draw_roc(np.full(4, truth), np.full((4, 3), 1 / 3), CLASSES).axes[0]
    assert axes.get_legend() is None
    assert len(axes.lines) == 1  # the diagonal


def test_the_error_reported_is_the_one_drawn(built):
    """A tie is wrong, and a bin holds its upper end: 9/15 = .6 is in the 9th of 15."""
    truth = np.array([0, 1, 1, 0, 0])
    probability = np.array([[0.9, 0.1], [0.92, 0.08], [0.38, 0.62], [0.5, 0.5], [0.6, 0.4]])
    table = calibration.reliability(truth, probability)
    assert table["part"].tolist() == [7, 8, 9, 13]
    assert table["images"].tolist() == [1, 1, 1, 2]
    assert table["accuracy"].tolist() == [0, 1, 1, 0.5]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.6, 0.62, 0.91])
    above, below = class_figures.draw_reliability(truth, probability).axes
    x, y = (np.asarray(values, float) for values in above.lines[1].get_data())
    drawn = ~np.isnan(x)
    assert len(x) == 15 and x[drawn].tolist() == table["confidence"].tolist()
    assert y[drawn].tolist() == table["accuracy"].tolist()
    assert below.patches[0].get_data().values.tolist() == [0] * 7 + [1, 1, 1, 0, 0, 0, 2, 0]
    gaps = np.abs(x - y)[drawn] * table["images"].to_numpy()
    error = calibration.calibration_error(truth, probability)
    assert error == pytest.approx(gaps.sum() / 5)


def test_reliability_has_a_line_for_each_table(built):
    truth = np.array([0, 1])
    before, after = np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([[0.6, 0.4], [0.6, 0.4]])
    one = class_figures.draw_reliability(truth, before).axes
    both = class_figures.draw_reliability(truth, before, after).axes
    assert [len(axes[0].lines) for axes in (one, both)] == [2, 3]  # with the diagonal
    names = [text.get_text() for text in both[0].get_legend().get_texts()]
    assert names == ["uncalibrated", "calibrated"]
    shown = [np.nanmean(line.get_xdata()) for line in both[0].lines[1:]]
    assert shown == pytest.approx([0.9, 0.6])
    assert len(both[1].patches) == 2  # histograms of confidence
