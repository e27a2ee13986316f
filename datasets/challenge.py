"""Facts of the challenge that several packages need: its sets, names, ids and threshold."""

import re
from collections.abc import Mapping, Sequence

SETS = ("training", "validation", "test")
# of Task 3, in this order, as the organisers spell them out
CLASS_NAMES = {
    "MEL": "melanoma",
    "NV": "melanocytic naevus",
    "BCC": "basal cell carcinoma",
    "AKIEC": "actinic keratosis / Bowen’s disease (intraepithelial carcinoma)",
    "BKL": "benign keratosis (solar lentigo / seborrhoeic keratosis / lichen planus-like "
    "keratosis)",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
}
CLASSES = tuple(CLASS_NAMES)
# of Task 2, in this order
ATTRIBUTES = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")
UNRELEASED = "ISIC_0035068"  # in the truth of the Task 3 test set, with weight 0, but not an image
LONGEST_ID = 200  # bytes of an image id: files are named after it
JACCARD_THRESHOLD = 0.65  # of Task 1: a Jaccard index below it counts as 0


def spelt_out(classes: Sequence[str]) -> Mapping[str, str]:
    """{abbreviation: name} of the classes of Task 3; empty where these are other classes.

    The same letters may stand for something else in other data sets.
    """
    return CLASS_NAMES if tuple(classes) == CLASSES else {}


def check_id(image_id: str) -> None:
    """ValueError for what cannot name the files of an image, such as a path to another folder."""
    if not isinstance(image_id, str) or not re.fullmatch(r"[^\s./\\][^/\\]*", image_id):
        raise ValueError(f"{image_id!r} is not an image id such as ISIC_0000000")
    if re.search(r"\.(jpe?g|png|tiff?|bmp|webp|heic|heif|dcm)$", image_id, re.IGNORECASE):
        raise ValueError(
            f"{image_id!r} is the name of a file, not an image id such as ISIC_0000000"
        )
    if not image_id.isprintable() or len(image_id.encode()) > LONGEST_ID:
        raise ValueError(f"{image_id!r} is not an image id: too long, or not printable")
