from functools import cache

import cv2
import numpy as np
import pytest

from datasets.preprocessing import MOVES, PREPROCESSING, crop_borders, preprocess, remove_hair
from datasets.preprocessing import shades_of_grey as balanced
from misc_utils.errors import UserError

SKIN, BROWN, BLACK = (200, 150, 135), (120, 70, 50), (30, 25, 25)


def plain(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


@cache
def photograph(hairs):
    """Mottled skin with a lesion and its pigment network, and curved hairs over both."""
    random = np.random.default_rng(0)
    mottled = cv2.resize(random.normal(0, 8, (48, 64)).astype(np.float32), (1536, 1152))
    picture = np.clip(plain(1152, 1536, SKIN) + mottled[..., None], 0, 255).astype(np.uint8)
    cv2.ellipse(picture, (750, 550), (350, 250), 20, 0, 360, (150, 95, 70), -1, cv2.LINE_AA)
    for x, y in np.argwhere(np.ones((22, 22))) * 32 + (400, 200) + random.uniform(-9, 9, (484, 2)):
        if np.hypot(x - 750, y - 550) < 210:
            cv2.circle(picture, (int(x), int(y)), 17, BROWN, 4, cv2.LINE_AA)
    for _ in range(hairs):
        x, y, dx, dy, bend = random.uniform(-1, 1, 5) * (768, 576, 800, 800, 150)
        along = np.linspace(-1, 1, 40)[:, None]
        points = (768 + x, 576 + y) + along * (dx, dy) + (1 - along**2) * (bend, -bend)
        cv2.polylines(picture, [points.astype(np.int32)], False, BLACK, 7, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), 2)


def skin(height, width, hairs=0):
    """The photograph in any size, so that it looks alike in all of them."""
    smaller = cv2.INTER_AREA if width <= 1536 else cv2.INTER_CUBIC
    return cv2.resize(photograph(hairs), (width, height), interpolation=smaller)


def disc(height, width, radius, centre=None, colour=SKIN, frame=6):
    picture = plain(height, width, frame)
    cv2.circle(picture, centre or (width // 2, height // 2), radius, colour, -1)
    return picture


def error(image, truth):
    return float(np.abs(image.astype(int) - truth).mean())


# --- all rows


def test_the_table_and_what_moves():
    assert [*PREPROCESSING] == ["shades_of_grey", "crop_borders", "remove_hair"]
    assert MOVES == {"crop_borders"} <= {*PREPROCESSING}
    image = disc(120, 160, 50)
    for name, row in PREPROCESSING.items():
        assert (row(image).shape != image.shape) == (name in MOVES), name


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 8), (1, 300), (300, 2)])
def test_tiny_pictures(name, shape):
    random = np.random.default_rng(0)
    for image in (
        plain(*shape, 0),
        plain(*shape, 255),
        random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        random.choice([0, 255], (*shape, 1)).repeat(3, 2).astype(np.uint8),
    ):
        made = PREPROCESSING[name](image)
        assert made.dtype == np.uint8 and made.ndim == 3 and made.shape[2] == 3
        assert name in MOVES or made.shape == image.shape
        assert all(2 * new >= old for new, old in zip(made.shape, image.shape, strict=True))


@pytest.mark.parametrize("name", PREPROCESSING)
def test_the_argument_is_neither_changed_nor_handed_back(name):
    for image in (skin(96, 128, hairs=6), disc(96, 128, 44), plain(9, 9, 77)):
        image.setflags(write=False)
        before = image.copy()
        made = PREPROCESSING[name](image)
        assert (image == before).all() and not np.shares_memory(made, image)
        assert made.flags.writeable and made.flags.c_contiguous


@pytest.mark.parametrize("name", PREPROCESSING)
def test_a_view_is_as_good_as_an_array(name):
    image = cv2.copyMakeBorder(skin(150, 200, 9), 0, 0, 30, 0, cv2.BORDER_CONSTANT)
    view = image[::-1, :, ::-1]
    assert (PREPROCESSING[name](view) == PREPROCESSING[name](view.copy())).all()


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_one_grey_stays_as_it_is(name, grey):
    image = plain(60, 80, grey)
    assert np.array_equal(PREPROCESSING[name](image), image)


def test_rows_are_applied_in_the_order_given():
    image = disc(120, 160, 50, colour=(200, 100, 50), frame=(0, 40, 0))
    first = crop_borders(balanced(image))
    other = balanced(crop_borders(image))
    assert (preprocess(image, ["shades_of_grey", "crop_borders"]) == first).all()
    assert (preprocess(image, ("crop_borders", "shades_of_grey")) == other).all()
    assert first.shape != other.shape or (first != other).any()
    assert preprocess(image, []) is image


def test_an_unknown_row_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(PREPROCESSING, "remove_hair", lambda image: pytest.fail("it worked"))
    with pytest.raises(UserError, match="preprocessing 'hair': choose one of shades_of_grey, crop"):
        preprocess(plain(4, 4, 9), ["remove_hair", "hair"])


# --- shades of grey


def test_one_colour_becomes_the_grey_of_equal_length():
    # sqrt((120^2 + 60^2 + 40^2) / 3) = 80.83
    assert (balanced(plain(5, 7, (120, 60, 40))) == 81).all()


def test_a_black_frame_does_not_matter():
    image = plain(4, 6, (240, 120, 60))
    image[:2] = 0
    # sqrt((240^2 + 120^2 + 60^2) / 3) = 158.7
    assert (balanced(image)[2:] == 159).all() and (balanced(image)[:2] == 0).all()


def test_two_colours_by_the_formula():
    image = plain(4, 4, (100, 50, 20))
    image[0] = (200, 100, 120)
    # Means: (100^6 * 3/4 + 200^6 / 4)^(1/6) = 159.96, half of it, and 95.24; as unit vector
    # 0.7894, 0.3947, 0.4701; times sqrt(3): 1.3674, 0.6837, 0.8142
    assert balanced(image)[0, 0].tolist() == [146, 146, 147]
    assert balanced(image)[1, 0].tolist() == [73, 73, 25]


def test_the_colour_of_the_light_does_not_matter():
    grey = np.random.default_rng(0).integers(20, 60, (30, 40, 1)).repeat(3, 2)
    white = (grey * 2).astype(np.uint8)
    warm = (grey * (4, 2, 1)).astype(np.uint8)
    brighter = (5.25 * 4 / 3 / 4) ** 0.5  # lengths of (4, 2, 1) and (2, 2, 2): sqrt(21), sqrt(12)
    assert (balanced(white) == white).all()
    assert np.abs(balanced(warm) - white * brighter).max() <= 0.5


def test_bright_values_are_clipped_and_a_dark_channel_stays_dark():
    image = plain(10, 10, (250, 90, 0))
    image[0, 0] = (10, 250, 0)
    made = balanced(image)
    assert made[0, 0, 1] == 255 and (made[..., 2] == 0).all()


# --- borders


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_a_disc_loses_its_frame_and_a_little_of_its_rim(scale):
    size, radius = (192 * scale, 256 * scale), 80 * scale
    image = disc(*size, radius)
    height, width = crop_borders(image).shape[:2]
    kept = 2 * radius * 0.937  # there the chord has 0.35 of the diameter: 0.937^2 + 0.35^2 = 1
    assert kept - 5 * scale <= height <= kept + scale and abs(height - width) <= 2 * scale


def test_what_is_left_of_a_picture_is_the_middle_of_the_disc():
    image = disc(200, 240, 70, centre=(150, 90))
    cv2.circle(image, (150, 90), 2, (0, 0, 255), -1)
    made = crop_borders(image)
    y, x = np.argwhere(made[..., 2] == 255).mean(axis=0)
    assert abs(y - made.shape[0] / 2) < 2 and abs(x - made.shape[1] / 2) < 2


def test_a_frame_is_cut_away_wherever_it_is():
    image = plain(200, 250, 4)
    image[20:170, 30:] = SKIN
    assert crop_borders(image).shape == (148, 219, 3)  # one pixel less on each side that is cut
    assert (crop_borders(image) == SKIN).all()


def test_of_a_large_picture_no_frame_is_left():
    image = plain(1000, 1300, 4)
    image[101:903, 99:1207] = SKIN
    made = crop_borders(image)
    assert (made == SKIN).all() and made.shape[0] > 780 and made.shape[1] > 1085


@pytest.mark.parametrize(
    "image",
    [
        skin(150, 200),
        plain(150, 200, SKIN),
        disc(150, 200, 124),  # dark corners alone
        disc(150, 200, 60, colour=(35, 25, 20), frame=SKIN),  # a black lesion
        disc(150, 200, 60, centre=(0, 75), colour=(35, 25, 20), frame=SKIN),  # at the border
        disc(150, 200, 90, frame=(70, 60, 60)),  # shade, but no frame
        disc(150, 200, 25, frame=20),  # a light spot
    ],
)
def test_nothing_is_cut_where_there_is_no_dark_border(image):
    assert np.array_equal(crop_borders(image), image)


def test_a_dark_lesion_at_the_edge_of_the_disc_is_kept():
    image = disc(200, 260, 90)
    without = crop_borders(image).shape
    cv2.circle(image, (150, 60), 30, (20, 15, 15), -1)
    assert crop_borders(image).shape == without


def test_letters_in_the_frame_and_reflections_do_not_matter():
    dim = (48, 40, 36)
    image = disc(200, 260, 90, colour=dim)
    without = crop_borders(image)
    assert without.size < image.size
    cv2.putText(image, "12:03", (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (250, 60, 60), 1)
    cv2.circle(image, (140, 90), 6, (255, 255, 255), -1)
    assert crop_borders(image).shape == without.shape


def test_hairs_that_split_the_picture_cut_nothing():
    image = plain(150, 200, SKIN)
    image[:, 60:64] = 10
    assert crop_borders(image).shape == image.shape


def test_at_least_half_of_each_side_is_left():
    image = plain(301, 401, 3)
    image[:, 20:150] = SKIN
    made = crop_borders(image)
    assert made.shape == (301, 201, 3)
    assert (made == SKIN).all(axis=2).any(axis=0).sum() == 130  # and all of what was bright


# --- hairs


def test_hairs_are_replaced_by_what_lies_beneath():
    clean, hairy = skin(450, 600), skin(450, 600, hairs=12)
    made = remove_hair(hairy)
    assert error(hairy, clean) > 6
    assert error(made, clean) < error(hairy, clean) / 7
    changed = (made != hairy).any(axis=2)
    hair = np.abs(hairy.astype(int) - clean).max(axis=2) > 40
    assert changed[hair].mean() > 0.99 and changed.mean() < 3 * hair.mean()


@pytest.mark.parametrize("size", [(150, 200), (1200, 1600), (1728, 2304)])
def test_large_and_small_pictures_fare_alike(size):
    clean, hairy, usual = skin(*size), skin(*size, hairs=12), skin(450, 600, hairs=12)
    made = remove_hair(hairy)
    share = (remove_hair(usual) != usual).any(axis=2).mean()
    assert (made != hairy).any(axis=2).mean() == pytest.approx(share, rel=0.15)
    assert error(made, clean) < error(hairy, clean) / 6


@pytest.mark.parametrize("size", [(150, 200), (450, 600), (1200, 1600)])
def test_a_picture_without_hairs_stays_nearly_as_it_is(size):
    clean = skin(*size)  # with its pigment network
    assert (remove_hair(clean) != clean).any(axis=2).mean() < 0.003


def test_what_is_no_hair_stays():
    image = plain(384, 512, SKIN)
    cv2.circle(image, (100, 100), 8, BROWN, -1)  # a dot
    cv2.circle(image, (300, 200), 60, BROWN, -1)  # a lesion
    image[50:53, 380:408] = BLACK  # stubble
    cv2.ellipse(image, (100, 200), (20, 5), 0, 0, 360, BROWN, -1)  # a clod
    cv2.line(image, (20, 300), (490, 340), (195, 100, 90), 4)  # a vessel
    cv2.line(image, (20, 360), (490, 360), (250, 250, 250), 3)  # a white hair
    cv2.rectangle(image, (450, 0), (475, 250), BLACK, -1)  # too wide
    assert np.array_equal(remove_hair(image), image)


@pytest.mark.parametrize("angle", range(0, 180, 9))
def test_hairs_of_every_direction_go(angle):
    image = plain(384, 512, SKIN)
    along = 40 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    ends = [tuple(np.rint((256, 192) + sign * along).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(image, *ends, BLACK, 3, cv2.LINE_AA)
    assert np.abs(remove_hair(image).astype(int) - SKIN).max() <= 4


def test_hairs_that_cross_go_together():
    image = plain(384, 512, SKIN)
    for k in range(100, 301, 25):
        cv2.line(image, (k, 100), (k, 300), BLACK, 4)
        cv2.line(image, (100, k), (300, k), BLACK, 4)
    assert np.abs(remove_hair(image).astype(int) - SKIN).max() <= 4


def test_a_hair_that_fades_is_followed():
    paler = (SKIN[0] - 16, SKIN[1] - 16, SKIN[2] - 16)
    faint = plain(384, 512, SKIN)
    cv2.line(faint, (250, 200), (290, 200), paler, 3)
    assert np.array_equal(remove_hair(faint), faint)
    cv2.line(faint, (100, 200), (250, 200), BLACK, 3)
    assert np.abs(remove_hair(faint)[:, :270].astype(int) - SKIN).max() <= 4
