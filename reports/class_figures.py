"""Charts of class probabilities for a report: confusion, ROC, calibration.

Enters: class indices int (N,) with probabilities (N, C), or counts (C, C + 1).
Leaves: each chart as the bytes of a PNG without background, for a page that has one.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import auc, roc_curve

from evaluation.calibration import BINS, reliability
from reports.figures import build_confusion
from reports.pages import format_score
from reports.score_figures import BLUE, MUTED, ORANGE, WIDTH, build_axes, chart, colours


@chart
def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Counts (C, C + 1), rows true, columns decided, the last undecided; see figures."""
    figure = build_confusion(confusion, classes, "")
    for axes in figure.axes:
        axes.grid(visible=False)
    return figure


@chart
def draw_roc(truth: np.ndarray, probability: np.ndarray, classes: Sequence[str]) -> bytes:
    """Each class against all others: sensitivity at each share of false alarms, and the area.

    Args:
        truth: int (N,), 0..C-1.
        probability: (N, C).
        classes: C names. A class that the truth does not hold, or holds alone, has no curve.
    """
    figure, axes = build_axes(4.9)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="dotted", linewidth=1)
    for (number, name), colour in zip(enumerate(classes), colours(len(classes)), strict=True):
        is_class = truth == number
        if is_class.all() or not is_class.any():
            continue
        false_alarms, found, _ = roc_curve(is_class, probability[:, number])
        area = format_score(auc(false_alarms, found))
        label = f"{name}  {area}  ({is_class.sum():,})"
        axes.plot(false_alarms, found, color=colour, linewidth=1.6, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", title="class, area, images", title_fontsize=9)
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
