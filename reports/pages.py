"""What the HTML pages share: templates, the way numbers are written, pictures inside the file.

Enters: names that nobody vouches for (image ids, classes, runs), scores, uint8 pictures (H, W, 3).
Leaves: HTML in which every name is escaped and every picture is a data URI: one file that needs no
other, no network and no JavaScript.
"""

import base64
import io
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from reports.figures import shrink

TEMPLATES = Path(__file__).resolve().parent / "templates"
NAMES = {"jaccard": "Jaccard", "dice": "Dice"} | {
    name: name.upper() for name in ("ap", "auc", "npv", "ppv", "roc")
}
COUNTS = ("images", "lesions", "count", "support")  # measures that are counted


def render(template: str, **content) -> str:
    """HTML of a template, autoescaped; a name that the template wants and lacks is an error."""
    return _environment().get_template(template).render(**content)


def embed(image: np.ndarray, longest: int = 360, quality: int = 85) -> str:
    """A picture as the data URI of a JPEG.

    Args:
        image: uint8 RGB (H, W, 3).
        longest: longest side in pixels; a smaller picture keeps its size.
        quality: of the JPEG, 1..95.

    Raises:
        ValueError: not uint8 (H, W, 3), or empty.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"a picture must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(shrink(image, longest)))
    # colours at full size, else thin coloured outlines fade
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """The bytes of a picture, written so that they can stand in a page."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def format_score(value: float) -> str:
    """`.828`, `1.000`, `−.012`; `none` for nan."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    text = f"{abs(value):.3f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + text.removeprefix("0")


def format_interval(value: float, low: float, high: float) -> str:
    """`.828 (.811 – .845)`; without the brackets where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return format_score(value)
    return f"{format_score(value)} ({format_score(low)} – {format_score(high)})"


def format_measure(name: str, value: float, low: float, high: float) -> str:
    """A count with thousands separators, or a score with its interval, by the measure's name."""
    if name in COUNTS and not math.isnan(value):
        return f"{value:,.0f}"
    return format_interval(value, low, high)


def format_share(part: int, whole: int) -> str:
    """`47 of 1,519 (3.1 %)`."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)" if whole else f"{part:,} of 0"


def format_fact(value: object) -> str:
    """A setting or another fact: text as it is, whole numbers with thousands separators."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_fact(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(format_fact, value)) or "none"
    return str(value)


def readable(name: str) -> str:
    """A measure's or setting's name in words: `val_threshold_jaccard` is `val threshold Jaccard`.

    Names of classes and runs are left as they are: hand over only names of measures and settings.
    """
    return " ".join(NAMES.get(word, word) for word in str(name).split("_"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
