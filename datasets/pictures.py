"""What an image file shows, whatever it is stored as: the only decoder of images and masks.

Enters: the bytes of a file. Leaves: images as uint8 (H, W, 3) RGB, masks as uint8 (H, W) in {0, 1},
upright; or a ValueError that says in words what is wrong.
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
MOST_PIXELS = 80_000_000  # of a picture; a photograph of 24 million is among the largest
DAMAGES = (OSError, SyntaxError, IndexError, TypeError, EOFError, struct.error, zlib.error)
ORIENTATION = 0x0112  # among EXIF's notes: 1 is upright; from 5 on, width and height change places
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
    """Decode an image file; its bytes say what it is, not its name.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB, and an alpha channel that is opaque
    goes away. A picture whose camera noted an orientation (EXIF) is turned upright, as every
    viewer shows it, and so is a mask.

    Args:
        content: bytes of a JPEG or PNG file of the release, or of a crop.
        shortest: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets
            shorter than this many pixels; 0 decodes it whole.

    Returns:
        uint8 (h, w, 3) RGB, and the height and width of the whole picture in pixels, upright.

    Raises:
        ValueError when the bytes are not one whole picture of a photograph's size, or when parts of
        it are transparent: which colour they are to have is not known.
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
    white. A noted orientation (EXIF) is the mask's own; its image's is not applied to it.

    Raises ValueError when the picture holds other values than 0 and one of 1 or 255 (of 16 bits:
    65535 as well), or is not one whole picture.
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
                raise ValueError("a mask holds 0 and 255 only, this one has colours")
    values = np.flatnonzero(np.bincount(mask.ravel())).tolist()
    high = {*values} - {0}
    if len(high) > 1 or not high <= {1, 255, *([65535] if sixteen else [])}:
        raise ValueError(f"a mask holds 0 and 255 only, this one {listed(values)}")
    return (mask > 0).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """What EXIF says of a picture, a key of UPRIGHT; 1 where nothing is left to be turned."""
    if picture.format not in ("JPEG", "MPO"):
        picture.load()  # the notes of a PNG may stand behind its pixels
    notes = Image.Exif()
    try:
        notes.load(picture.info.get("exif", b""))  # none of a TIFF, which Pillow has turned
        noted = notes.get(ORIENTATION)
    except (ValueError, *DAMAGES):  # of the notes, not of the picture: its pixels are not read here
        return 1
    return noted if noted in UPRIGHT else 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


@contextmanager
def _decoding(content: bytes) -> Iterator[Image.Image]:
    """An opened picture; whatever goes wrong with it in the block is a ValueError in words."""
    if not content:
        raise ValueError("the file is empty")
    _quiet()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"holds {picture.n_frames} pictures, not one")
            if picture.has_transparency_data:
                if picture.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                    raise ValueError("has transparent pixels; save it without alpha channel")
            yield picture
    except Image.DecompressionBombError:
        raise ValueError(
            f"says to be larger than {MOST_PIXELS // 10**6} million pixels, as no photograph is"
        ) from None
    except Image.UnidentifiedImageError:
        raise ValueError("neither a JPEG nor a PNG picture") from None
    except ValueError:
        raise
    except DAMAGES as error:
        raise ValueError(f"damaged or cut off ({error})") from None


@cache
def _quiet() -> None:
    """Pillow warns of large pictures, which are errors here, and of damaged notes beside them."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)
