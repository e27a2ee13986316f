import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from evaluation import calibration
from reports import charts

NAN = float("nan")
CLASSES = ["MEL", "NV", "BCC"]


@pytest.fixture
def built(monkeypatch):
    """Functions hand back the figure instead of its bytes."""
    monkeypatch.setattr(charts, "to_png", lambda figure: figure)


def laid_out(figure):
    """With its layout, as it comes into the file."""
    figure.savefig(io.BytesIO(), format="png")
    return figure


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def history(epochs: int, first: int = 0, **columns) -> pd.DataFrame:
    numbers = np.arange(first, first + epochs)
    return pd.DataFrame({"epoch": numbers, **columns})


def test_charts_are_pictures_without_background():
    png = charts.draw_jaccard_histogram(np.array([0.2, 0.9]))
    picture = np.array(Image.open(io.BytesIO(png)))
    assert picture.shape[2] == 4 and picture.shape[1] > 900
    assert picture[0, 0, 3] == 0  # nothing in the corner
    assert picture[..., 3].any()


def test_histogram_cuts_at_the_threshold(built):
    jaccard = np.array([0.0, 0.3, 0.649, 0.65, 0.651, 1.0])
    axes = charts.draw_jaccard_histogram(jaccard).axes[0]
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
    axes = charts.draw_jaccard_by_size(jaccard, share).axes[0]
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
    few = charts.draw_jaccard_by_size(np.full(19, 0.7), np.full(19, 0.1)).axes[0]
    assert [line.get_label() for line in few.lines if "median" in line.get_label()] == []
    charts.draw_jaccard_by_size(np.ones(2), np.zeros(2))  # nothing to draw is no error


def test_curves_of_several_runs(built):
    histories = {
        "run_0": history(4, loss=[4, 3, 2, 1], val_loss=[5, 4, 3, 2]),
        "run_1": history(2, first=1, val_loss=[7, 6]),
    }
    figure = charts.draw_training_curves(histories, ["loss"])
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
    lines = charts.draw_training_curves(histories, ["loss"]).axes[0].lines
    assert len({tuple(np.atleast_1d(line.get_color())) for line in lines}) == 12


def test_epochs_count_from_one():
    assert list(charts.epochs_of(history(2))) == [1, 2]
    assert list(charts.epochs_of(history(2, first=1))) == [1, 2]
    assert list(charts.epochs_of(pd.DataFrame({"loss": [3, 2, 1]}))) == [1, 2, 3]


def test_forest_with_and_without_interval(built):
    table = pd.DataFrame(
        {"value": [0.02, 0.1], "low": [-0.01, NAN], "high": [0.05, NAN]}, index=["b - a", "$\\x"]
    )
    axes = charts.draw_forest(table, zero=True).axes[0]
    assert texts(axes) == ["b - a", ".020 (−.010 – .050)", "$\\x", ".100"]
    drawn = [list(line.get_xdata()) for line in axes.lines]
    assert drawn[:3] == [[0, 0], [-0.01, 0.05], [0.02]]
    assert [0, 0] not in [list(x.get_xdata()) for x in charts.draw_forest(table).axes[0].lines]


def test_formulas_in_names_are_drawn_as_they_are():
    table = pd.DataFrame({"value": [0.1], "low": [0], "high": [0.2]}, index=["$\\frac{$"])
    assert charts.draw_forest(table).startswith(b"\x89PNG")


def test_long_names_are_cut_in_the_middle(built):
    name = "a" * 60 + "b" * 60
    table = pd.DataFrame({"value": [0.1], "low": [0.0], "high": [0.2]}, index=[name])
    assert texts(charts.draw_forest(table).axes[0])[0] == "a" * 18 + "…" + "b" * 18


def test_history_of_a_run_is_a_file(tmp_path, monkeypatch):
    columns = {"accuracy": [0.1, 0.2], "learning_rate": [1e-3] * 2, "loss": [3.0, 2.0]}
    columns |= {"val_accuracy": [0.0, 0.1], "val_loss": [4.0, 3.0]}
    asked = []
    build = charts.build_training_curves

    def noted(histories, measures):
        asked.extend([*histories, *measures])
        return build(histories, measures)

    monkeypatch.setattr(charts, "build_training_curves", noted)
    file = tmp_path / "history.png"
    charts.write_history(file, "run_0", columns)
    assert asked == ["run_0", "loss", "accuracy"]  # no learning rate
    picture = np.array(Image.open(file).convert("RGBA"))
    assert picture.shape[1] > 1.5 * picture.shape[0]  # two panels side by side
    assert picture[0, 0].tolist() == [255] * 4  # not transparent
    before = file.read_bytes()

    def full_disk(figure, target, **settings):
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        charts.write_history(file, "run_0", columns)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_every_measure_has_a_panel(built):
    table = history(2, val_loss=[1, 2], val_dice=[0.1, 0.2])
    figure = charts.draw_training_curves({"run": table}, ["loss", "dice"])
    shown = [(axes.get_ylabel(), list(axes.lines[0].get_ydata())) for axes in figure.axes]
    assert shown == [("loss", [1, 2]), ("Dice", [0.1, 0.2])]


CONFUSION = np.array([[30, 10, 0, 0], [1, 1, 2, 0], [0, 0, 0, 0]])


def cells_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_confusion_shows_counts_and_shares_of_the_row(built):
    figure = charts.draw_confusion(CONFUSION, CLASSES)
    axes = figure.axes[0]
    assert cells_of(figure) == [
        *("30\n75.0%", "10\n25.0%", "0"),
        *("1\n25.0%", "1\n25.0%", "2\n50.0%"),
        *("0", "0", "0"),  # no truth, no share
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["MEL", "NV", "BCC"]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["MEL\n(40)", "NV\n(4)", "BCC\n(0)"]


@pytest.mark.parametrize("number", [2, 3, 8, 10, 11, 31])
def test_names_and_counts_of_a_confusion_matrix_do_not_overlap(built, number):
    names = [f"diagnosis {k}" + " with a long name" * (k % 3 == 1) for k in range(number)]
    confusion = np.diag(np.full(number, 1234)) + np.arange(number)
    figure = laid_out(charts.draw_confusion(np.c_[confusion, np.zeros(number, int)], names))
    axes = figure.axes[0]
    assert figure.get_figwidth() < 14
    cell = axes.get_window_extent().width / number
    for texts in (axes.get_yticklabels(), axes.get_xticklabels(), axes.texts):
        assert min(text.get_fontsize() for text in texts) >= 4
        assert all(figure.bbox.x0 <= text.get_window_extent().x0 for text in texts)
        assert all(text.get_window_extent().y0 >= 0 for text in texts)
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == number
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    rows = sorted(
        (t.get_window_extent().y0, t.get_window_extent().y1) for t in axes.get_yticklabels()
    )
    assert all(above[0] >= below[1] - 1 for below, above in pairwise(rows))
    columns = axes.get_xticklabels()
    if columns[0].get_rotation() == 0:
        ends = [(t.get_window_extent().x0, t.get_window_extent().x1) for t in columns]
        assert all(one[1] < other[0] for one, other in pairwise(ends))
    else:  # lines at 45 degrees are further apart than they are high
        assert cell / np.sqrt(2) > columns[0].get_fontsize() * figure.dpi / 72 * 0.9


def test_a_confusion_matrix_of_very_many_classes_stays_a_picture(built):
    confusion = np.eye(300, 301, dtype=int)
    figure = charts.draw_confusion(confusion, [f"class {k}" for k in range(300)])
    assert max(figure.get_size_inches()) < 12 and not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) < 100


def test_undecided_is_drawn_only_if_any_is(built):
    confusion = CONFUSION.copy()
    confusion[1, 3] = 4
    figure = charts.draw_confusion(confusion, CLASSES)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["MEL", "NV", "BCC", "undecided"]
    assert cells_of(figure)[7] == "4\n50.0%"
    with pytest.raises(ValueError, match="no confusion matrix of 3 classes"):
        charts.draw_confusion(CONFUSION[:, :3], CLASSES)


def test_roc_of_the_classes_there_are(built):
    truth = np.array([0, 0, 1, 1])
    probability = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0], [0.2, 0.8, 0]])
    figure = charts.draw_roc(truth, probability, CLASSES)
    axes = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    # MEL .9 and .4 against .5 and .2: three of four pairs in order; so for NV
    assert names == ["MEL  .750  (2)", "NV  .750  (2)"]
    assert list(axes.lines[1].get_ydata()) == [0, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("truth", [0, 2], ids=["held alone", "third class"])
def test_one_class_alone_has_no_curve(built, truth):
    figure = charts.draw_roc(np.full(4, truth), np.full((4, 3), 1 / 3), CLASSES)
    assert figure.legends == []
    assert len(figure.axes[0].lines) == 1  # the diagonal


@pytest.mark.parametrize("number", [2, 8, 14, 31])
def test_curves_of_any_number_of_classes_are_told_apart(built, number):
    truth = np.arange(10 * number) % number
    random = np.random.default_rng(0)
    probability = random.dirichlet(np.ones(number), len(truth))
    shown = [f"{'a rather long name of diagnosis ' * (k % 2)}{k}" for k in range(number)]
    figure = laid_out(charts.draw_roc(truth, probability, shown))
    axes, (legend,) = figure.axes[0], figure.legends
    lines = axes.lines[1:]
    assert len(lines) == number
    named = [line for line in lines if line.get_label()[0] not in "_t"]
    looks = {(line.get_color(), line.get_linestyle()) for line in named}
    assert len(looks) == len(named) == (7 if number == 31 else number)
    names = [text.get_text() for text in legend.get_texts()]
    assert names[: len(named)] == [line.get_label() for line in named]
    if number == 31:
        areas = [float(name.split()[-2]) for name in names[:7]]
        assert areas == sorted(areas) and names[7].startswith("the others  .")
        assert float(names[7].split()[2]) >= areas[-1]
        assert legend.get_title().get_text().startswith("the smallest of 31 areas")
    # the legend lies below the panel, and all of it is on the picture
    box = legend.get_window_extent()
    assert box.y1 <= axes.get_window_extent().y0 and box.y0 >= 0
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert axes.get_window_extent().width > 0.7 * figure.bbox.width


def test_the_error_reported_is_the_one_drawn(built):
    """A tie is wrong, and a bin holds its upper end: 9/15 = .6 is in the 9th of 15."""
    truth = np.array([0, 1, 1, 0, 0])
    probability = np.array([[0.9, 0.1], [0.92, 0.08], [0.38, 0.62], [0.5, 0.5], [0.6, 0.4]])
    table = calibration.reliability(truth, probability)
    assert table["part"].tolist() == [7, 8, 9, 13]
    assert table["images"].tolist() == [1, 1, 1, 2]
    assert table["accuracy"].tolist() == [0, 1, 1, 0.5]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.6, 0.62, 0.91])
    above, below = charts.draw_reliability(truth, probability).axes
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
    one = charts.draw_reliability(truth, before).axes
    both = charts.draw_reliability(truth, before, after).axes
    assert [len(axes[0].lines) for axes in (one, both)] == [2, 3]  # with the diagonal
    names = [text.get_text() for text in both[0].get_legend().get_texts()]
    assert names == ["uncalibrated", "calibrated"]
    shown = [np.nanmean(line.get_xdata()) for line in both[0].lines[1:]]
    assert shown == pytest.approx([0.9, 0.6])
    assert len(both[1].patches) == 2  # histograms of confidence
