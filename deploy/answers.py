"""What is written of predictions: pictures, a row per image as JSON and CSV, a page to look at.

Enters: a Predictor, images by name. Leaves, in one folder of submissions/: `masks/`, `crops/`,
`heat/` and `overlays/` with a file per image, `predictions.json`, `predictions.csv` and
`index.html`. An image that cannot be read is a row with its reason.
"""

import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.boxes import cut_box, widen
from datasets.challenge import spelt_out
from deploy.archive import Picture
from deploy.ask import Asked, ask, digest_of, read
from deploy.predictor import Prediction, Predictor
from inference.submission import ResultFolder
from misc_utils.errors import UserError
from misc_utils.files import partial_file, sha256, write_text
from misc_utils.messages import counted
from reports import figures
from reports.pages import format_score, render

log = logging.getLogger(__name__)

FORMAT = 1
# of pictures, each a folder
KINDS = ("overlays", "masks", "crops", "heat")
SIDE = 480  # longest side of an overlay, in pixels
CROP_MARGIN = 0.1  # around the lesion in a crop, as a share of its longer side
QUALITY = 90  # of JPEG
NOT_FOR_DIAGNOSIS = "For research only. Not for diagnosis."


def check_name(name: str) -> None:
    """UserError for what cannot name the folder of predictions."""
    if not re.fullmatch(r"[\w-]{1,80}", name) or re.match(r"(\w+_)?task\d", name):
        raise UserError(
            f"--name {name!r}: letters, digits, - and _ only, 80 at most, and not like that of a "
            f"submission."
        )


def waiting(result: ResultFolder, sources: Sequence[Picture]) -> list[Picture]:
    """The images that are to be asked, which are done no more; what is there of others stays.

    UserError where there are answers for images that are not among the sources: they would be
    neither in the tables nor on the page. Those whose files are gone are, with a warning.
    """
    named = {os.path.abspath(source.shown) for source in sources}
    there = {row["path"] for row in result.journal.rows.values()}
    others = {path for path in there if os.path.abspath(path) not in named}
    gone = {path for path in others if not _is_there(Path(path))}
    if gone:
        log.warning("no longer there, so left out of tables and page: %s", counted(gone))
    if others := others - gone:
        raise UserError(
            f"{result.folder} holds answers for images that are not named now: {counted(others)}. "
            f"Name them too, choose another --name, or start again with --overwrite."
        )
    found = [source for source in sources if not _is_done(result, source)]
    result.done.difference_update(source.name for source in found)
    return found


def _is_there(path: Path) -> bool:
    """Whether there is such a file, or a zip archive that it was in."""
    return path.is_file() or any(folder.is_file() for folder in path.parents)


def _is_done(result: ResultFolder, source: Picture) -> bool:
    """Whether the answer for an image is there, of the same content, with all its files."""
    row = result.journal.rows.get(source.name)
    if row is None or os.path.abspath(row["path"]) != os.path.abspath(source.shown):
        return False
    if "reason" in row:  # it is tried again: what lacked, such as a package, may be there now
        _, digest, image = read(source)
        return isinstance(image, str) and (digest, image) == (row["digest"], row["reason"])
    try:
        return source.name in result.done and row["digest"] == digest_of(source.read())
    except (OSError, ValueError):
        return False


def answer(
    result: ResultFolder, predictor: Predictor, sources: Sequence[Picture], settings: Any
) -> Iterator[dict]:
    """Ask for each image, write its pictures, enter it into the journal; its rows, one by one.

    Read from the settings: batch_size, overlay_only.
    """
    kinds = KINDS[:1] if settings.overlay_only else KINDS
    finish = partial(_finish, result.folder, kinds)
    for row in ask(predictor, sources, settings.batch_size, finish):
        result.journal.add(row["name"], row)
        yield row


def _finish(folder: Path, kinds: Collection[str], asked: Asked) -> dict:
    """Write the pictures of one image; its row, as JSON takes it."""
    source, files = asked.source, {}
    if asked.said is None:
        row = {"name": source.name, "reason": asked.reason}
    else:
        row = row_of(source.name, asked.said)
        for kind, (ending, content) in draw(asked.image, asked.said, kinds).items():
            file = folder / kind / f"{source.name}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial_file(file, durable=False) as temporary:
                temporary.write_bytes(content)
            files[f"{kind}/{file.name}"] = sha256(file)
    return row | {"path": source.shown, "digest": asked.digest, "files": files}


def draw(
    image: np.ndarray, said: Prediction, kinds: Collection[str] = KINDS
) -> dict[str, tuple[str, bytes]]:
    """{kind: (ending, bytes of a file)} of each picture of an answer for an image (H, W, 3).

    Of `kinds` those that are known.
    """
    pictures = {}
    if "overlays" in kinds:
        pictures["overlays"] = (".jpg", outlined(image, said.mask))
    if said.mask is not None and "masks" in kinds:
        pictures["masks"] = (".png", said.mask)
    if said.mask is not None and "crops" in kinds:
        box = widen(said.box, CROP_MARGIN, said.height, said.width)
        pictures["crops"] = (".jpg", figures.shrink(cut_box(image, box), SIDE))
    if said.heat is not None and "heat" in kinds:
        pictures["heat"] = (".jpg", draw_heat(said.seen, said.heat))
    return {kind: (ending, encode(ending, pixels)) for kind, (ending, pixels) in pictures.items()}


def outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """An image (H, W, 3) with the outline of its mask (H, W), at most SIDE pixels high and wide.

    A tiny one is made larger, as lines have a width.
    """
    times = SIDE // max(image.shape[:2])
    if times > 1:
        image = cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
        if mask is not None:
            mask = cv2.resize(mask, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)
    return figures.outline(image, None, mask, SIDE)


def row_of(name: str, said: Prediction) -> dict[str, Any]:
    """What is said of an image, without its pictures, as JSON takes it."""
    row: dict[str, Any] = {"name": name, "height": said.height, "width": said.width}
    if said.mask is not None:
        lesion = int(np.count_nonzero(said.mask))
        row |= {
            "lesion_share": lesion / said.mask.size,
            "box": [said.box.top, said.box.left, said.box.height, said.box.width],
            "mask_agreement": said.mask_agreement,
        }
    if said.probability is not None:
        row |= {
            "class": said.decided,
            "probability": said.probability,
            "agreement": said.agreement,
            "spread": said.spread,
            "unlikeness": said.unlikeness,
            "unlike_training_images": said.unlike,
        }
    return row


def encode(ending: str, pixels: np.ndarray) -> bytes:
    """The bytes of a file of this ending that shows uint8 (H, W) or RGB (H, W, 3)."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY) if ending == ".jpg" else ()
    return cv2.imencode(ending, pixels, options)[1].tobytes()


def draw_heat(seen: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """What a net saw with where it looked laid over it, yellow for most: uint8 (S, S, 3)."""
    side = seen.shape[0]
    smooth = np.clip(cv2.resize(heat, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.applyColorMap(np.rint(255 * smooth).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = 0.65 * smooth[..., None]
    return np.rint((1 - weight) * seen + weight * colours[..., ::-1]).astype(np.uint8)


def write_tables(result: ResultFolder, sources: Sequence[Picture]) -> dict[str, int]:
    """Write predictions.json and predictions.csv; how many images were answered, and how many not.

    In the order of the sources. The JSON has a format number, the nets and a row per image; in the
    CSV each class has a column.
    """
    rows = list(_rows(result, sources))
    content = {
        "format": FORMAT,
        "use": NOT_FOR_DIAGNOSIS,
        "made_by": result.made_by,
        "images": rows,
    }
    result.folder.mkdir(parents=True, exist_ok=True)
    write_text(result.folder / "predictions.json", json.dumps(content, indent=1) + "\n")
    flat = []
    for row in rows:
        kept = {k: v for k, v in row.items() if k not in ("probability", "files", "box")}
        if "box" in row:
            names = ("box_top", "box_left", "box_height", "box_width")
            kept |= dict(zip(names, row["box"], strict=True))
        flat.append(kept | row.get("probability", {}))
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in flat for key in row))  # not every row has them all
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(flat)
    write_text(result.folder / "predictions.csv", text.getvalue())
    failed = sum("reason" in row for row in rows)
    unlike = sum(bool(row.get("unlike_training_images")) for row in rows)
    empty = sum(row.get("lesion_share") == 0 for row in rows)
    summary = {"answered": len(rows) - failed, "not_answered": failed}
    summary |= {"without_lesion": empty} if any("lesion_share" in row for row in rows) else {}
    if any(row.get("unlikeness") is not None for row in rows):
        summary["unlike_the_training_images"] = unlike
    return summary


def _rows(result: ResultFolder, sources: Sequence[Picture]) -> Iterator[dict]:
    """What the journal holds of each image, without what is for resuming alone."""
    for source in sources:
        row = dict(result.journal.rows[source.name])
        row.pop("digest")
        files = {Path(file).parent.name: file for file in row.pop("files")}
        yield {"name": source.name, "path": row.pop("path")} | row | {"files": files}


def failures(result: ResultFolder, sources: Sequence[Picture]) -> list[tuple[str, str]]:
    """Path and reason of each image that could not be read."""
    rows = _rows(result, sources)
    return [(row["path"], row["reason"]) for row in rows if "reason" in row]


def write_page(result: ResultFolder, sources: Sequence[Picture], nets: Sequence[str]) -> Path:
    """Write index.html, which shows the pictures in the folders beside it; its file.

    `nets` names those that answered.
    """
    cards = [card_of(row) for row in _rows(result, sources)]
    counts = Counter(card["decided"] for card in cards if card["decided"])
    content = {
        "title": "Predictions",
        "names": next((card["names"] for card in cards if card["decided"]), {}),
        "nets": list(nets),
        "cards": cards,
        "classes": sorted(counts),
        "counts": counts,
        "use": NOT_FOR_DIAGNOSIS,
    }
    file = result.folder / "index.html"
    write_text(file, render("predictions.html.j2", **content))
    return file


def card_of(row: dict) -> dict:
    """What a page says of an image, whose row has its `path` and {kind: address} of its `files`."""
    probability = row.get("probability", {})
    largest = max(probability.values(), default=0.0)
    said = []
    if row.get("lesion_share") == 0:
        said.append("no lesion found")
    elif "lesion_share" in row:
        said.append(f"lesion: {100 * row['lesion_share']:.1f} % of the image")
    if row.get("mask_agreement") is not None:
        score = format_score(row["mask_agreement"])
        said.append(f"agreement of the networks on its outline (Jaccard index): {score}")
    if row.get("agreement") is not None:
        said.append(
            f"{100 * row['agreement']:.0f} % of the networks agree on this class (standard "
            f"deviation of its probability: {format_score(row['spread'])})"
        )
    return {
        "name": row["name"],
        "path": row["path"],
        "reason": row.get("reason"),
        "files": row["files"],
        "found": row.get("lesion_share", 0) > 0,
        "decided": row.get("class"),
        "names": spelt_out(tuple(probability)),
        "certainty": round(largest, 4),
        "unlikeness": row.get("unlikeness"),
        "unlike": row.get("unlike_training_images"),
        "said": said,
        "bars": [
            (name, format_score(value), round(100 * value, 1), value == largest)
            for name, value in probability.items()
        ],
    }
