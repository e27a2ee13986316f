"""Pictures a researcher looks at after a run, written as PNG without a display.

Enters: the file to write, uint8 images (H, W, 3), masks (H, W), a confusion matrix, the numbers of
each epoch. Leaves: one PNG file, whole or not at all; or a small picture, or a figure as PNG bytes,
for a page. Nothing is shown on a screen.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from misc_utils.files import partial_file

# Of an image on a sheet, in inches: width, space on both sides, height of its title; of the legend.
CELL, MARGIN, TITLE, LEGEND = 2.8, 0.06, 0.35, 0.4
TALLEST = 1.5  # height of an image on a sheet, in widths
WIDTH = 400  # of an image on a sheet, in pixels; more would not be seen
# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# The line styles differ as well, for print in grey.
OUTLINES = {
    "truth": {"color": "#f0e442", "linestyle": "solid"},
    "prediction": {"color": "#56b4e9", "linestyle": "dashed"},
}
HALO = (Stroke(linewidth=3.0, foreground="black"), Normal())  # seen on pale skin and dark lesion
OUTLINE_SIDE = 360  # longest side of a picture with outlines, in pixels
TRUTH_RGB, PREDICTION_RGB, HALO_RGB = (240, 228, 66), (86, 180, 233), (0, 0, 0)
DASH, GAP = 9, 7  # of the prediction's outline, in pixels
CURVES = {
    "training": {"linestyle": "dashed", "markerfacecolor": "white"},
    "validation": {"linestyle": "solid"},
}
NOT_SCORES = ("loss", "learning_rate", "epoch", "seconds")


def draw_overlays(
    path: Path,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    predictions: Sequence[np.ndarray],
    titles: Sequence[str],
) -> None:
    """A sheet of images with the outlines of the true and the predicted lesion.

    Args:
        path: the PNG file to write; its folder must be there.
        images: uint8 (H, W, 3), at least one.
        truths: masks (H, W) of the same sizes, lesion is what is not 0; None where there are none.
        predictions: the same.
        titles: one above each image.

    Raises:
        ValueError: the numbers of images, masks and titles differ, or the sizes of image and mask.
    """
    figure, cells = _build_sheet(images, titles)
    masks = {"truth": truths, "prediction": predictions}
    shown = {name: some for name, some in masks.items() if some is not None}
    for name, some in shown.items():
        for cell, image, mask in zip(cells, images, some, strict=True):
            if mask.shape != image.shape[:2]:
                raise ValueError(f"mask {mask.shape} and image {image.shape} differ in size")
            _draw_outline(cell, mask, name)
    lines = [
        Line2D([], [], label=name, linewidth=1.6, path_effects=HALO, **OUTLINES[name])
        for name in shown
    ]
    figure.legend(handles=lines, loc="lower center", ncols=2, handlelength=4, frameon=False)
    _write(figure, path)


def draw_crops(path: Path, crops: Sequence[np.ndarray], titles: Sequence[str]) -> None:
    """A sheet of titled crops, uint8 (H, W, 3) of any sizes, on grey, which shows their black."""
    figure, _ = _build_sheet(crops, titles)
    figure.set_facecolor("0.6")
    _write(figure, path)


def outline(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    longest: int = OUTLINE_SIDE,
) -> np.ndarray:
    """A small picture of an image with the outlines of the true and the predicted lesion.

    Args:
        image: uint8 (H, W, 3) RGB.
        truth: mask (H, W), lesion is what is not 0; drawn as a yellow line. None: not drawn.
        prediction: the same; drawn as a dashed sky-blue line over it.
        longest: longest side of the picture in pixels; a smaller image keeps its size.

    Returns:
        uint8 RGB (h, w, 3), an array of its own. A lesion smaller than half a pixel of it is lost.

    Raises:
        ValueError: image and mask differ in size.
    """
    picture = np.array(shrink(image, longest))
    contours = {}
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask is not None and mask.shape != image.shape[:2]:
            raise ValueError(f"{name} {mask.shape} and image {image.shape} differ in size")
        contours[name] = [] if mask is None else _contours(mask, longest)
    dashes = [dash for contour in contours["prediction"] for dash in _dashes(contour)]
    for lines, colour, closed in (
        (contours["truth"], TRUTH_RGB, True),
        (dashes, PREDICTION_RGB, False),
    ):
        cv2.polylines(picture, lines, closed, HALO_RGB, 5, cv2.LINE_AA)
        cv2.polylines(picture, lines, closed, colour, 2, cv2.LINE_AA)
    return picture


def draw_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Write the figure of `build_confusion` as a PNG file."""
    _write(build_confusion(confusion, classes, title), path)


def build_confusion(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix: counts, and percentages of each row.

    Args:
        confusion: (C, C + 1), rows true, columns decided, the last undecided: drawn only if any is.
        classes: C names.
        title: above the matrix.
    """
    confusion, columns = np.asarray(confusion), [*classes, "undecided"]
    if confusion.shape != (len(classes), len(columns)):
        raise ValueError(f"{confusion.shape} is no confusion matrix of {len(classes)} classes")
    if not confusion[:, -1].any():
        confusion, columns = confusion[:, :-1], columns[:-1]
    in_truth = confusion.sum(axis=1)
    share = confusion / np.where(in_truth > 0, in_truth, 1)[:, np.newaxis]

    figure = Figure(figsize=(2.4 + 0.9 * len(columns), 1.6 + 0.7 * len(classes)), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    colours = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), count in np.ndenumerate(confusion):
        text = f"{count:,.10g}" + (f"\n{100 * share[row, column]:.1f}%" if count else "")
        ink = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=10)
    rows = [f"{name}\n({count:,.10g})" for name, count in zip(classes, in_truth, strict=True)]
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(classes)), rows)
    axes.set(xlabel="prediction", ylabel="truth (and how many)", title=title)
    figure.colorbar(colours, ax=axes, label="% of the true class")
    return figure


def draw_history(path: Path, history: Mapping[str, Sequence[float]], title: str) -> None:
    """Curves of training and validation over the epochs: the loss, and beside it the scores.

    Args:
        path: the PNG file to write.
        history: {name: a number per epoch}, as `fit` returns it; validation is named `val_<name>`.
            What is neither loss nor score (the learning rate) is left out.
        title: above both.
    """
    names = dict.fromkeys(name.removeprefix("val_") for name in history)  # in order, each once
    scores = [name for name in names if name not in NOT_SCORES]
    panels = {"loss": ["loss"], "score": scores} if scores else {"loss": ["loss"]}
    figure = Figure(figsize=(5.5 * len(panels), 4.8), dpi=150)
    figure.set_layout_engine("constrained")
    figure.suptitle(title)
    for number, (label, shown) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="0.9")
        _draw_curves(
            axes, {name: (history.get(name), history.get(f"val_{name}")) for name in shown}
        )
    _write(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, tuple]) -> None:
    """Curves {name: (training, validation)}, either may be None; a colour for each name."""
    marker, handles = None, []
    for (name, pair), colour in zip(curves.items(), cycle(COLOURS)):
        for values, style in zip(pair, CURVES.values(), strict=True):
            if values is not None:
                marker = "o" if len(values) < 3 else None  # one epoch is not seen as a line
                axes.plot(range(1, len(values) + 1), values, color=colour, marker=marker, **style)
        handles.append(Line2D([], [], color=colour, linewidth=3, label=name.replace("_", " ")))
    for name, style in CURVES.items():
        handles.append(Line2D([], [], color="0.3", marker=marker, label=name, **style))
    # under the panel, where it hides no curve
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
    axes.legend(handles=handles, ncols=3, frameon=False, **place)


def _build_sheet(images: Sequence[np.ndarray], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a titled cell for each image, whose axes measure the pixels of the original."""
    if not images or len(images) != len(titles):
        raise ValueError(f"{len(images)} images and {len(titles)} titles: as many of both expected")
    columns = min(len(images), 4)
    tall = [CELL * min(image.shape[0] / image.shape[1], TALLEST) + TITLE for image in images]
    heights = [max(tall[start : start + columns]) for start in range(0, len(tall), columns)]
    wide, high = max(columns, 1.5) * CELL, sum(heights) + LEGEND
    figure = Figure(figsize=(wide, high), dpi=150)
    cells = []
    # places by hand: matplotlib's layout engines draw everything once more to find them
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(number, columns)
        left = (wide - columns * CELL) / 2 + column * CELL + MARGIN
        bottom = high - sum(heights[: row + 1])
        size = CELL - 2 * MARGIN, heights[row] - TITLE
        cell = figure.add_axes((left / wide, bottom / high, size[0] / wide, size[1] / high))
        height, width = image.shape[:2]
        cell.imshow(shrink(image, _longest(image)), extent=(0, width, height, 0))
        cell.set_title(title, fontsize=9)
        cell.set_axis_off()
        cell.set_anchor("N")  # titles of a row stand side by side
        cells.append(cell)
    return figure, cells


def _longest(image: np.ndarray) -> int:
    """Pixels of the longest side that an image (H, W) or (H, W, 3) has on a sheet."""
    height, width = image.shape[:2]
    return round(WIDTH * min(max(height / width, 1), TALLEST))


def _draw_outline(cell: Axes, mask: np.ndarray, name: str) -> None:
    height, width = mask.shape
    small = shrink((mask > 0).astype(np.float32), _longest(mask))
    small = np.pad(small, 1)  # closes the outline at the border
    if not (small >= 0.5).any():
        return
    rows, columns = (np.arange(length) - 0.5 for length in small.shape)
    x, y = columns * width / (small.shape[1] - 2), rows * height / (small.shape[0] - 2)
    color, style = OUTLINES[name]["color"], OUTLINES[name]["linestyle"]
    lines = cell.contour(x, y, small, [0.5], colors=color, linestyles=style, linewidths=1.6)
    lines.set_path_effects(HALO)
    cell.set(xlim=(0, width), ylim=(height, 0))


def _contours(mask: np.ndarray, longest: int) -> list[np.ndarray]:
    """Outlines of a mask shrunk as its image is: int32 (n, 1, 2) each, x before y."""
    lesion = np.not_equal(mask, 0).view(np.uint8)
    small = shrink(lesion * np.uint8(255), longest)
    half = cv2.threshold(small, 127, 255, cv2.THRESH_BINARY)[1]
    return list(cv2.findContours(half, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def _dashes(contour: np.ndarray) -> list[np.ndarray]:
    """A closed line of neighbouring pixels cut into open ones with gaps between."""
    closed = np.concatenate([contour, contour[:1]])
    return [closed[start : start + DASH] for start in range(0, len(contour), DASH + GAP)]


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file without background, for a page that has one."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The image (H, W) or (H, W, 3) with at most `longest` pixels a side; never made larger."""
    while max(image.shape[:2]) >= 2 * longest and not any(side % 2 for side in image.shape[:2]):
        height, width = (side // 2 for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # the fast case
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(round(scale * side), 1) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with partial_file(Path(path)) as partial:
        # half the time of the usual level, for a tenth more bytes
        figure.savefig(partial, format="png", pil_kwargs={"compress_level": 3})
