"""The report of a Task 2 evaluation: scores of each attribute, outlined pictures, every image.

Enters: scores with intervals, pixels counted in each image, a function that gives its pictures.
Leaves: `<name>_report_<set>.html`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.attribute_scoring import MEASURES, attributes_of
from inference.scope import Scope
from reports import facts, figures, parts
from reports.pages import readable
from reports.parts import Picture, Section

GALLERY = 4  # pictures of each attribute


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
        scores: from attribute_scoring.score_attributes.
        images: from attribute_scoring.count_table, with a column `fold`.
        shown: image id -> image (H, W, 3), {attribute: mask (H, W)} of truth and prediction.
    """
    names = attributes_of(images)
    frame = facts.frame(scope, used, images["fold"], ["images"])
    overall = [name for name in scores.index if not name.startswith(tuple(names))]
    counts = {readable(name): int((_of(images, name)["truth"] > 0).sum()) for name in names}
    sections = [
        parts.scores_section(scores.loc[overall], None, frame.notes),
        Section(
            "By attribute",
            tables=[parts.two_way_table(_by_attribute(scores, names), counts)],
            notes=[
                "The Jaccard index of an attribute is that of all images together, in each of "
                "which its pixels count as shares of the image, as the organisers have it; "
                "“images” are those that show it by their truth. “Micro” is that of all "
                "attributes together, by which they ranked."
            ],
        ),
        Section(
            "Gallery",
            text=[
                "Of each attribute the images that show most of it by their truth, and the one "
                "where it was wrongly seen most."
            ],
            galleries={readable(name): _pictures(images, name, shown) for name in names},
            outlined=True,
        ),
    ]
    file = scope.ensemble.file(f"report_{scope.ending}.html")
    subtitle = f"Attributes of lesions (Task 2) in {len(images):,} images"
    parts.write_page(file, frame, subtitle, parts.tiles(scores.loc[overall]), sections)
    return file


def _by_attribute(scores: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Scores indexed by (attribute, measure)."""
    pairs = [(name, measure) for name in names for measure in MEASURES]
    table = scores.loc[[f"{name}_{measure}" for name, measure in pairs]]
    return table.set_axis(
        pd.MultiIndex.from_tuples([(readable(name), measure) for name, measure in pairs])
    )


def _of(images: pd.DataFrame, name: str) -> pd.DataFrame:
    """Pixels of an attribute in each image: in the truth, found, wrongly seen; and of the image."""
    tp, fp, fn, tn = (images[f"{name}_{kind}"] for kind in ("tp", "fp", "fn", "tn"))
    return pd.DataFrame({"truth": tp + fn, "found": tp, "wrong": fp, "all": tp + fp + fn + tn})


def _pictures(images: pd.DataFrame, name: str, shown: Callable) -> list[Picture]:
    pixels = _of(images, name)
    share = pixels.div(pixels["all"], axis=0)
    most = share["truth"].sort_values(ascending=False, kind="stable")
    chosen = list(most[most > 0].index[: GALLERY - 1])
    wrong = share["wrong"].drop(chosen)
    chosen += list(wrong[wrong > 0].sort_values(ascending=False, kind="stable").index[:1])
    pictures = []
    for image_id in chosen:
        image, truth, masks = shown(image_id)
        row = share.loc[image_id]
        either = row["truth"] + row["wrong"]
        caption = f"Jaccard {row['found'] / either:.3f}, {100 * row['truth']:.1f} % of the image"
        outlined = figures.outline(image, truth[name], masks[name])
        pictures.append(parts.picture(image_id, caption, outlined))
    return pictures
