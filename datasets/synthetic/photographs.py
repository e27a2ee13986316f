"""Photographs a painted lesion: skin, hairs, bubbles, a ruler, light and the edge of the lens.

Enters: a random generator, a Lesion and the size wanted. Leaves: an image, uint8 (H, W, 3) RGB,
its mask, and those of its attributes, uint8 (H, W) in {0, 255}.
"""

import cv2
import numpy as np

from datasets.challenge import ATTRIBUTES
from datasets.synthetic.lesions import PATCH, REACH, Lesion
from datasets.synthetic.textures import above, lines, mix, noise, rgb

ASPECTS = ((4, 3), (4, 3), (3, 2), (3, 2), (1, 1), (5, 4), (3, 4))  # width to height


def draw_photograph(
    rng: np.random.Generator, lesion: Lesion, shorter_side: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a lesion from a random angle, distance and light.

    Returns the image, uint8 (H, W, 3) RGB, and its mask, uint8 (H, W) in {0, 255}.
    """
    matrix, (width, height) = _view(rng, shorter_side)
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


def draw_attributes(
    rng: np.random.Generator, lesion: Lesion, shorter_side: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The attributes in the photograph that a generator of the same seed gives.

    Returns {each of ATTRIBUTES: uint8 (H, W) in {0, 255}}, all inside the lesion's mask and empty
    where the lesion does not show the attribute.
    """
    matrix, (width, height) = _view(rng, shorter_side)
    masks = {name: np.zeros((height, width), np.uint8) for name in ATTRIBUTES}
    for name, mask in lesion.attributes.items():
        seen = cv2.warpAffine(mask, matrix, (width, height))
        masks[name] = (seen > 127).astype(np.uint8) * 255
    return masks


def _view(
    rng: np.random.Generator, shorter_side: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the lesion lies in the photograph: float (2, 3) for warpAffine, and (width, height)."""
    height, width = _size(rng, shorter_side)
    radius = min(height, width) * rng.uniform(0.17, 0.4)
    zoom, turn = radius * 2 * REACH / PATCH, rng.uniform(0, 2 * np.pi)
    mirror = rng.choice((-1, 1))
    along, across = zoom * np.cos(turn), zoom * np.sin(turn)
    turned = np.array([[along, -across * mirror], [across, along * mirror]])
    centre = np.array((width, height)) / 2 + rng.uniform(-0.13, 0.13, 2) * (width, height)
    return np.column_stack([turned, centre - turned @ (PATCH / 2, PATCH / 2)]), (width, height)


def _size(rng: np.random.Generator, shorter_side: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels."""
    side = int(rng.integers(shorter_side[0], shorter_side[1] + 1))
    wide, high = ASPECTS[rng.integers(len(ASPECTS))]
    return round(side * high / min(wide, high)), round(side * wide / min(wide, high))


def _skin(rng: np.random.Generator, tone: np.ndarray, height: int, width: int) -> np.ndarray:
    """Skin with mottling, pores and creases, float32 (height, width, 3) around `tone`."""
    shape, side = (height, width), min(height, width)
    relief = sum(0.011 * noise(rng, shape, side / part) for part in (100, 45, 20, 9, 4))
    creases = lines(noise(rng, shape, side / 25), 0.25) * rng.uniform(0, 0.05)
    skin = tone * (1 + relief - creases)[..., None]
    red = rng.uniform(0.05, 0.3) * above(noise(rng, shape, side / 9), 0.9, 2.4)
    freckles = rng.uniform(-0.3, 0.25) * above(noise(rng, shape, side / 22), 1.7, 1)
    skin = mix(skin, rgb(206, 108, 112), red)
    return mix(skin, rgb(150, 98, 70), np.maximum(freckles, 0))


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
    dark = mix(rgb(44, 32, 32), rgb(122, 84, 52), rng.uniform(0, 1) ** 2)
    return mix(picture, dark, layer.astype(np.float32) / 255)


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
    return mix(picture, rgb(255, 252, 250), layer)


def _ruler(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The scale of the dermatoscope along the lower or the left edge."""
    height, width = picture.shape[:2]
    layer, side = np.zeros((height, width), np.uint8), min(height, width)
    gap, upright = side * rng.uniform(0.025, 0.05), rng.random() < 0.5
    for i in range(1, int((height if upright else width) / gap)):
        length, at = round(side * (0.06 if i % 5 == 0 else 0.03)), round(i * gap)
        start, end = ((0, at), (length, at)) if upright else ((at, height), (at, height - length))
        cv2.line(layer, start, end, 255, 1, cv2.LINE_AA)
    return mix(picture, rgb(40, 38, 44), layer * np.float32(0.8 / 255))


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
        lens = above(-away, -rng.uniform(1.02, 1.2), rng.uniform(0.05, 0.25))
        picture = picture * (0.06 + 0.94 * lens)[..., None]
    return picture
