"""Charts of scores for a report: distributions, curves of training, intervals.

Enters: scores per image, histories, scores with intervals.
Leaves: each chart as the bytes of a PNG without background, for a page that has one.
"""

import math
from collections.abc import Callable, Mapping
from functools import wraps

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
)

from datasets.challenge import JACCARD_THRESHOLD
from reports.figures import COLOURS, CURVES, to_png
from reports.pages import format_interval, format_share, readable

BLUE, ORANGE = COLOURS[:2]
INK, MUTED = "0.1", "0.35"
WIDTH = 5.4  # of a chart, in inches; a page shows it about 520 pixels wide
FEWEST_FOR_MEDIAN = 20  # images below which no running median is drawn
LONGEST_NAME = 36  # letters, so that it does not meet the numbers on its right
FEWEST_EPOCHS = 3  # below which the epochs are seen as points only
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
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlabel="lesion's share of the image (truth)", ylabel="Jaccard index", ylim=(-0.03, 1.03)
    )
    return figure


@chart
def draw_training_curves(histories: Mapping[str, pd.DataFrame], measure: str) -> bytes:
    """A measure over the epochs of each run: training dashed, held-out images solid.

    Args:
        histories: {run name: a row per epoch}, with the columns `<measure>` or `val_<measure>`.
        measure: `loss` or a score.
    """
    figure, axes = build_axes(3.2 + 0.18 * math.ceil(len(histories) / 2))
    handles = []
    for (name, history), colour in zip(histories.items(), colours(len(histories)), strict=True):
        marker = "o" if len(history) < FEWEST_EPOCHS else None
        for column, style in zip((measure, f"val_{measure}"), CURVES.values(), strict=True):
            if column in history:
                numbers = epochs_of(history)
                faint = 0.55 if column == measure else 1.0
                line = axes.plot(numbers, history[column], color=colour, marker=marker, **style)
                line[0].set_alpha(faint)
        handles.append(Line2D([], [], color=colour, linewidth=3, label=name))
    for name, style in zip(("training", "held out"), CURVES.values(), strict=True):
        handles.append(Line2D([], [], color=MUTED, label=name, linestyle=style["linestyle"]))
    axes.set(xlabel="epoch", ylabel=readable(measure))
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@chart
def draw_forest(table: pd.DataFrame, zero: bool = False) -> bytes:
    """Values with their intervals, one below the other.

    Args:
        table: index: a name each; columns value, low, high (nan: no interval is drawn).
        zero: draw the line of no difference.
    """
    figure, axes = build_axes(0.6 + 0.52 * len(table))
    for row, (name, value, low, high) in enumerate(table[["value", "low", "high"]].itertuples()):
        if zero:
            axes.plot([0, 0], [row - 0.17, row + 0.3], color=INK, linestyle="dotted", linewidth=1.3)
        axes.plot([low, high], [row, row], color=BLUE, linewidth=2.4, solid_capstyle="butt")
        axes.plot([value], [row], color=BLUE, marker="o", markersize=6)
        text = {"y": row - 0.22, "va": "bottom", "transform": axes.get_yaxis_transform()}
        axes.text(0, s=_shorten(str(name)), ha="left", color=INK, **text)
        axes.text(1, s=format_interval(value, low, high), ha="right", color=MUTED, **text)
    axes.set(ylim=(len(table) - 0.6, -0.75), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(_ScoreFormatter(useOffset=False))
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    return figure


class _ScoreFormatter(ScalarFormatter):
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


def _shorten(name: str) -> str:
    """A name as long as there is room for; start and end of a longer one."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2) :]}"
