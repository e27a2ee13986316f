"""Pictures for people: outlines of lesions on an image, and sheets of pictures as PNG files.

Enters: uint8 images (H, W, 3), masks (H, W), the name of the file to write. Leaves: small pictures
uint8 (h, w, 3), or one PNG file, whole or not at all. Nothing is shown on a screen.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from misc_utils.files import partial_file

# Of a picture on a sheet, in inches: width, space on both sides, height of its title.
CELL, MARGIN, TITLE = 2.8, 0.06, 0.35
TALLEST = 1.5  # height of a picture on a sheet, in widths
WIDTH = 400  # of a picture on a sheet, in pixels; more would not be seen
OUTLINE_SIDE = 360  # longest side of a picture with outlines, in pixels
# Okabe and Ito's yellow and sky blue, which colour-blind people can tell apart, on a black halo,
# which is seen on pale skin and dark lesion
TRUTH_RGB, PREDICTION_RGB, HALO_RGB = (240, 228, 66), (86, 180, 233), (0, 0, 0)
DASH, GAP = 9, 7  # of the prediction's outline, in pixels


def draw_sheet(path: Path, pictures: Sequence[np.ndarray], titles: Sequence[str]) -> None:
    """Write a PNG sheet of titled pictures on grey, on which the black of a crop is seen.

    `pictures` are uint8 (H, W, 3) of any sizes, at least one; ValueError without one title each.
    """
    if not pictures or len(pictures) != len(titles):
        raise ValueError(f"{len(pictures)} images and {len(titles)} titles: as many of both wanted")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(pictures), 4)
    tall = [CELL * min(picture.shape[0] / picture.shape[1], TALLEST) for picture in pictures]
    heights = [max(tall[k : k + columns]) + TITLE for k in range(0, len(tall), columns)]
    wide, high = max(columns, 1.5) * CELL, sum(heights)
    figure = Figure(figsize=(wide, high), dpi=150, facecolor="0.6")
    # places by hand: matplotlib's layout engines draw everything once more to find them
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        row, column = divmod(number, columns)
        left = (wide - columns * CELL) / 2 + column * CELL + MARGIN
        bottom = high - sum(heights[: row + 1])
        size = CELL - 2 * MARGIN, heights[row] - TITLE
        cell = figure.add_axes((left / wide, bottom / high, size[0] / wide, size[1] / high))
        height, width = picture.shape[:2]
        cell.imshow(shrink(picture, round(WIDTH * min(max(height / width, 1), TALLEST))))
        cell.set_title(title, fontsize=9)
        cell.set_axis_off()
        cell.set_anchor("N")  # titles of a row stand side by side
    FigureCanvasAgg(figure)
    with partial_file(Path(path)) as partial:
        # half the time of the usual level, for a tenth more bytes
        figure.savefig(partial, format="png", pil_kwargs={"compress_level": 3})


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


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The image (H, W) or (H, W, 3) with at most `longest` pixels a side; never made larger."""
    while max(image.shape[:2]) >= 2 * longest and not any(side % 2 for side in image.shape[:2]):
        height, width = (side // 2 for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # the fast case
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(round(scale * side), 1) for side in image.shape[:2])
    # a third of the time of areas, and so near full size as good
    way = cv2.INTER_LINEAR if scale > 0.7 else cv2.INTER_AREA
    return cv2.resize(image, (width, height), interpolation=way)
