"""Charts of trainings and scores: each is the PNG bytes of a picture, drawn without a display.

Enters: scores per image, histories, scores with intervals, class indices int (N,) with
probabilities (N, C). Leaves: PNG without background, for a page that has one; for the folder of a
run a PNG file.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from datasets.challenge import JACCARD_THRESHOLD
from evaluation.calibration import BINS, reliability
from misc_utils.files import partial_file
from reports.pages import format_interval, format_score, format_share, readable

# Okabe and Ito's colours, which colour-blind people can tell apart; line styles differ as well,
# for print in grey
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
BLUE, ORANGE = COLOURS[:2]
INK, MUTED = "0.1", "0.35"
WIDTH = 5.4  # of a panel, in inches; a page shows it about 520 pixels wide
FEWEST_FOR_MEDIAN = 20  # images below which no running median is drawn
LONGEST_NAME = 36  # letters, so that it does not meet the numbers on its right
LETTER = 0.55  # width of a letter, as a share of the size of its font
SMALLEST = 4.0  # points, below which nothing can be read
MOST_WITH_SHARES = 10  # columns of a confusion matrix that has percentages
MOST_ABREAST = 12  # letters of a name under a column as wide as there
STYLES = ("solid", "dashed")  # of curves, when the colours are used up
MOST_NAMED = len(COLOURS) * len(STYLES)  # curves that are told apart
FEWEST_EPOCHS = 3  # below which the epochs are seen as points only
FIRST_CURVES = ("loss", "threshold_jaccard", "jaccard", "balanced_accuracy", "accuracy")
MOST_CURVES = 4
NOT_CURVES = ("epoch", "learning_rate", "seconds")
STYLE = {
    "figure.dpi": 190,
    "savefig.dpi": 190,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "black",
    "grid.alpha": 0.12,  # on a dark page as well
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def chart(build: Callable[..., Figure]) -> Callable[..., bytes]:
    """Makes PNG bytes of what a function builds, in the style of the reports."""

    @wraps(build)
    def draw(*arguments, **named) -> bytes:
        with matplotlib.rc_context(STYLE):
            return to_png(build(*arguments, **named))

    return draw


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file without background."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


@chart
def draw_jaccard_histogram(jaccard: np.ndarray) -> bytes:
    """How many images have which Jaccard index (N,), with the threshold of the challenge."""
    figure, axes = build_axes(3.4)
    below = jaccard < JACCARD_THRESHOLD
    edges = np.linspace(0, 1, 21)  # 0.65 is one of them
    for chosen, colour in ((below, ORANGE), (~below, BLUE)):
        axes.hist(jaccard[chosen], bins=edges, color=colour, edgecolor="white", linewidth=0.6)
    axes.axvline(JACCARD_THRESHOLD, color=INK, linestyle="dashed", linewidth=1)
    text = f"below {JACCARD_THRESHOLD}:\n{format_share(below.sum(), len(jaccard))}"
    axes.text(0.02, 0.96, text, transform=axes.transAxes, va="top", color=ORANGE)
    axes.set(xlabel="Jaccard index of an image", ylabel="images", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    return figure


@chart
def draw_jaccard_by_size(jaccard: np.ndarray, lesion_share: np.ndarray) -> bytes:
    """Jaccard index (N,) against the lesion's share of the image (N,), 0..1, on a log axis.

    Images without a lesion have no place on that axis and are left out. The running median is of
    an eighth of the images, at least eleven, and is not drawn for fewer than 20 images.
    """
    figure, axes = build_axes(3.4)
    table = pd.DataFrame({"share": lesion_share, "jaccard": jaccard})
    table = table[table["share"] > 0].sort_values("share")
    low = table["jaccard"] < JACCARD_THRESHOLD
    for chosen, colour in ((low, ORANGE), (~low, BLUE)):
        some = table[chosen]
        axes.scatter(100 * some["share"], some["jaccard"], s=9, color=colour, alpha=0.45, lw=0)
    axes.axhline(JACCARD_THRESHOLD, color=INK, linestyle="dashed", linewidth=1)
    if len(table) >= FEWEST_FOR_MEDIAN:
        window = max(len(table) // 8, 11)
        median = table.rolling(window).median().dropna()
        axes.plot(100 * median["share"], median["jaccard"], color=INK, lw=2, label="running median")
        axes.legend(loc="lower right")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set(
        xlabel="lesion's share of the image (truth)", ylabel="Jaccard index", ylim=(-0.03, 1.03)
    )
    return figure


def curves_of(histories: Mapping[str, pd.DataFrame]) -> list[str]:
    """The measures that were noted each epoch, those of FIRST_CURVES first."""
    found = dict.fromkeys(
        column.removeprefix("val_") for table in histories.values() for column in table.columns
    )
    first = [name for name in FIRST_CURVES if name in found]
    return [*first, *(name for name in found if name not in (*first, *NOT_CURVES))]


def build_training_curves(histories: Mapping[str, pd.DataFrame], measures: Sequence[str]) -> Figure:
    """A panel for each measure over the epochs of each run: training dashed, held out solid.

    Args:
        histories: {run name: a row per epoch}, with the columns `<measure>` or `val_<measure>`.
        measures: `loss` or scores.
    """
    columns, rows = min(len(measures), 2), math.ceil(len(measures) / 2)
    legend = 0.4 + 0.18 * math.ceil(len(histories) / 2)
    figure = Figure(figsize=(WIDTH * columns, 2.8 * rows + legend))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(measures) :]:
        unused.remove()
    for axes, measure in zip(panels, measures, strict=False):
        for history, colour in zip(histories.values(), colours(len(histories)), strict=True):
            marker = "o" if len(history) < FEWEST_EPOCHS else None
            for column, line, alpha in ((measure, "--", 0.55), (f"val_{measure}", "-", 1.0)):
                if column in history:
                    look = {"color": colour, "linestyle": line, "alpha": alpha, "marker": marker}
                    axes.plot(epochs_of(history), history[column], **look)
        axes.set(xlabel="epoch", ylabel=readable(measure))
        axes.set_xlim(left=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles = [
        Line2D([], [], color=colour, linewidth=3, label=name)
        for name, colour in zip(histories, colours(len(histories)), strict=True)
    ]
    for name, line in (("training", "--"), ("held out", "-")):
        handles.append(Line2D([], [], color=MUTED, label=name, linestyle=line))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


draw_training_curves = chart(build_training_curves)


def write_history(file: Path, name: str, columns: Mapping[str, Sequence[float]]) -> None:
    """Write the curves of one run as a PNG file.

    Args:
        file: to write; its folder exists.
        name: of the run.
        columns: {measure: a number per epoch}; those on held-out images are `val_<measure>`.
    """
    histories = {name: pd.DataFrame(columns)}
    measures = curves_of(histories)[:MOST_CURVES]
    with matplotlib.rc_context(STYLE), partial_file(file) as partial:
        figure = build_training_curves(histories, measures)
        figure.savefig(partial, format="png", dpi=100, pil_kwargs={"compress_level": 1})


@chart
def draw_forest(table: pd.DataFrame, zero: bool = False) -> bytes:
    """Values with their intervals, one below the other.

    Args:
        table: index: a name each; columns value, low, high (nan: no interval is drawn).
        zero: draw the line of no difference.
    """
    figure, axes = build_axes(0.6 + 0.52 * len(table))
    for row, (name, value, low, high) in enumerate(
        table[["value", "low", "high"]].rename(str).itertuples()
    ):
        if zero:
            axes.plot([0, 0], [row - 0.17, row + 0.3], color=INK, linestyle="dotted", linewidth=1.3)
        axes.plot([low, high], [row, row], color=BLUE, linewidth=2.4, solid_capstyle="butt")
        axes.plot([value], [row], color=BLUE, marker="o", markersize=6)
        short = shortened(name)
        text = {"y": row - 0.22, "va": "bottom", "transform": axes.get_yaxis_transform()}
        axes.text(0, s=short, ha="left", color=INK, **text)
        axes.text(1, s=format_interval(value, low, high), ha="right", color=MUTED, **text)
    axes.set(ylim=(len(table) - 0.6, -0.75), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(_ScoreFormatter(useOffset=False))
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    return figure


@chart
def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """A confusion matrix: counts, and percentages of each row.

    With more than MOST_WITH_SHARES columns shades alone tell the percentages, and what is 0 is left
    empty. The matrix does not grow then; numbers and names too small to be read are left out.

    Args:
        confusion: (C, C + 1), rows true, columns decided, the last undecided: drawn only if any is.
        classes: C names.
    """
    confusion, columns = np.asarray(confusion), [*classes, "undecided"]
    if confusion.shape != (len(classes), len(columns)):
        raise ValueError(f"{confusion.shape} is no confusion matrix of {len(classes)} classes")
    if not confusion[:, -1].any():
        confusion, columns = confusion[:, :-1], columns[:-1]
    in_truth = confusion.sum(axis=1)
    share = confusion / np.where(in_truth > 0, in_truth, 1)[:, np.newaxis]

    many = len(columns) > MOST_WITH_SHARES
    width, height = (WIDTH / len(columns),) * 2 if many else (0.9, 0.7)  # of a cell, in inches
    size = min(8.0, 50 * height) if many else 10.0  # of the font of the names
    names = [shortened(name) for name in columns]
    longest = max(map(len, names)) * size * LETTER / 72  # in inches
    turned = many or max(map(len, " ".join(names).split())) > MOST_ABREAST
    figure = Figure(
        figsize=(
            1.6 + longest + width * len(columns),
            1.6 + height * len(classes) + 0.7 * longest * turned,
        )
    )
    axes = figure.add_subplot()
    shades = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    _write_counts(axes, confusion, share, 72 * width if many else None)

    step, look = math.ceil(SMALLEST / size), {"fontsize": max(size, SMALLEST)}
    apart = " " if many else "\n"
    rows = [f"{name}{apart}({n:,.10g})" for name, n in zip(names, in_truth, strict=False)]
    axes.set_yticks(range(0, len(classes), step), rows[::step], **look)
    if turned:
        look |= {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    else:
        names = [textwrap.fill(name, MOST_ABREAST) for name in names]
    axes.set_xticks(range(0, len(columns), step), names[::step], **look)
    axes.set(xlabel="prediction", ylabel="truth (and how many)")
    axes.grid(visible=False)
    bar = figure.colorbar(shades, ax=axes, label="% of the true class", fraction=0.05, pad=0.03)
    bar.ax.grid(visible=False)
    return figure


def _write_counts(
    axes: Axes, confusion: np.ndarray, share: np.ndarray, points: float | None
) -> None:
    """Counts with percentages; or counts alone in cells of so many points, unless too small."""
    size = 10.0
    if points is not None:
        size = min(7.5, points / LETTER / (len(f"{confusion.max():.10g}") + 1))
        if size < SMALLEST:
            return
    for (row, column), count in np.ndenumerate(confusion):
        if points is None:
            text = f"{count:,.10g}" + (f"\n{100 * share[row, column]:.1f}%" if count else "")
        else:
            text = f"{count:.10g}" if count else ""
        ink = "white" if share[row, column] > 0.5 else "black"
        if text:
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


@chart
def draw_roc(truth: np.ndarray, probability: np.ndarray, classes: Sequence[str]) -> bytes:
    """Each class against all others: sensitivity at each share of false alarms, and the area.

    Of more than MOST_NAMED curves those of the smallest areas are named, the others are grey.

    Args:
        truth: int (N,), 0..C-1.
        probability: (N, C).
        classes: C names. A class that the truth does not hold, or holds alone, has no curve.
    """
    from sklearn.metrics import auc, roc_curve  # half a second, which training need not wait for

    curves = []
    for number, name in enumerate(classes):
        is_class = truth == number
        if is_class.all() or not is_class.any():
            continue
        false_alarms, found, _ = roc_curve(is_class, probability[:, number])
        area = auc(false_alarms, found)
        label = f"{shortened(name)}  {format_score(area)}  ({is_class.sum():,})"
        curves.append((area, label, false_alarms, found))
    others, title = [], "class, area, images"
    if len(curves) > MOST_NAMED:
        curves.sort(key=lambda curve: curve[0])
        title = f"the smallest of {len(curves)} areas: {title}"
        curves, others = curves[: len(COLOURS)], curves[len(COLOURS) :]

    columns = 2 if max((len(label) for _, label, *_ in curves), default=0) < 30 else 1
    rows = math.ceil((len(curves) + bool(others)) / columns)
    figure, axes = build_axes(4.9 + (0.5 + 0.2 * rows if rows else 0))
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="dotted", linewidth=1)
    for k, (_, label, *curve) in enumerate(curves):
        look = {"color": COLOURS[k % len(COLOURS)], "linestyle": STYLES[k // len(COLOURS)]}
        axes.plot(*curve, linewidth=1.6, label=label, **look)
    for k, (area, _, *curve) in enumerate(others):
        ends = f"{format_score(area)} – {format_score(others[-1][0])}"
        look = {"label": "_" if k else f"the others  {ends}", "zorder": 1}
        axes.plot(*curve, linewidth=0.7, color=MUTED, alpha=0.4, **look)
    if curves:
        look = {"title": title, "title_fontsize": 9, "ncols": columns}
        figure.legend(loc="outside lower center", **look)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    return figure


@chart
def draw_reliability(
    truth: np.ndarray, probability: np.ndarray, calibrated: np.ndarray | None = None
) -> bytes:
    """How often the net is right at each confidence; see calibration.reliability.

    Args:
        truth: int (N,), 0..C-1.
        probability: (N, C). Confidence is the largest of a row; a row with two is wrong.
        calibrated: the same after calibration, drawn as a second line.
    """
    figure = Figure(figsize=(WIDTH, 4.9))
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=MUTED, linestyle="dotted", linewidth=1)
    tables = {"uncalibrated" if calibrated is not None else "the net": probability}
    if calibrated is not None:
        tables["calibrated"] = calibrated
    styles = ((BLUE, "o", "solid"), (ORANGE, "s", "dashed"))
    edges = np.linspace(0, 1, BINS + 1)
    for (name, table), (colour, marker, line) in zip(tables.items(), styles, strict=False):
        bins = reliability(truth, table).set_index("part").reindex(range(BINS))
        look = {"color": colour, "linestyle": line}
        above.plot(
            bins["confidence"], bins["accuracy"], marker=marker, markersize=4, label=name, **look
        )
        below.stairs(
            bins["images"].fillna(0),
            edges,
            fill=line == "solid",
            alpha=0.35 if line == "solid" else 1,
            **look,
        )
    above.legend(loc="upper left")
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="confidence (largest probability)", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def shortened(name: str) -> str:
    """A name of at most LONGEST_NAME letters: of a longer one its beginning and its end."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


class _ScoreFormatter(ticker.ScalarFormatter):
    """Numbers of an axis as scores are written: `.82`, `−.01`."""

    def __call__(self, value: float, position: int | None = None) -> str:
        return super().__call__(value, position).replace("0.", ".", 1 if abs(value) < 1 else 0)


def epochs_of(history: pd.DataFrame) -> pd.Series:
    """Numbers of the epochs from 1 on; Keras's CSVLogger counts from 0."""
    if "epoch" not in history:
        return pd.Series(range(1, len(history) + 1), index=history.index)
    return history["epoch"] + (1 if len(history) and history["epoch"].min() == 0 else 0)


def build_axes(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as charts are, with one panel; height in inches."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.add_subplot()


def colours(count: int) -> list:
    """As many colours as asked for: those told apart by colour-blind people while they last."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count)))
