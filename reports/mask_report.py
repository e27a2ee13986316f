"""The report of a Task 1 evaluation: scores, distribution, outlined pictures, every image.

Enters: scores with intervals, a row per image, a function that gives its pictures. Leaves:
`<name>_report_<set>.html`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.challenge import JACCARD_THRESHOLD
from inference.scope import Scope
from reports import charts, facts, figures, parts
from reports.pages import format_score, format_share
from reports.parts import Frame, Picture, Section, Tile

GALLERY = 8  # pictures in each part of a gallery


def write(
    scope: Scope,
    used: Mapping,
    scores: pd.DataFrame,
    images: pd.DataFrame,
    shown: Callable[[str], tuple[np.ndarray, Mapping, Mapping]],
) -> Path:
    """Write the report of an evaluation; the file.

    Args:
        scope: what was scored.
        used: settings as they were in force.
        scores: from bootstrap.mask_table.
        images: from mask_scoring.score_masks, with a column `fold`.
        shown: image id -> image (H, W, 3), {"lesion": mask (H, W)} of truth and prediction.
    """

    def picture(image_id: str) -> Picture:
        caption = f"Jaccard {images.jaccard[image_id]:.3f}"
        image, truth, mask = shown(image_id)
        outlined = figures.outline(image, truth["lesion"], mask["lesion"])
        return parts.picture(image_id, caption, outlined)

    ranked = images["jaccard"].sort_values(kind="stable").index.tolist()
    middle = max((len(ranked) - GALLERY) // 2, 0)
    galleries = {
        "Worst": ranked[:GALLERY],
        "Around the median": ranked[middle : middle + GALLERY],
        "Best": ranked[-GALLERY:][::-1],
    }
    columns, notes = facts.tuned_columns(scope, used)
    frame = facts.frame(scope, used, images["fold"], ["images", *notes])
    pictures = {name: list(map(picture, image_ids)) for name, image_ids in galleries.items()}
    file = scope.ensemble.file(f"report_{scope.ending}.html")
    write_page(file, frame, scores, images, pictures, columns)
    return file


def write_page(
    file: Path,
    frame: Frame,
    scores: pd.DataFrame,
    images: pd.DataFrame,
    galleries: Mapping[str, Sequence[Picture]],
    columns: Mapping[str, pd.DataFrame] = {},
) -> None:
    """Write the page; `columns` are {name: scores} beside the scores.

    Raises ValueError when a table lacks a column, or there is no image.
    """
    parts.check_columns(images, ("jaccard", "threshold_jaccard", "dice", "lesion_share"), "images")
    below = int((images["jaccard"] < JACCARD_THRESHOLD).sum())
    sections = [
        parts.scores_section(scores, columns, frame.notes),
        _distribution_section(images, below),
        Section("Gallery", galleries=galleries, outlined=True),
        Section("Every image", tables=[parts.images_table(images)]),
    ]
    share, more = f"{100 * below / len(images):.1f} %", f"{below:,} of {len(images):,}"
    tiles = [*parts.tiles(scores), Tile(f"images below {JACCARD_THRESHOLD}", share, more)]
    subtitle = f"Lesion boundaries (Task 1) in {len(images):,} images"
    parts.write_page(file, frame, subtitle, tiles, sections)


def _distribution_section(images: pd.DataFrame, below: int) -> Section:
    """How the Jaccard index is spread over the images, and over the sizes of lesions."""
    jaccard, share = (images[name].to_numpy(float) for name in ("jaccard", "lesion_share"))
    count = format_share(below, len(images))
    text = [
        f"{count} lie below {JACCARD_THRESHOLD}; the threshold Jaccard counts each as 0. "
        f"The median is {format_score(float(np.median(jaccard)))}."
    ]
    if (share <= 0).any():
        text.append(
            f"{(share <= 0).sum():,} without lesion in the truth have no size to be drawn at."
        )
    drawn = [
        parts.chart(
            charts.draw_jaccard_histogram(jaccard),
            "How many images have which Jaccard index",
            f"Histogram of the Jaccard index; {count} below {JACCARD_THRESHOLD}",
        ),
        parts.chart(
            charts.draw_jaccard_by_size(jaccard, share),
            "Jaccard index by size of the lesion",
            "Jaccard index of each image against the lesion's share of it, with running median",
        ),
    ]
    return Section("Distribution", text=text, charts=drawn)
