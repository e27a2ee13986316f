"""A class table as pages to leaf through: each image with its crop and its probabilities.

Enters: image ids with their probabilities, a function that reads their pictures. Leaves:
`index.html`, `page_002.html`, ... in a folder, each complete in itself: no other file but the pages
it links to, no network, no JavaScript. One page at a time is held in memory.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.class_scoring import decide
from misc_utils.files import write_text
from reports.pages import embed, format_score, format_share, render

THUMBNAIL = 160  # longest side of a picture, in pixels
QUALITY = 72  # of its JPEG
PER_PAGE = 200  # images on a page

# image id -> its picture and the part that was classified, uint8 RGB (H, W, 3); None: not shown
Read = Callable[[str], tuple[np.ndarray, np.ndarray | None]]


def write_pages(
    folder: Path,
    title: str,
    image_ids: Sequence[str],
    probability: np.ndarray,
    classes: Sequence[str],
    truth: Mapping[str, str],
    read: Read,
) -> Path:
    """Write the pages of a class table; returns the first, `index.html`, which is written last.

    Args:
        folder: gets the pages; made if need be.
        title: heading of the pages.
        image_ids: N ids, shown in this order.
        probability: float (N, C), 0..1.
        classes: C names.
        truth: {image id: name of its true class}, where it is known.
        read: see Read; called once for each image.

    Raises:
        ValueError: not N rows of C probabilities 0..1; nothing is written then.
    """
    right_shape = probability.shape == (len(image_ids), len(classes))
    if not right_shape or not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(f"{len(classes)} probabilities 0..1 expected for each of the images")
    folder.mkdir(parents=True, exist_ok=True)
    names = [*classes, "undecided"]
    decided = [names[k] for k in decide(probability)] if len(image_ids) else []
    summary = _summary(dict(zip(image_ids, decided, strict=True)), names, truth)
    starts = range(0, max(len(image_ids), 1), PER_PAGE)
    files = ["index.html", *(f"page_{number:03d}.html" for number in range(2, len(starts) + 1))]
    for place in reversed(range(len(files))):
        part = slice(starts[place], starts[place] + PER_PAGE)
        rows = zip(image_ids[part], probability[part], decided[part], strict=True)
        content = {"place": place, "names": files, "cards": _cards(rows, classes, truth, read)}
        page = render("browse.html.j2", title=title, summary=summary, **content)
        write_text(folder / files[place], page)
    return folder / files[0]


def _cards(
    rows: Iterator, classes: Sequence[str], truth: Mapping[str, str], read: Read
) -> Iterator[dict]:
    """What a page says of each image; `right` is None where the truth is not known."""
    for image_id, probability, decided in rows:
        picture, crop = read(image_id)
        yield {
            "image_id": image_id,
            "picture": embed(picture, THUMBNAIL, QUALITY),
            "crop": None if crop is None else embed(crop, THUMBNAIL, QUALITY),
            "decided": decided,
            "truth": truth.get(image_id),
            "right": decided == truth[image_id] if image_id in truth else None,
            "bars": [
                (name, format_score(value), round(100 * value, 1), value == probability.max())
                for name, value in zip(classes, probability.astype(float), strict=True)
            ],
        }


def _summary(
    decided: Mapping[str, str], names: Sequence[str], truth: Mapping[str, str]
) -> list[str]:
    """How many images, of which decisions, how many of them right."""
    count = Counter(decided.values())
    lines = [f"{len(decided):,} images in the order of the table"]
    if decided:
        counts = [f"{name} {count[name]:,}" for name in names if count[name]]
        lines.append("decided as " + ", ".join(counts))
    known = decided.keys() & truth.keys()
    if known:
        right = sum(decided[image_id] == truth[image_id] for image_id in known)
        lines.append(f"right where the truth is known: {format_share(right, len(known))}")
    return lines
