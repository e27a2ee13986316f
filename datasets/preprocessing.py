"""Pictures made more alike before a net sees them: their colours, dark borders and hairs.

Enters: an image, uint8 (H, W, 3) RGB, and names of rows of PREPROCESSING. Leaves: a new image,
uint8 (H, W, 3) RGB, of the same size unless one of the rows is in MOVES; the argument is not
changed. Nothing here is random.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from misc_utils.messages import choose

NORM = 6  # of Minkowski: 1 is the mean colour, infinity the brightest one

# Dark borders, found in a picture of FIELD_SIDE pixels at most along its longer side.
FIELD_SIDE = 256
DARK = 0.2  # a pixel below this share of the bright ones is no part of the field of view
LEAST_FIELD = 0.25  # share of the picture; anything smaller is no field of view
CLEARLY_DARKER = 0.5  # the rest is cut away if it is below this share of the field's brightness
LEAST_EXTENT = 0.35  # of a row or column in the field, to its longest; 94 % of a disc's radius

# Hairs, found in a picture of HAIR_SIDE pixels along its longer side: lengths are in its pixels.
HAIR_SIDE = 512
WIDEST = 13  # what is wider is no hair
STRAIGHT = 25  # a hair runs straight for so long; the lines of a pigment network do not
DIRECTIONS = 12
CONTRAST, CONTINUED = 20, 12  # a hair is darker by so much; a line that continues one, by less
SHORTEST = 32  # diagonal of a hair's box; short stubble is left
SLENDER = 8  # the square of that diagonal to the hair's area, at least
TANGLE = 120  # or the diagonal is so long: hairs that cross are not slender together
REACH = 2  # the blurred edge of a hair, on either side
INPAINT_SIDE = 1024  # in larger pictures hairs are filled with the colours of a reduced one


def shades_of_grey(image: np.ndarray) -> np.ndarray:
    """Colours as under white light, if the Minkowski mean of the scene is grey.

    Finlayson and Trezzi, "Shades of gray and colour constancy", CIC 2004, with the norm of 6 that
    Barata et al., IEEE JBHI 19(3), 2015, chose for dermoscopy; their gamma correction is left out.
    The light is e_c = mean(I_c^6)^(1/6) scaled to length 1, the new image I_c / (sqrt(3) e_c).

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (H, W, 3) RGB, rounded and clipped to 0..255; a black image stays black.
    """
    values = np.arange(256.0)
    counts = np.column_stack([cv2.calcHist([image], [c], None, [256], [0, 256]) for c in range(3)])
    light = ((values**NORM) @ counts.astype(float) / counts[:, 0].sum()) ** (1 / NORM)
    dark = light == 0  # a channel without any light stays so
    gain = np.linalg.norm(light) / np.sqrt(3) / np.where(dark, 1, light)
    table = np.clip(np.rint(values[:, None] * gain), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def crop_borders(image: np.ndarray) -> np.ndarray:
    """The picture without the black frame, or the darkness around the disc, of a dermoscope.

    After Gessert et al., "Skin lesion classification using ensembles of multi-resolution
    EfficientNets with meta data", MethodsX 7, 2020: a very low threshold gives the field of view,
    and the picture is cut if the rest is clearly darker. The field is the convex hull of the
    largest bright region, so that dark lesions and hairs at its edge are part of it. Of a disc the
    outermost 6 % of the radius go; the inscribed rectangle would lose the edges of lesions.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (h, w, 3) RGB, a copy of a rectangle of the image with at least half of each side;
        of all of it, if it has no dark border.
    """
    height, width = image.shape[:2]
    bright = _resized(image, min(FIELD_SIDE, max(height, width))).max(axis=2)
    field = _field_of_view(bright)
    rest = field == 0
    if (
        field.mean() < LEAST_FIELD
        or not rest.any()
        or bright[rest].mean() > CLEARLY_DARKER * bright[~rest].mean()
    ):
        return image.copy()
    rows = _extent(field.sum(axis=1), height)
    columns = _extent(field.sum(axis=0), width)
    return image[rows, columns].copy()


def remove_hair(image: np.ndarray) -> np.ndarray:
    """The picture with dark hairs replaced by the skin beside them.

    Like DullRazor (Lee et al., Comput. Biol. Med. 27, 1997) it finds hairs by closings and tells
    them from other dark spots by their length. It looks in the red channel, where vessels and
    brown pigment are faint, and for lines that are straight over a distance, which a pigment
    network is not. Rulers go too; white hairs, short stubble and hairs on black lesions stay.
    Hairs are filled in by the method of Telea (J. Graphics Tools 9(1), 2004).

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (H, W, 3) RGB, equal to the image wherever there is no hair.
    """
    hairs = _find_hairs(_resized(np.ascontiguousarray(image[..., 0]), HAIR_SIDE))
    cleaned = image.copy()
    if not hairs.any():
        return cleaned
    height, width = image.shape[:2]
    reduced = _resized(image, min(INPAINT_SIDE, max(height, width)))
    mask = _stretched(hairs, reduced.shape[:2])
    filled = cv2.inpaint(reduced, mask, 3, cv2.INPAINT_TELEA)
    if filled.shape != image.shape:
        filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = _stretched(hairs, (height, width))
    return cv2.copyTo(filled, mask, cleaned)


PREPROCESSING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shades_of_grey": shades_of_grey,
    "crop_borders": crop_borders,
    "remove_hair": remove_hair,
}
MOVES: frozenset[str] = frozenset({"crop_borders"})  # afterwards a mask would not fit any more


def preprocess(image: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """An image after rows of PREPROCESSING in the order given; the image itself if there are none.

    Args:
        image: uint8 (H, W, 3) RGB.
        names: rows of PREPROCESSING.

    Returns:
        uint8 (h, w, 3) RGB; (H, W, 3) unless one of the names is in MOVES.

    Raises:
        UserError for an unknown name, before any work.
    """
    for row in [choose(PREPROCESSING, name, "preprocessing") for name in names]:
        image = row(image)
    return image


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """The image with `side` pixels along its longer side, at least 1 along the other."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _stretched(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask uint8 {0, 1} of any size -> {0, 255} of the shape (height, width) given."""
    soft = cv2.resize(mask * 255, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.threshold(soft, 127, 255, cv2.THRESH_BINARY)[1]


def _field_of_view(bright: np.ndarray) -> np.ndarray:
    """The convex hull of the largest bright region of uint8 (h, w), as uint8 (h, w) in {0, 1}."""
    field = np.zeros_like(bright)
    light = (bright > DARK * np.percentile(bright, 90)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(light, connectivity=4)
    if count > 1:
        largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        region = (labels == largest).astype(np.uint8)
        outline = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0]
        cv2.fillConvexPoly(field, cv2.convexHull(outline), 1)
    return field


def _extent(lengths: np.ndarray, side: int) -> slice:
    """What to keep along one side of `side` pixels: at least half of them.

    Args:
        lengths: of the field of view in each row, or column, of the reduced picture.
        side: of the original picture in pixels.
    """
    kept = np.flatnonzero(lengths >= LEAST_EXTENT * lengths.max())
    count, first, last = len(lengths), int(kept[0]), int(kept[-1])
    # Where something is cut, one pixel more: the edge is blurred.
    start = -(-(first + 1) * side // count) if first > 0 else 0
    stop = last * side // count if last < count - 1 else side
    half = (side + 1) // 2
    if stop - start < half:
        start = min(max((start + stop - half) // 2, 0), side - half)
        stop = start + half
    return slice(start, stop)


def _find_hairs(red: np.ndarray) -> np.ndarray:
    """Hairs in a red channel, uint8 (h, w) whose longer side is HAIR_SIDE -> uint8 in {0, 1}."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDEST, WIDEST))
    darker = cv2.morphologyEx(red, cv2.MORPH_BLACKHAT, disc)
    dark, faint = ((darker > least).astype(np.uint8) for least in (CONTRAST, CONTINUED))
    hairs = np.zeros_like(dark)
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        line = _line(angle, STRAIGHT)
        certain = cv2.morphologyEx(dark, cv2.MORPH_OPEN, line)
        if certain.any():
            near = cv2.dilate(certain, _line(angle, 2 * STRAIGHT - 1))
            hairs |= certain | (near & cv2.morphologyEx(faint, cv2.MORPH_OPEN, line))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hairs, connectivity=8)
    diagonal = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    slender = diagonal**2 >= SLENDER * stats[:, cv2.CC_STAT_AREA]
    kept = (diagonal >= SHORTEST) & (slender | (diagonal >= TANGLE))
    kept[0] = False  # everything else
    side = 2 * REACH + 1
    return cv2.dilate(kept[labels].astype(np.uint8), np.ones((side, side), np.uint8))


def _line(angle: float, length: int) -> np.ndarray:
    """A line through the centre of a square, uint8 (length, length) in {0, 1}; length is odd."""
    square = np.zeros((length, length), np.uint8)
    centre = (length - 1) // 2
    end = np.rint(centre * np.array([np.cos(angle), np.sin(angle)])).astype(int)
    start, stop = (tuple((centre + sign * end).tolist()) for sign in (-1, 1))
    return cv2.line(square, start, stop, 1)
