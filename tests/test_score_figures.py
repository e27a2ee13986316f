import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports import score_figures

NAN = float("nan")


@pytest.fixture
def built(monkeypatch):
    """Functions hand back the figure instead of its bytes."""
    monkeypatch.setattr(score_figures, "to_png", lambda figure: figure)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def history(epochs: int, first: int = 0, **columns) -> pd.DataFrame:
    numbers = np.arange(first, first + epochs)
    return pd.DataFrame({"epoch": numbers, **columns})


def test_charts_are_pictures_without_background():
    png = score_figures.draw_jaccard_histogram(np.array([0.2, 0.9]))
    picture = np.array(Image.open(io.BytesIO(png)))
    assert picture.shape[2] == 4 and picture.shape[1] > 900
    assert picture[0, 0, 3] == 0  # nothing in the corner
    assert picture[..., 3].any()


def test_histogram_cuts_at_the_threshold(built):
    jaccard = np.array([0.0, 0.3, 0.649, 0.65, 0.651, 1.0])
    axes = score_figures.draw_jaccard_histogram(jaccard).axes[0]
    counts = {}
    for bar in axes.patches:
        if bar.get_height():
            colour = bar.get_facecolor()
            counts[colour] = counts.get(colour, 0) + bar.get_height()
            side = bar.get_x() + bar.get_width() / 2 < 0.65
            assert side == (colour[0] > 0.5)  # orange below, blue above
    assert sorted(counts.values()) == [3, 3]
    assert texts(axes) == ["below 0.65:\n3 of 6 (50.0 %)"]
    assert list(axes.lines[0].get_xdata()) == [0.65, 0.65]


def test_jaccard_by_size(built):
    share = np.r_[0, np.geomspace(0.01, 0.5, 24)]
    jaccard = np.r_[1, np.linspace(0.4, 1, 24)]
    axes = score_figures.draw_jaccard_by_size(jaccard, share).axes[0]
    assert axes.get_xscale() == "log"
    shown = np.vstack([points.get_offsets() for points in axes.collections])
    assert len(shown) == 24  # the image without a lesion has no place
    assert shown[:, 0].min() == pytest.approx(1) and shown[:, 0].max() == pytest.approx(50)
    median = axes.lines[-1]
    assert median.get_label() == "running median"
    assert len(median.get_xdata()) == 24 - 11 + 1
    assert (np.diff(median.get_ydata()) > 0).all()
    sixth = 6  # the middle of the first eleven with a lesion
    assert median.get_ydata()[0] == pytest.approx(jaccard[sixth])


def test_few_images_have_no_running_median(built):
    few = score_figures.draw_jaccard_by_size(np.full(19, 0.7), np.full(19, 0.1)).axes[0]
    assert [line.get_label() for line in few.lines if "median" in line.get_label()] == []
    score_figures.draw_jaccard_by_size(np.ones(2), np.zeros(2))  # nothing to draw is no error


def test_curves_of_several_runs(built):
    histories = {
        "run_0": history(4, loss=[4, 3, 2, 1], val_loss=[5, 4, 3, 2]),
        "run_1": history(2, first=1, val_loss=[7, 6]),
    }
    figure = score_figures.draw_training_curves(histories, "loss")
    lines = figure.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[4, 3, 2, 1], [5, 4, 3, 2], [7, 6]]
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2]]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "-"]
    assert [line.get_marker() for line in lines][-1] == "o"
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["run_0", "run_1", "training", "held out"]


def test_any_number_of_runs_has_colours_of_their_own(built):
    histories = {f"run_{k}": history(2, val_loss=[1, 2]) for k in range(12)}
    lines = score_figures.draw_training_curves(histories, "loss").axes[0].lines
    assert len({tuple(np.atleast_1d(line.get_color())) for line in lines}) == 12


def test_epochs_count_from_one():
    assert list(score_figures.epochs_of(history(2))) == [1, 2]
    assert list(score_figures.epochs_of(history(2, first=1))) == [1, 2]
    assert list(score_figures.epochs_of(pd.DataFrame({"loss": [3, 2, 1]}))) == [1, 2, 3]


def test_forest_with_and_without_interval(built):
    table = pd.DataFrame(
        {"value": [0.02, 0.1], "low": [-0.01, NAN], "high": [0.05, NAN]}, index=["b - a", "$\\x"]
    )
    axes = score_figures.draw_forest(table, zero=True).axes[0]
    assert texts(axes) == ["b - a", ".020 (−.010 – .050)", "$\\x", ".100"]
    drawn = [list(line.get_xdata()) for line in axes.lines]
    assert drawn[:3] == [[0, 0], [-0.01, 0.05], [0.02]]
    assert [0, 0] not in [
        list(x.get_xdata()) for x in score_figures.draw_forest(table).axes[0].lines
    ]


def test_formulas_in_names_are_drawn_as_they_are():
    table = pd.DataFrame({"value": [0.1], "low": [0], "high": [0.2]}, index=["$\\frac{$"])
    assert score_figures.draw_forest(table).startswith(b"\x89PNG")


def test_long_names_are_cut_in_the_middle(built):
    name = "a" * 60 + "b" * 60
    table = pd.DataFrame({"value": [0.1], "low": [0.0], "high": [0.2]}, index=[name])
    assert texts(score_figures.draw_forest(table).axes[0])[0] == "a" * 18 + "…" + "b" * 18
