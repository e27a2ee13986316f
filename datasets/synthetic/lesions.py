"""Paints single lesions of seven diagnoses: their outline, colours, texture and attributes.

Enters: a random generator and a diagnosis. Leaves: a Lesion, a square painting (PATCH, PATCH)
without a photograph's angle and light.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from datasets.synthetic.textures import above, dots, grown, lines, mix, noise, rgb

SKINS = ((226, 165, 152), (214, 198, 204), (228, 188, 164), (206, 156, 128), (224, 150, 158))
PATCH = 384  # side of the square a lesion is painted on, in pixels
REACH = 1.6  # half that side, in radii of the lesion
MARGIN = 8  # pixels around each dot that belong to its attribute
CRUMB = 11  # pixels; what is narrower belongs to no attribute

# Colours, float32 (PATCH, PATCH, 3), and {one of ATTRIBUTES: how clearly it is seen, float32
# (PATCH, PATCH) 0..1}
Painted = tuple[np.ndarray, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Lesion:
    """A painted lesion and the skin it lies on, without a photograph's angle and light."""

    colour: np.ndarray  # float32 (PATCH, PATCH, 3) RGB 0..1
    cover: np.ndarray  # float32 (PATCH, PATCH): 0 skin only .. 1 lesion only
    mask: np.ndarray  # uint8 (PATCH, PATCH) in {0, 255}, one region without holes
    skin: np.ndarray  # float32 (3,) RGB 0..1
    # {one of ATTRIBUTES: uint8 (PATCH, PATCH) in {0, 255}, inside the mask}; others are absent
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)


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
    ragged = noise(rng, depth.shape, 24) + 0.7 * noise(rng, depth.shape, 10)
    depth = np.minimum(depth + 0.1 * look.irregular * ragged, 4 * (1.5 - radius))
    contours, _ = cv2.findContours(
        (depth > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    mask = np.zeros(depth.shape, np.uint8)
    cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    near = cv2.GaussianBlur(mask, (0, 0), 5).astype(np.float32) / 255  # no islands outside
    cover = above(depth, 0, look.softness) * np.clip(near * 3, 0, 1) * look.opacity
    cover = cv2.GaussianBlur(cover, (0, 0), 1.5)
    skin = rgb(*SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.88, 1.06)
    skin = np.clip(skin * rng.uniform(0.975, 1.025, 3), 0, 1).astype(np.float32)
    colour, seen = look.paint(rng, np.clip(depth, 0, 1))
    colour = cv2.GaussianBlur(colour, (0, 0), 1.2)
    grain = 0.05 * noise(rng, depth.shape, 4) + 0.07 * noise(rng, depth.shape, 18)
    colour = colour * (1 + grain)[..., None] * np.sqrt(skin / skin.mean()) * rng.uniform(0.92, 1.06)
    colour = np.clip(colour, 0, 1).astype(np.float32)
    attributes = {name: _region(clear, mask) for name, clear in seen.items()}
    return Lesion(colour, cover, mask, skin, attributes)


def _region(clear: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where an attribute is marked, uint8 {0, 255}: clearly seen, in the lesion, not too narrow."""
    region = (clear > 0.5).astype(np.uint8) * 255 & mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (CRUMB, CRUMB))
    return cv2.morphologyEx(region, cv2.MORPH_OPEN, disc)


def _melanoma(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """Several browns and black in patches, a blue-grey veil, a red part.

    Streaks: black that reaches the outline. Negative network: light lines between dark spots.
    """
    patches = [above(noise(rng, depth.shape, cell), 0, 1) for cell in (44, 60, 64, 60, 9)]
    colour = mix(rgb(128, 74, 48), rgb(72, 42, 34), patches[0])
    colour = mix(colour, rgb(136, 62, 56), 0.55 * patches[3])
    black, veil = above(patches[1], 0.5, 1.4), above(patches[2] * depth, 0.5, 0.6)
    colour = mix(colour, rgb(26, 21, 25), 0.9 * black)
    colour = mix(colour, rgb(92, 98, 122), 0.75 * veil)
    colour = mix(colour, rgb(35, 24, 22), 0.5 * patches[4])
    light = (1 - black) * (1 - veil) * (1 - 0.5 * patches[0])
    return colour, {"negative_network": light, "streaks": black * above(-depth, -0.3, 0.1)}


def _naevus(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """One even brown, darker inwards, with a fine pigment network that fades in the centre."""
    brown = mix(rgb(176, 114, 80), rgb(108, 62, 46), rng.uniform(0, 1))
    colour = mix(brown, brown * rng.uniform(0.5, 0.75), above(depth, 0.4, 0.9))
    network = lines(noise(rng, depth.shape, 8), 0.45)
    colour = mix(colour, brown * 0.55, 0.5 * network * above(-depth, -0.7, 0.6))
    return colour, {"pigment_network": above(-depth, -0.5, 0.2)}


def _basal_cell(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """Translucent pink with blue-grey ovoid nests, its globules, and branching vessels."""
    pink = mix(rgb(220, 150, 148), rgb(202, 124, 130), rng.uniform(0, 1))
    colour = mix(pink, rgb(236, 204, 204), 0.6 * above(noise(rng, depth.shape, 40), 0.6, 2))
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
    nests = cv2.GaussianBlur(nests, (0, 0), 5) * above(noise(rng, depth.shape, 9), -1.2, 2.5)
    colour = mix(colour, rgb(88, 92, 118), 0.95 * nests)
    colour = mix(colour, rgb(176, 46, 62), cv2.GaussianBlur(vessels, (0, 0), 1))
    return colour, {"globules": grown(nests, MARGIN / 2)}


def _actinic_keratosis(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """Red and rough, with yellow-white scales and a few brown crusts."""
    rough = [noise(rng, depth.shape, cell) for cell in (14, 7, 36, 20)]
    colour = mix(rgb(212, 112, 98), rgb(172, 72, 66), above(rough[0], 0, 2.5))
    scales = above(0.7 * rough[1] + rough[2], 0.9, 1.6)
    colour = mix(colour, rgb(240, 216, 186), 0.85 * scales)
    return mix(colour, rgb(122, 66, 42), 0.85 * above(rough[3] - 0.4 * rough[2], 1.4, 0.8)), {}


def _benign_keratosis(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """Grey to yellow brown, stuck on, with fissures, dark dots (globules), white ones (cysts)."""
    base = mix(rgb(172, 136, 90), rgb(134, 112, 98), rng.uniform(0, 1))
    colour = mix(base, base * 0.72, above(noise(rng, depth.shape, 26), 0.2, 2))
    fissures = lines(noise(rng, depth.shape, 30), 0.2) * above(depth, 0.2, 0.3)
    colour = mix(colour, rgb(96, 72, 54), 0.55 * fissures)
    dark, white = dots(rng, depth.shape, 34, 5), dots(rng, depth.shape, 26, 4)
    colour = mix(mix(colour, rgb(66, 48, 40), 0.85 * dark), rgb(230, 214, 186), 0.8 * white)
    cysts, globules = (grown(seen * (depth > 0), MARGIN) for seen in (white, dark * (1 - white)))
    return colour, {"globules": globules, "milia_like_cyst": cysts}


def _dermatofibroma(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """A white scar in a light brown rim, with a pigment network, that fades into the skin."""
    rim = mix(rgb(178, 120, 98), rgb(146, 96, 92), rng.uniform(0, 1))
    colour = mix(rim, rim * 0.8, lines(noise(rng, depth.shape, 8), 0.4))
    scar = above(depth + 0.06 * noise(rng, depth.shape, 26), rng.uniform(0.45, 0.6), 0.45)
    streaks = 0.8 + 0.12 * noise(rng, depth.shape, 7)
    return mix(colour, rgb(240, 218, 212), scar * streaks), {"pigment_network": 1 - scar}


def _vascular(rng: np.random.Generator, depth: np.ndarray) -> Painted:
    """Sharp red to purple lagoons between paler walls."""
    red = mix(rgb(200, 26, 46), rgb(132, 24, 96), rng.uniform(0, 1))
    lagoons = dots(rng, depth.shape, int(rng.integers(70, 140)), rng.uniform(11, 17))
    colour = mix(mix(red, rgb(226, 120, 150), 0.55), red, lagoons)
    purple = 0.7 * above(noise(rng, depth.shape, 26), 0.7, 1.5) * lagoons
    return mix(colour, red * 0.55, purple), {}


@dataclass(frozen=True)
class Look:
    """How the lesions of a class differ from those of another."""

    paint: Callable[[np.random.Generator, np.ndarray], Painted]
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
