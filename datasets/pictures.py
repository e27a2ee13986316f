"""The only decoder of image and mask files.

Enters: the bytes of a file in one of FORMATS. Leaves: images as uint8 (H, W, 3) RGB, masks as
uint8 (H, W) in {0, 1}, both upright; or a ValueError that says what is wrong.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image

from misc_utils.messages import listed

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")  # of the release, and of crops
MOST_PIXELS = 80_000_000  # of a picture; large photographs have 24 million
DAMAGES = (OSError, SyntaxError, IndexError, TypeError, EOFError, struct.error, zlib.error)
ORIENTATION = 0x0112  # EXIF tag: 1 is upright; from 5 on, width and height are swapped
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(content: bytes, shortest: int = 0) -> tuple[np.ndarray, int, int]:
    """Decode an image file; the format is found from its bytes, not from its name.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; an opaque alpha channel is dropped.
    A picture with an EXIF orientation is turned upright, as viewers show it; so is a mask.

    Args:
        content: bytes of a JPEG or PNG file of the release, or of a crop.
        shortest: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets
            shorter than this many pixels; 0 decodes it whole.

    Returns:
        uint8 (h, w, 3) RGB, and the height and width of the whole picture in pixels, upright.

    Raises:
        ValueError when the bytes are not one whole picture of at most MOST_PIXELS, or when parts of
        it are transparent: the colour they should have is unknown.
    """
    with _decoding(content) as picture:
        orientation = _orientation(picture)
        height, width = picture.size if orientation >= 5 else picture.size[::-1]
        if shortest and picture.mode == "RGB":
            picture.draft("RGB", (shortest, shortest))
        if picture.mode.startswith("I;16"):  # grey
            values = (np.asarray(picture) >> 8).astype(np.uint8)
            picture = Image.fromarray(values)
        return np.asarray(_turned(picture.convert("RGB"), orientation)), height, width


def read_mask(content: bytes) -> np.ndarray:
    """Decode a mask: uint8 (H, W) in {0, 1}; one without any lesion is allowed.

    Grey pictures of 1, 8 or 16 bits are read, and palettes and RGB whose colours are black and
    white. The mask's own EXIF orientation is applied, not that of its image.

    Raises ValueError when the picture holds values other than 0 and one of 1 or 255 (with 16 bits
    also 65535), or is not one whole picture.
    """
    with _decoding(content) as picture:
        picture = _turned(picture, _orientation(picture))
        sixteen = picture.mode.startswith("I;16")
        if sixteen or picture.mode == "L":
            mask = np.asarray(picture)
        else:
            colours = np.asarray(picture.convert("RGB"))
            mask = colours[..., 0]
            if (colours != mask[..., None]).any():
                raise ValueError("a mask must hold 0 and 255 only, this one has colours")
    values = np.flatnonzero(np.bincount(mask.ravel())).tolist()
    high = {*values} - {0}
    if len(high) > 1 or not high <= {1, 255, *([65535] if sixteen else [])}:
        raise ValueError(f"a mask must hold 0 and 255 only, this one holds {listed(values)}")
    return (mask > 0).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture, a key of UPRIGHT; 1 if it is upright already."""
    if picture.format not in ("JPEG", "MPO"):
        picture.load()  # the EXIF data of a PNG may follow its pixels
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))  # none for a TIFF, which Pillow has turned
        orientation = exif.get(ORIENTATION)
    except (ValueError, *DAMAGES):  # the EXIF data is damaged; the pixels are not read here
        return 1
    return orientation if orientation in UPRIGHT else 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


@contextmanager
def _decoding(content: bytes) -> Iterator[Image.Image]:
    """An opened picture; every error in decoding it within the block becomes a ValueError."""
    if not content:
        raise ValueError("the file is empty")
    _quiet()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"the file holds {picture.n_frames} pictures, not one")
            if picture.has_transparency_data:
                if picture.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                    raise ValueError("it has transparent pixels; save it without alpha channel")
            yield picture
    except Image.DecompressionBombError:
        raise ValueError(
            f"its header says it has more than {MOST_PIXELS // 10**6} million pixels"
        ) from None
    except Image.UnidentifiedImageError:
        raise ValueError("neither a JPEG nor a PNG picture") from None
    except ValueError:
        raise
    except DAMAGES as error:
        raise ValueError(f"damaged or cut off ({error})") from None


@cache
def _quiet() -> None:
    """Ignore Pillow's warnings about large pictures, an error here, and about damaged EXIF data."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)
