"""Writes the planned pictures and tables into a data folder that holds only drawn data.

Enters: a data folder, counts and a seed. Leaves: JPEG images (RGB), masks (8-bit, mode L, 0/255),
tables, and the marker that says with which settings they were drawn.
"""

from pathlib import Path

import cv2
import numpy as np

from datasets.challenge import ATTRIBUTES
from datasets.synthetic.lesions import draw_lesion
from datasets.synthetic.photographs import draw_attributes, draw_photograph
from datasets.synthetic.plan import Photograph, plan_photographs, plan_texts
from misc_utils.errors import UserError
from misc_utils.files import partial_file

MARKER = "SYNTHETIC.txt"  # beside the drawn folders: the settings, and every file drawn
FORMAT = 1  # raise it when a change to the code changes a picture or mask of the same settings


def draw_dataset(
    data_dir: Path,
    *,
    lesions: int = 100,
    test_lesions: int = 20,
    shorter_side: tuple[int, int] = (240, 420),
    seed: int = 0,
) -> None:
    """Draw Tasks 1 to 3 with training, validation and test sets; existing files are kept.

    A folder that an earlier version drew without attributes gets them in addition.

    Args:
        data_dir: folder that gets the `ISIC2018_*` folders; created if it is missing.
        lesions: lesions in each training set. Tasks 1 and 2 show each once, a third of those of
            Task 3 have two or three photographs. From 100 on every class has eight or more.
        test_lesions: images in each validation and each test set, one per lesion.
        shorter_side: smallest and largest shorter side of an image in pixels.
        seed: the same settings and seed give the same files.

    Raises:
        UserError when data_dir holds ISIC2018 folders not drawn, or drawn with other settings.
    """
    if min(lesions, test_lesions) < 1 or not 32 <= shorter_side[0] <= shorter_side[1]:
        raise ValueError("at least one lesion per set and 32 pixels per side are needed")
    plan = plan_photographs(lesions, test_lesions, seed)
    texts = plan_texts(plan)
    photographs = [photograph for _, _, in_set in plan for photograph in in_set]
    settings = {
        "format": FORMAT,
        "lesions": lesions,
        "test_lesions": test_lesions,
        "shorter_side": "-".join(str(side) for side in shorter_side),
        "seed": seed,
    }
    _claim(data_dir, settings, [*texts, *(file for p in photographs for file in p.files)])
    for file, text in texts.items():
        if not (data_dir / file).is_file():
            _write(data_dir / file, text.encode())
    for photograph in photographs:
        if not all((data_dir / file).is_file() for file in photograph.files):
            _write_photograph(data_dir, photograph, shorter_side)


def _claim(data_dir: Path, settings: dict[str, object], files: list[Path]) -> None:
    """Write the marker into a folder without other ISIC 2018 data, or refuse the folder.

    A marker of the same settings that lists fewer files is completed: an earlier version drew them.
    """
    lines = ["drawn data", *(f"{name}: {value}" for name, value in settings.items())]
    head, names = "\n".join([*lines, "", "files:", ""]), {path.as_posix() for path in files}
    file, marker = data_dir / MARKER, head + "\n".join(sorted(names)) + "\n"
    before = file.read_text(encoding="utf-8") if file.is_file() else head
    if before == marker:
        return
    drawn = set(before.removeprefix(head).splitlines())
    if not drawn < names:
        raise UserError(
            f"{file}: the data here was drawn with other settings or an older version. Delete "
            f"this file and the drawn folders it lists, or choose another folder."
        )
    known = {name.partition("/")[0] for name in drawn}
    found = sorted({path.name for path in data_dir.glob("ISIC2018_*")} - known)
    if found:
        raise UserError(
            f"{data_dir}: {found[0]} exists and was not drawn by this program ({MARKER} does not "
            f"list it). Choose another folder: drawn and released data are never mixed."
        )
    _write(file, marker.encode())


def _write_photograph(
    data_dir: Path, photograph: Photograph, shorter_side: tuple[int, int]
) -> None:
    """Draw one picture and write what is missing of it and its masks; the image last."""
    lesion = draw_lesion(np.random.default_rng(photograph.lesion), photograph.diagnosis)
    image, mask = draw_photograph(np.random.default_rng(photograph.view), lesion, shorter_side)
    encoded = {}
    if photograph.mask is not None:
        encoded[photograph.mask] = cv2.imencode(".png", mask)[1]
    if photograph.superpixels is not None:
        rows, columns = (np.arange(side) // 16 for side in mask.shape)
        label = rows[:, None] * (columns[-1] + 1) + columns  # spread over R, then G, as released
        blue_green_red = np.stack([label >> 16, label >> 8 & 255, label & 255], axis=-1)
        encoded[photograph.superpixels] = cv2.imencode(".png", blue_green_red.astype(np.uint8))[1]
    if photograph.attributes:
        masks = draw_attributes(np.random.default_rng(photograph.view), lesion, shorter_side)
        for file, name in zip(photograph.attributes, ATTRIBUTES, strict=True):
            encoded[file] = cv2.imencode(".png", masks[name])[1]
    jpeg = (cv2.IMWRITE_JPEG_QUALITY, 90)
    encoded[photograph.image] = cv2.imencode(".jpg", image[..., ::-1], jpeg)[1]
    for file, content in encoded.items():
        if not (data_dir / file).is_file():
            _write(data_dir / file, content.tobytes())


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, in a folder that is created if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(file, durable=False) as partial:
        partial.write_bytes(content)
