"""Draws dermoscopy-like lesions into a tree laid out like the released ISIC 2018 one.

Enters: a data folder, counts and a seed. Leaves: JPEG images (RGB), masks (8-bit, mode L, 0/255)
and tables, named as in the release, for the demo and the tests; nobody's skin is shown.
"""

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.ISIC2018.raw import (
    CLASSES,
    SETS,
    groups_file,
    image_folder,
    labels_file,
    truth_folder,
)
from errors import UserError

MARKER = "SYNTHETIC.txt"  # beside the drawn folders: the settings, and every file drawn
FORMAT = 1  # raise it whenever the same settings come to give other pictures
ATTRIBUTION = "Drawn by datasets/synthetic.py. No picture here shows a person's skin.\n"
LICENSE = "Computer drawings without an author's claim: use them for anything.\n"
SUPERPIXELS = 3  # images of each Task 1 set that get a superpixel companion

SHARES = {"NV": 34, "MEL": 17, "BKL": 14, "BCC": 10, "AKIEC": 9, "DF": 8, "VASC": 8}  # per cent
CONFIRMED = ("histopathology", "serial imaging showing no change", "single image expert consensus")
ASPECTS = ((4, 3), (4, 3), (3, 2), (3, 2), (1, 1), (5, 4), (3, 4))  # width to height
SKINS = ((226, 165, 152), (214, 198, 204), (228, 188, 164), (206, 156, 128), (224, 150, 158))

PATCH = 384  # side of the square a lesion is painted on, in pixels
REACH = 1.6  # half that side, in radii of the lesion


@dataclass(frozen=True)
class Photograph:
    """One picture to draw: what it shows and the files it becomes (under the data folder)."""

    image_id: str
    diagnosis: str
    lesion: tuple[int, ...]  # seed of the lesion, the same in all its photographs
    view: tuple[int, ...]  # seed of this photograph
    lesion_id: str
    image: Path
    mask: Path | None = None  # Task 1 only
    superpixels: Path | None = None


@dataclass(frozen=True)
class Lesion:
    """A painted lesion and the skin it lies on, without a photograph's angle and light."""

    colour: np.ndarray  # float32 (PATCH, PATCH, 3) RGB 0..1
    cover: np.ndarray  # float32 (PATCH, PATCH): 0 skin only .. 1 lesion only
    mask: np.ndarray  # uint8 (PATCH, PATCH) in {0, 255}, one region without holes
    skin: np.ndarray  # float32 (3,) RGB 0..1


# ------------------------------------------------------------------------------ the tree of files


def draw_dataset(
    data_dir: Path,
    *,
    lesions: int = 100,
    test_lesions: int = 20,
    shorter_side: tuple[int, int] = (240, 420),
    seed: int = 0,
) -> None:
    """Draw Tasks 1 and 3 with training, validation and test sets; files that are there stay.

    Args:
        data_dir: folder that gets the `ISIC2018_*` folders; made if need be.
        lesions: lesions in each training set. Task 1 shows each once, a third of those of Task 3
            have two or three photographs. From 100 on every class has at least eight lesions.
        test_lesions: images in each validation and each test set, one per lesion.
        shorter_side: smallest and largest shorter side of an image in pixels.
        seed: the same settings and seed give the same files.

    Raises:
        UserError when data_dir holds ISIC2018 folders that were not drawn, or drawn otherwise.
    """
    if min(lesions, test_lesions) < 1 or not 32 <= shorter_side[0] <= shorter_side[1]:
        raise ValueError("at least one lesion per set and 32 pixels per side are needed")
    plan = _plan(lesions, test_lesions, seed)
    texts = _texts(plan)
    photographs = [photograph for _, _, some in plan for photograph in some]
    settings = {
        "format": FORMAT,
        "lesions": lesions,
        "test_lesions": test_lesions,
        "shorter_side": "-".join(str(side) for side in shorter_side),
        "seed": seed,
    }
    _claim(data_dir, settings, [*texts, *(file for p in photographs for file in _files_of(p))])
    for file, text in texts.items():
        if not (data_dir / file).is_file():
            _write(data_dir / file, text.encode())
    for photograph in photographs:
        if not all((data_dir / file).is_file() for file in _files_of(photograph)):
            _write_photograph(data_dir, photograph, shorter_side)


def class_counts(lesions: int) -> dict[str, int]:
    """Lesions per class, commonest first: by SHARES, one of each where there are seven or more."""
    if lesions < len(SHARES):
        return {name: int(i < lesions) for i, name in enumerate(SHARES)}
    counts = {name: max(1, lesions * share // 100) for name, share in SHARES.items()}
    counts["NV"] += lesions - sum(counts.values())
    return counts


def _claim(data_dir: Path, settings: dict[str, object], files: list[Path]) -> None:
    """Write the marker into a folder without other ISIC 2018 data, or refuse the folder."""
    lines = ["drawn data", *(f"{name}: {value}" for name, value in settings.items())]
    lines += ["", "files:", *sorted(path.as_posix() for path in files)]
    file, marker = data_dir / MARKER, "\n".join(lines) + "\n"
    if not file.is_file():
        found = sorted(path.name for path in data_dir.glob("ISIC2018_*"))
        if found:
            raise UserError(
                f"{data_dir}: {found[0]} is there and was not drawn by this program ({MARKER} "
                f"is missing). Name another folder: drawn and released data are never mixed."
            )
        _write(file, marker.encode())
    elif file.read_text(encoding="utf-8") != marker:
        raise UserError(
            f"{file}: other settings, or an older version, drew the data that lies here. Delete "
            f"this file and the drawn folders it lists, or name another folder."
        )


def _plan(lesions: int, test_lesions: int, seed: int) -> list[tuple[int, str, list[Photograph]]]:
    """Task, set and its photographs in the order of their ids; no id is in two sets."""
    plan, next_id = [], 0
    for number, (task, images) in enumerate((t, s) for t in (1, 3) for s in SETS):
        rng = np.random.default_rng((seed, number))
        count = lesions if images == "training" else test_lesions
        diagnoses = rng.permutation([c for c, n in class_counts(count).items() for _ in range(n)])
        shown = [
            (lesion, view)
            for lesion in range(count)
            for view in range(_views(lesion) if (task, images) == (3, "training") else 1)
        ]
        photographs = []
        for lesion, view in rng.permutation(shown).tolist():
            next_id += int(rng.integers(1, 4))  # the release has gaps too
            folder, image_id = image_folder(Path(), task, images), f"ISIC_{next_id:07d}"
            mask = truth_folder(Path(), 1, images) / f"{image_id}_segmentation.png"
            companion = task == 1 and len(photographs) < SUPERPIXELS
            photographs.append(
                Photograph(
                    image_id=image_id,
                    diagnosis=str(diagnoses[lesion]),
                    lesion=(seed, number, lesion + 1),  # numpy takes a last 0 for no number
                    view=(seed, number, lesion + 1, view + 1),
                    lesion_id=f"HAM_{lesion:07d}",
                    image=folder / f"{image_id}.jpg",
                    mask=mask if task == 1 else None,
                    superpixels=folder / f"{image_id}_superpixels.png" if companion else None,
                )
            )
        plan.append((task, images, photographs))
    return plan


def _views(lesion: int) -> int:
    """Photographs of a Task 3 training lesion: two or three of every third one."""
    return 1 if lesion % 3 else 2 + (lesion % 9 == 6)


def _files_of(photograph: Photograph) -> list[Path]:
    files = (photograph.image, photograph.mask, photograph.superpixels)
    return [file for file in files if file is not None]


def _texts(plan: list[tuple[int, str, list[Photograph]]]) -> dict[Path, str]:
    """Tables and companions, {file: content}."""
    texts = {}
    for task, images, photographs in plan:
        for folder in (image_folder(Path(), task, images), truth_folder(Path(), task, images)):
            texts[folder / "ATTRIBUTION.txt"] = ATTRIBUTION
            texts[folder / "LICENSE.txt"] = LICENSE
        if task == 3:
            rows = [(p.image_id, *(float(p.diagnosis == c) for c in CLASSES)) for p in photographs]
            texts[labels_file(Path(), images)] = _table(("image", *CLASSES), rows)
        if (task, images) == (3, "training"):
            rows = [(p.image_id, p.lesion_id, CONFIRMED[p.lesion[-1] % 3]) for p in photographs]
            header = ("image", "lesion_id", "diagnosis_confirm_type")
            texts[groups_file(Path())] = _table(header, rows)
    return texts


def _table(header: tuple[str, ...], rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _write_photograph(
    data_dir: Path, photograph: Photograph, shorter_side: tuple[int, int]
) -> None:
    lesion = draw_lesion(np.random.default_rng(photograph.lesion), photograph.diagnosis)
    image, mask = draw_photograph(np.random.default_rng(photograph.view), lesion, shorter_side)
    jpeg = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 90))[1]
    if photograph.mask is not None:
        _write(data_dir / photograph.mask, cv2.imencode(".png", mask)[1].tobytes())
    if photograph.superpixels is not None:
        rows, columns = (np.arange(side) // 16 for side in mask.shape)
        label = rows[:, None] * (columns[-1] + 1) + columns  # spread over R, then G, as released
        blue_green_red = np.stack([label >> 16, label >> 8 & 255, label & 255], axis=-1)
        content = cv2.imencode(".png", blue_green_red.astype(np.uint8))[1].tobytes()
        _write(data_dir / photograph.superpixels, content)
    _write(data_dir / photograph.image, jpeg.tobytes())


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


# ------------------------------------------------------------------------------ lesions


def draw_lesion(rng: np.random.Generator, diagnosis: str) -> Lesion:
    """Paint a lesion of one of CLASSES, its shape, colours and texture drawn from `rng`."""
    look = LOOKS[diagnosis]
    y, x = np.mgrid[-REACH : REACH : PATCH * 1j, -REACH : REACH : PATCH * 1j].astype(np.float32)
    y = y * rng.uniform(1.0, look.longest)  # flatter than wide
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    outline = np.ones_like(angle)
    for k in range(2, 9):  # a random Fourier series of the radius over the angle
        size, phase = rng.normal(0, look.irregular / k), rng.uniform(0, 2 * np.pi)
        outline += size * np.cos(k * angle + phase)
    depth = 1 - radius / np.clip(outline, 0.5, 1.4)  # 1 at the centre, 0 on the outline
    ragged = _noise(rng, depth.shape, 24) + 0.7 * _noise(rng, depth.shape, 10)
    depth = np.minimum(depth + 0.1 * look.irregular * ragged, 4 * (1.5 - radius))
    contours, _ = cv2.findContours(
        (depth > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    mask = np.zeros(depth.shape, np.uint8)
    cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    near = cv2.GaussianBlur(mask, (0, 0), 5).astype(np.float32) / 255  # no islands outside
    cover = _above(depth, 0, look.softness) * np.clip(near * 3, 0, 1) * look.opacity
    cover = cv2.GaussianBlur(cover, (0, 0), 1.5)
    skin = _rgb(*SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.88, 1.06)
    skin = np.clip(skin * rng.uniform(0.975, 1.025, 3), 0, 1).astype(np.float32)
    colour = cv2.GaussianBlur(look.paint(rng, np.clip(depth, 0, 1)), (0, 0), 1.2)
    grain = 0.05 * _noise(rng, depth.shape, 4) + 0.07 * _noise(rng, depth.shape, 18)
    colour = colour * (1 + grain)[..., None] * np.sqrt(skin / skin.mean()) * rng.uniform(0.92, 1.06)
    return Lesion(np.clip(colour, 0, 1).astype(np.float32), cover, mask, skin)


def _melanoma(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Several browns and black in patches, a blue-grey veil, a red part."""
    patches = [_above(_noise(rng, depth.shape, cell), 0, 1) for cell in (44, 60, 64, 60, 9)]
    colour = _mix(_rgb(128, 74, 48), _rgb(72, 42, 34), patches[0])
    colour = _mix(colour, _rgb(136, 62, 56), 0.55 * patches[3])
    colour = _mix(colour, _rgb(26, 21, 25), 0.9 * _above(patches[1], 0.5, 1.4))
    colour = _mix(colour, _rgb(92, 98, 122), 0.75 * _above(patches[2] * depth, 0.5, 0.6))
    return _mix(colour, _rgb(35, 24, 22), 0.5 * patches[4])


def _naevus(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """One even brown, darker inwards, with a fine network."""
    brown = _mix(_rgb(176, 114, 80), _rgb(108, 62, 46), rng.uniform(0, 1))
    colour = _mix(brown, brown * rng.uniform(0.5, 0.75), _above(depth, 0.4, 0.9))
    network = _lines(_noise(rng, depth.shape, 8), 0.45)
    return _mix(colour, brown * 0.55, 0.5 * network * _above(-depth, -0.7, 0.6))


def _basal_cell(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Translucent pink with blue-grey ovoid nests and branching vessels."""
    pink = _mix(_rgb(220, 150, 148), _rgb(202, 124, 130), rng.uniform(0, 1))
    colour = _mix(pink, _rgb(236, 204, 204), 0.6 * _above(_noise(rng, depth.shape, 40), 0.6, 2))
    nests, vessels = np.zeros(depth.shape, np.float32), np.zeros(depth.shape, np.float32)
    for _ in range(rng.integers(5, 11)):
        centre = rng.normal(PATCH / 2, PATCH / 8, 2).astype(int).tolist()
        axes = rng.uniform(PATCH / 50, PATCH / 16, 2).astype(int).tolist()
        cv2.ellipse(nests, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, cv2.FILLED)
    for _ in range(rng.integers(8, 14)):
        start, heading = rng.uniform(PATCH * 0.25, PATCH * 0.75, 2), rng.uniform(0, 2 * np.pi)
        bends = heading + np.cumsum(rng.normal(0, 0.4, 20))
        steps = np.stack([np.cos(bends), np.sin(bends)], axis=1) * PATCH / 60
        for part, strength in ((steps, 0.8), (steps[::-1] * 0.7, 0.6)):
            path = (start + np.cumsum(part, axis=0)).astype(np.int32)
            cv2.polylines(vessels, [path], False, strength, 2, cv2.LINE_AA)
    nests = cv2.GaussianBlur(nests, (0, 0), 5) * _above(_noise(rng, depth.shape, 9), -1.2, 2.5)
    colour = _mix(colour, _rgb(88, 92, 118), 0.95 * nests)
    return _mix(colour, _rgb(176, 46, 62), cv2.GaussianBlur(vessels, (0, 0), 1))


def _actinic_keratosis(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Red and rough, with yellow-white scales and a few brown crusts."""
    rough = [_noise(rng, depth.shape, cell) for cell in (14, 7, 36, 20)]
    colour = _mix(_rgb(212, 112, 98), _rgb(172, 72, 66), _above(rough[0], 0, 2.5))
    scales = _above(0.7 * rough[1] + rough[2], 0.9, 1.6)
    colour = _mix(colour, _rgb(240, 216, 186), 0.85 * scales)
    return _mix(colour, _rgb(122, 66, 42), 0.85 * _above(rough[3] - 0.4 * rough[2], 1.4, 0.8))


def _benign_keratosis(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Grey to yellow brown, stuck on, with dark and white dots and fissures."""
    base = _mix(_rgb(172, 136, 90), _rgb(134, 112, 98), rng.uniform(0, 1))
    colour = _mix(base, base * 0.72, _above(_noise(rng, depth.shape, 26), 0.2, 2))
    fissures = _lines(_noise(rng, depth.shape, 30), 0.2) * _above(depth, 0.2, 0.3)
    colour = _mix(colour, _rgb(96, 72, 54), 0.55 * fissures)
    colour = _mix(colour, _rgb(66, 48, 40), 0.85 * _dots(rng, depth.shape, 34, 5))
    return _mix(colour, _rgb(230, 214, 186), 0.8 * _dots(rng, depth.shape, 26, 4))


def _dermatofibroma(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """A white scar in the centre of a light brown rim that fades into the skin."""
    rim = _mix(_rgb(178, 120, 98), _rgb(146, 96, 92), rng.uniform(0, 1))
    colour = _mix(rim, rim * 0.8, _lines(_noise(rng, depth.shape, 8), 0.4))
    scar = _above(depth + 0.06 * _noise(rng, depth.shape, 26), rng.uniform(0.45, 0.6), 0.45)
    streaks = 0.8 + 0.12 * _noise(rng, depth.shape, 7)
    return _mix(colour, _rgb(240, 218, 212), scar * streaks)


def _vascular(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Sharp red to purple lagoons between paler walls."""
    red = _mix(_rgb(200, 26, 46), _rgb(132, 24, 96), rng.uniform(0, 1))
    lagoons = _dots(rng, depth.shape, int(rng.integers(70, 140)), rng.uniform(11, 17))
    colour = _mix(_mix(red, _rgb(226, 120, 150), 0.55), red, lagoons)
    return _mix(colour, red * 0.55, 0.7 * _above(_noise(rng, depth.shape, 26), 0.7, 1.5) * lagoons)


@dataclass(frozen=True)
class Look:
    """How the lesions of a class differ from those of another."""

    paint: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    irregular: float  # size of the outline's waves, in radii
    longest: float  # largest ratio of its axes
    softness: float  # width of the edge, in radii
    opacity: float = 1.0  # how much of the skin it hides


LOOKS = {
    "MEL": Look(_melanoma, 0.45, 1.5, 0.25),
    "NV": Look(_naevus, 0.14, 1.5, 0.35, 0.95),
    "BCC": Look(_basal_cell, 0.25, 1.4, 0.3, 0.9),
    "AKIEC": Look(_actinic_keratosis, 0.4, 1.5, 0.4, 0.9),
    "BKL": Look(_benign_keratosis, 0.3, 1.7, 0.12, 0.95),
    "DF": Look(_dermatofibroma, 0.12, 1.25, 0.6, 0.85),
    "VASC": Look(_vascular, 0.25, 1.4, 0.12),
}


def _rgb(red: float, green: float, blue: float) -> np.ndarray:
    return np.array((red, green, blue), np.float32) / 255


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Colours (..., 3) between two, `share` (...) of the second one."""
    return first + (second - first) * np.asarray(share, np.float32)[..., None]


def _above(field: np.ndarray, level: float, softness: float) -> np.ndarray:
    """1 where a field is above a level, 0 below, a ramp `softness` wide between."""
    return np.clip((field - level) / softness + 0.5, 0, 1).astype(np.float32)


def _lines(field: np.ndarray, width: float) -> np.ndarray:
    """1 on the zero lines of a field, falling off on both sides."""
    return np.exp(-((field / width) ** 2))


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise, mean 0 and deviation about 1, with blobs `cell` pixels wide; float32."""
    height, width = (int(side / cell) + 4 for side in shape)
    coarse = rng.standard_normal((height, width), np.float32)
    size = (int(width * cell) + 1, int(height * cell) + 1)
    fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    top, left = (int(cell * rng.uniform(0.5, 2)) for _ in range(2))
    return 1.3 * fine[top : top + shape[0], left : left + shape[1]]


def _dots(
    rng: np.random.Generator, shape: tuple[int, int], count: int, radius: float
) -> np.ndarray:
    """1 in discs around `count` random points of the middle part, soft edges; float32."""
    points = np.full(shape, 255, np.uint8)
    rows, columns = (rng.uniform(0.2, 0.8, (2, count)) * np.array([shape]).T).astype(int)
    points[rows, columns] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L2, 3)
    return _above(-distance, -radius, 0.4 * radius)


# ------------------------------------------------------------------------------ photographs


def draw_photograph(
    rng: np.random.Generator, lesion: Lesion, shorter_side: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a lesion from a random angle, distance and light.

    Returns the image, uint8 (H, W, 3) RGB, and its mask, uint8 (H, W) in {0, 255}.
    """
    height, width = _size(rng, shorter_side)
    radius = min(height, width) * rng.uniform(0.17, 0.4)
    zoom, turn = radius * 2 * REACH / PATCH, rng.uniform(0, 2 * np.pi)
    mirror = rng.choice((-1, 1))
    along, across = zoom * np.cos(turn), zoom * np.sin(turn)
    turned = np.array([[along, -across * mirror], [across, along * mirror]])
    centre = np.array((width, height)) / 2 + rng.uniform(-0.13, 0.13, 2) * (width, height)
    matrix = np.column_stack([turned, centre - turned @ (PATCH / 2, PATCH / 2)])
    painted = np.dstack([lesion.colour * lesion.cover[..., None], lesion.cover])
    painted = cv2.warpAffine(painted, matrix, (width, height))
    mask = cv2.warpAffine(lesion.mask, matrix, (width, height))
    picture = _skin(rng, lesion.skin, height, width) * (1 - painted[..., 3:]) + painted[..., :3]
    for draw, chance in ((_hairs, 0.45), (_bubbles, 0.15), (_ruler, 0.15)):
        if rng.random() < chance:
            picture = draw(rng, picture)
    picture = cv2.GaussianBlur(_light(rng, picture), (0, 0), rng.uniform(0.4, 1.2))
    picture += rng.normal(0, 0.008, picture.shape).astype(np.float32)
    image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return image, (mask > 127).astype(np.uint8) * 255


def _size(rng: np.random.Generator, shorter_side: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels."""
    side = int(rng.integers(shorter_side[0], shorter_side[1] + 1))
    wide, high = ASPECTS[rng.integers(len(ASPECTS))]
    return round(side * high / min(wide, high)), round(side * wide / min(wide, high))


def _skin(rng: np.random.Generator, tone: np.ndarray, height: int, width: int) -> np.ndarray:
    """Skin with mottling, pores and creases, float32 (height, width, 3) around `tone`."""
    shape, side = (height, width), min(height, width)
    relief = sum(0.011 * _noise(rng, shape, side / part) for part in (100, 45, 20, 9, 4))
    creases = _lines(_noise(rng, shape, side / 25), 0.25) * rng.uniform(0, 0.05)
    skin = tone * (1 + relief - creases)[..., None]
    red = rng.uniform(0.05, 0.3) * _above(_noise(rng, shape, side / 9), 0.9, 2.4)
    freckles = rng.uniform(-0.3, 0.25) * _above(_noise(rng, shape, side / 22), 1.7, 1)
    skin = _mix(skin, _rgb(206, 108, 112), red)
    return _mix(skin, _rgb(150, 98, 70), np.maximum(freckles, 0))


def _hairs(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Hairs, mostly in one direction: long and slightly bent, or shaved to stubble."""
    height, width = picture.shape[:2]
    layer, side = np.zeros((height, width), np.uint8), min(height, width)
    comb, stubble = rng.uniform(0, 2 * np.pi), rng.random() < 0.3
    for _ in range(rng.integers(15, 50) if stubble else rng.integers(1, 9)):
        heading = comb + rng.normal(0, 0.4)
        reach = side * (rng.uniform(0.01, 0.04) if stubble else rng.uniform(0.1, 0.5))
        way = np.array((np.cos(heading), np.sin(heading)))
        middle = rng.uniform(0, 1, 2) * (width, height)
        bend = rng.normal(0, 0.2) * reach * way[::-1] * (1, -1)
        t = np.linspace(-1, 1, 20)[:, None]
        path = np.round((middle + way * t * reach + bend * t**2) * 16).astype(np.int32)
        thickness = 1 + int(rng.random() < side / 1500)
        cv2.polylines(layer, [path], False, int(rng.integers(120, 240)), thickness, cv2.LINE_AA, 4)
    dark = _mix(_rgb(44, 32, 32), _rgb(122, 84, 52), rng.uniform(0, 1) ** 2)
    return _mix(picture, dark, layer.astype(np.float32) / 255)


def _bubbles(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Bubbles in the gel: bright rims with a highlight."""
    height, width = picture.shape[:2]
    layer, side = np.zeros((height, width), np.float32), min(height, width)
    for _ in range(rng.integers(2, 9)):
        centre = (rng.uniform(0, 1, 2) * (width, height)).astype(int)
        radius = int(side * rng.uniform(0.012, 0.04)) + 2
        cv2.circle(layer, centre.tolist(), radius, 0.45, 1, cv2.LINE_AA)
        spark = (centre - radius // 3).tolist()
        cv2.circle(layer, spark, max(1, radius // 5), 0.9, cv2.FILLED, cv2.LINE_AA)
    return _mix(picture, _rgb(255, 252, 250), layer)


def _ruler(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The scale of the dermatoscope along the lower or the left edge."""
    height, width = picture.shape[:2]
    layer, side = np.zeros((height, width), np.uint8), min(height, width)
    gap, upright = side * rng.uniform(0.025, 0.05), rng.random() < 0.5
    for i in range(1, int((height if upright else width) / gap)):
        length, at = round(side * (0.06 if i % 5 == 0 else 0.03)), round(i * gap)
        start, end = ((0, at), (length, at)) if upright else ((at, height), (at, height - length))
        cv2.line(layer, start, end, 255, 1, cv2.LINE_AA)
    return _mix(picture, _rgb(40, 38, 44), layer * np.float32(0.8 / 255))


def _light(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Uneven light with a slight cast, and at times the dark round edge of the lens."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope, heading = rng.uniform(0, 0.1), rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.9, 1.06) + slope * (np.cos(heading) * x + np.sin(heading) * y)
    cast = rng.uniform(0.98, 1.02, 3).astype(np.float32)
    picture = picture * light[..., None] * cast
    if rng.random() < 0.25:
        side = max(height, width)
        away = np.hypot(x * width, y * height) / side
        lens = _above(-away, -rng.uniform(1.02, 1.2), rng.uniform(0.05, 0.25))
        picture = picture * (0.06 + 0.94 * lens)[..., None]
    return picture
