"""The only decoder of image and mask files.

Enters: the bytes of a file in one of FORMATS, or HEIC or DICOM where the package for it is
installed. Leaves: images as uint8 (H, W, 3) RGB, masks as uint8 (H, W) in {0, 1}, both upright; or
a ValueError that says what is wrong.
"""

import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from PIL import Image, ImageCms

from misc_utils.errors import UserError
from misc_utils.messages import counted, listed, pip_install

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # of releases, and of crops
# ending of a name -> the module that reads such files, and the package that has it
READERS = {
    ".heic": ("pillow_heif", "pillow-heif"),
    ".heif": ("pillow_heif", "pillow-heif"),
    ".dcm": ("pydicom.pixels", "pydicom"),
}
# of files that are taken for pictures, by whatever name they are looked for
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", *READERS)
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands
SHADES_OF_DICOM = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422")
SHADES_OF_DICOM += ("YBR_ICT", "YBR_RCT")  # all of YBR become RGB
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "I;16B")
DARKEST = 4096  # of 65535; where no value of 16 bits reaches it, fewer bits were meant
LEAST_CONTRAST = 32  # between the two values of a mask saved with loss
MOST_EDGES = 0.25  # of such a mask: pixels that are nearer to the mean of the two than to them
BITS_OF_TIFF, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags, and a value of the second
MOST_PIXELS = 80_000_000  # of a picture; large photographs have 24 million
DAMAGES = (OSError, SyntaxError, IndexError, TypeError, EOFError, struct.error, zlib.error)
SRGB = ImageCms.createProfile("sRGB")
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
    Colours are those of sRGB: an ICC profile is applied, unless it is damaged, as viewers do.
    A picture with an EXIF orientation is turned upright, as viewers show it; so is a mask.

    Args:
        content: bytes of a JPEG or PNG file of the release, or of a crop.
        shortest: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets
            shorter than this many pixels; 0 decodes it whole.

    Returns:
        uint8 (h, w, 3) RGB, and the height and width of the whole picture in pixels, upright.

    Raises:
        ValueError when the bytes are not one whole picture of at most MOST_PIXELS; when parts of it
        are transparent, as the colour they should have is unknown; when it has numbers of 16 bits
        but none that needs more than 12, as it would be black, or numbers of another kind.
    """
    with _decoding(content) as picture:
        orientation = _orientation(picture)
        height, width = picture.size if orientation >= 5 else picture.size[::-1]
        if shortest and picture.mode == "RGB":
            picture.draft("RGB", (shortest, shortest))
        wide, bits = _sixteen_bits(content, picture), _bits(content, picture)
        if wide is not None:
            profile = picture.info.get("icc_profile")
            picture = Image.fromarray((wide >> 8).astype(np.uint8))
            picture.info["icc_profile"] = profile
        image = np.asarray(_turned(_to_srgb(picture), orientation))
        if bits > 8 and image.max() < DARKEST >> 8:
            raise ValueError(
                f"it stores {bits} bits per channel, but no value above {DARKEST - 1}, so it would "
                f"be read as black; save it with 8 bits"
            )
        return image, height, width


def read_mask(content: bytes) -> np.ndarray:
    """Decode a mask: uint8 (H, W) in {0, 1}; one without any lesion is allowed.

    Grey pictures of up to 16 bits are read, and palettes and RGB whose colours are black and white.
    The mask's own EXIF orientation is applied, not that of its image.

    Raises ValueError when the picture holds values other than 0 and one of 1 or 255 (with 16 bits
    also 65535), or is not one whole picture.
    """
    with _decoding(content) as picture:
        orientation = _orientation(picture)
        wide = _sixteen_bits(content, picture)
        if wide is None and _bits(content, picture) > 8:
            raise ValueError("a mask in colours of 16 bits; save it as grey PNG with 8 bits")
        grey = picture.mode == "L"
        mask = np.asarray(picture if grey else picture.convert("RGB")) if wide is None else wide
        if mask.ndim == 3:
            if (mask != mask[..., :1]).any():
                raise ValueError("a mask must hold 0 and 255 only, this one has colours")
            mask = mask[..., 0]
        mask = np.asarray(_turned(Image.fromarray(np.ascontiguousarray(mask)), orientation))
    values = np.flatnonzero(np.bincount(mask.ravel())).tolist()
    high = {*values} - {0}
    if len(high) > 1 or not high <= {1, 255, *([65535] if wide is not None else [])}:
        raise ValueError(f"a mask must hold 0 and 255 only, this one holds {listed(values)}")
    return (mask > 0).astype(np.uint8)


def read_any_mask(content: bytes) -> np.ndarray:
    """Decode a mask of any two values: uint8 (H, W) in {0, 1}, the brighter value is the lesion.

    A picture of one value is all lesion, unless it is black. One saved with loss, such as a JPEG,
    is cut in the middle, as its values are not kept. Raises ValueError when it holds more values,
    or is not one whole picture.
    """
    with _decoding(content) as picture:
        orientation, wide = _orientation(picture), _sixteen_bits(content, picture)
        if _bits(content, picture) > 8 and (wide is None or wide.ndim == 3):
            raise ValueError("a mask in colours of 16 bits; save it as grey PNG with 8 bits")
        colours = picture.convert("RGB")
        grey = (np.asarray(colours.convert("L")) if wide is None else wide).astype(np.int32)
        values = np.flatnonzero(np.bincount(grey.ravel())).tolist()
        low, high = values[0], values[-1]
        webp_with_loss = picture.format == "WEBP" and b"VP8L" not in content
        if picture.format in ("JPEG", "MPO", "HEIF") or webp_with_loss:
            edges = np.abs(4 * grey - 2 * (low + high)) < high - low  # nearer to the middle
            good = high == low or (high - low > LEAST_CONTRAST and edges.mean() < MOST_EDGES)
        else:
            shades = len(values) if wide is not None else len(colours.getcolors(2) or ())
            good = len(values) == shades <= 2
        if not good:
            held = listed(values, 10) if len(values) > 2 else "colours of the same brightness"
            raise ValueError(f"a mask must hold two values only, this one holds {held}")
        # of two values the brighter is above their mean; of one, above nothing
        mask = 2 * grey > (low + high if high > low else 0)
        return np.asarray(_turned(Image.fromarray(mask.astype(np.uint8)), orientation))


def read_original(file: Path) -> np.ndarray:
    """An image at its full size, uint8 (H, W, 3) RGB; UserError naming a bad file."""
    return read_whole(file, lambda content: read_image(content)[0])


def read_whole(file: Path, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """What `decode` makes of the bytes of a file; its OSError or ValueError as UserError."""
    try:
        return decode(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}. Replace it by an intact file.") from None


def resize(image: np.ndarray, image_size: int) -> np.ndarray:
    """Square picture of `image_size` pixels; dtype kept.

    Along a side that shrinks, each pixel is the mean of what it covers; along one that grows, it is
    interpolated linearly.
    """
    height, width = (min(side, image_size) for side in image.shape[:2])
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(smaller, (image_size, image_size), interpolation=cv2.INTER_LINEAR)


def _bits(content: bytes, picture: Image.Image) -> int:
    """Bits of each channel as they are stored; Pillow's mode does not say it of colours."""
    if picture.format == "PNG":
        return content[24]  # in the header, which comes first
    return max(picture.tag_v2.get(BITS_OF_TIFF, (1,))) if picture.format == "TIFF" else 8


def _sixteen_bits(content: bytes, picture: Image.Image) -> np.ndarray | None:
    """Grey uint16 (H, W) or RGB (H, W, 3) with all 16 bits, not turned; None: Pillow has them all.

    Of a TIFF in colours Pillow gives the upper eight, and nothing gives the others.
    """
    if picture.format == "PNG" and _bits(content, picture) == 16:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise ValueError("damaged or cut off")
        return values if values.ndim == 2 else values[..., 2::-1]  # from BGR, perhaps with alpha
    return np.asarray(picture) if picture.mode.startswith("I;16") else None


def _check_kind(picture: Image.Image) -> None:
    """ValueError for numbers that are no brightness of at most 16 bits."""
    inverted = picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if picture.mode not in MODES or (picture.mode == "I" and picture.format != "PNG"):
        raise ValueError(f"its pixels are of the kind {picture.mode}; save it with 8 bits")
    if inverted and picture.mode.startswith("I;16"):
        raise ValueError("its 16 bits count from white to black; save it with 8 bits")


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


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Mode RGB, by the ICC profile of the picture if it has another than sRGB."""
    profile = picture.info.get("icc_profile")
    if picture.mode not in ("L", "RGB", "CMYK"):  # else the profile is of other channels
        picture = picture.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                return ImageCms.profileToProfile(picture, source, SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, *DAMAGES):
            pass
    return picture.convert("RGB")


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


@contextmanager
def _decoding(content: bytes) -> Iterator[Image.Image]:
    """An opened picture; every error in decoding it within the block becomes a ValueError."""
    if not content:
        raise ValueError("the file is empty")
    _quiet()
    try:
        with _open(content) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"the file holds {picture.n_frames} pictures, not one")
            _check_kind(picture)
            if picture.has_transparency_data:
                if picture.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                    raise ValueError("it has transparent pixels; save it without alpha channel")
            yield picture
    except Image.DecompressionBombError:
        raise ValueError(
            f"its header says it has more than {MOST_PIXELS // 10**6} million pixels"
        ) from None
    except Image.UnidentifiedImageError:
        raise ValueError(
            "no picture that can be read: JPEG of 8 bits, PNG, WebP, TIFF or BMP expected"
        ) from None
    except ValueError:
        raise
    except DAMAGES as error:
        raise ValueError(f"damaged or cut off ({error})") from None


def _open(content: bytes) -> Image.Image:
    """A picture of any kind, found from its bytes; ValueError where a package for it is missing."""
    if content[128:132] == b"DICM":
        return _open_dicom(content)
    if content[4:8] == b"ftyp" and content[8:12] in HEIC:
        import_reader(".heic").register_heif_opener()
        try:
            return Image.open(io.BytesIO(content), formats=("HEIF",))  # turned upright
        except Image.UnidentifiedImageError:
            raise ValueError("damaged or cut off") from None
    return Image.open(io.BytesIO(content), formats=FORMATS)


def import_reader(suffix: str) -> ModuleType:
    """The module that reads such files, a row of READERS; ValueError where it is not installed."""
    module, package = READERS[suffix]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"to read {suffix} files, install {package}: {pip_install('--upgrade', package)}; or "
            f"save them as PNG or JPEG"
        ) from None


def check_readers(files: Iterable[Path]) -> None:
    """UserError naming the files, by their endings, whose package is not installed."""
    for suffix in READERS:
        if alike := [file for file in files if file.suffix.lower() == suffix]:
            try:
                import_reader(suffix)
            except ValueError as error:
                names = counted(file.name for file in alike)
                raise UserError(f"{alike[0].parent}: {error}. Files: {names}.") from None


def _open_dicom(content: bytes) -> Image.Image:
    """The first picture of a DICOM file; brightness of more than 8 bits by its full range."""
    pixels = import_reader(".dcm")
    try:
        header = importlib.import_module("pydicom").dcmread(io.BytesIO(content))
        kind, bits = header.PhotometricInterpretation, header.BitsStored
        large = header.Rows * header.Columns > MOST_PIXELS
        shades = None if large else pixels.pixel_array(header, index=0)
    except AttributeError:
        raise ValueError("the DICOM file holds no picture") from None
    except Exception as error:  # of many kinds: damaged files, compressions it cannot read
        said = " ".join(str(error).split())
        if "missing dependencies" in said:
            name = header.file_meta.TransferSyntaxUID.name
            raise ValueError(
                f"its pixels are compressed as {name}; to read them: "
                f"{pip_install('pylibjpeg[all]')}; or save it as PNG or JPEG"
            ) from None
        raise ValueError(f"no DICOM picture that can be read ({said})") from None
    if large:
        raise Image.DecompressionBombError
    if kind not in SHADES_OF_DICOM:
        raise ValueError(f"its pixels are of the kind {kind}; save it as PNG or JPEG")
    if bits != 8 or shades.dtype != np.uint8:
        low, high = float(shades.min()), float(shades.max())
        shades = np.rint((shades - low) * (255 / max(high - low, 1))).astype(np.uint8)
    return Image.fromarray(255 - shades if kind == "MONOCHROME1" else shades)


@cache
def _quiet() -> None:
    """Ignore Pillow's warnings about large pictures, an error here, and about damaged EXIF data."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)
