import cv2
import numpy as np
import pytest

from datasets.boxes import Box, bounding_box, cut_box, cut_lesion, fade, radius_of_edge, widen
from inference.postprocess import PostProcessing, lesion_mask
from misc_utils.errors import UserError

PLAIN = PostProcessing(smoothing=0, threshold=0.5, fill_holes=False, component="all")


def drawn(*lines: str) -> np.ndarray:
    """A map from a drawing: `#` is lesion, probability 1."""
    return np.array([[float(letter == "#") for letter in line] for line in lines], np.float32)


def mask_of(probability: np.ndarray, **rules) -> list[str]:
    """The mask at the map's own size, as a drawing."""
    height, width = probability.shape
    settings = {"smoothing": 0, "fill_holes": False, "component": "all"} | rules
    mask = lesion_mask(probability, height, width, PostProcessing(**settings))
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    return ["".join("#" if value else "." for value in row) for row in mask]


def test_the_threshold_itself_is_background():
    steps = np.array([[0.25, 0.5, 0.75, 1.0]], np.float32)
    assert mask_of(steps) == ["..##"]
    assert mask_of(steps, threshold=0.75) == ["...#"]


def test_empty_and_full():
    for rules in ({}, {"smoothing": 3.0, "fill_holes": True, "component": "largest"}):
        assert mask_of(np.zeros((4, 5), np.float32), **rules) == ["....."] * 4
        assert mask_of(np.ones((4, 5), np.float32), **rules) == ["#####"] * 4


def test_the_probability_is_resized_not_the_mask():
    # 0.9 and 0.3, four times as long: the line between them passes 0.5 at two thirds of the way
    # from the first pixel's centre (2.0) to the second's (6.0), so pixels 0..4 are lesion. A mask
    # cut first and resized then would end in the middle, after pixel 3.
    probability = np.array([[0.9, 0.3]], np.float32)
    assert lesion_mask(probability, 1, 8, PLAIN).tolist() == [[255] * 5 + [0] * 3]
    first_cut = cv2.resize((probability > 0.5).astype(np.float32), (8, 1))
    assert (first_cut > 0.5).sum() == 4


def test_height_and_width_are_not_mixed_up():
    mask = lesion_mask(drawn("##..", "##.."), 6, 20, PLAIN)
    assert mask.shape == (6, 20)
    assert mask[:, :10].all() and not mask[:, 10:].any()


def test_smoothing_removes_specks_and_keeps_edges():
    probability = np.zeros((56, 56), np.float32)
    probability[:, 28:] = 1.0
    probability[20, 10] = 1.0
    rules = PostProcessing(smoothing=4.0, fill_holes=False, component="all")  # sigma 1 at 56 pixels
    mask = lesion_mask(probability, 56, 56, rules)
    assert mask[:, 28:].all() and not mask[:, :28].any()


def test_smoothing_scales_with_the_map():
    # A pixel blurred by sigma s falls below half its height s * sqrt(2 ln 2) = 1.18 s away; the
    # threshold is half of the peak, so the half width of the spot measures s.
    widths = {}
    for size in (224, 448):
        probability = np.zeros((size, size), np.float32)
        probability[size // 2, size // 2] = 1.0
        sigma = 4.0 * size / 224
        peak = 1 / (2 * np.pi * sigma**2)
        rules = PostProcessing(smoothing=4.0, threshold=peak / 2, component="all")
        widths[size] = bounding_box(lesion_mask(probability, size, size, rules)).width
        assert widths[size] == 2 * int(1.18 * sigma) + 1
    assert widths == {224: 9, 448: 19}


def test_smoothing_follows_each_side_of_a_map_that_is_no_square():
    probability = np.zeros((112, 224), np.float32)
    probability[56, 112] = 1.0
    rules = PostProcessing(smoothing=8.0, threshold=0.001, component="all")
    box = bounding_box(lesion_mask(probability, 112, 224, rules))
    assert box.width == pytest.approx(2 * box.height, abs=2)


def test_smoothing_does_not_darken_the_border():
    probability = np.ones((56, 56), np.float32)
    assert lesion_mask(probability, 56, 56, PostProcessing(8.0, 0.999)).all()


RING = drawn("........", ".####...", ".#..#...", ".####..#", "........")


def test_a_hole_is_filled_only_when_asked_for():
    rows = ["........", ".####...", ".#..#...", ".####..#", "........"]
    assert mask_of(RING) == rows
    rows[2] = ".####..."
    assert mask_of(RING, fill_holes=True) == rows


def test_a_bay_and_a_hole_cut_by_the_border_stay():
    bay = drawn("####", "#...", "####")
    assert mask_of(bay, fill_holes=True) == ["####", "#...", "####"]
    cut = drawn("#..#", "#..#", "####")
    assert mask_of(cut, fill_holes=True) == ["#..#", "#..#", "####"]


def test_an_island_in_a_hole_is_swallowed():
    island = drawn("#####", "#...#", "#.#.#", "#...#", "#####")
    assert mask_of(island, fill_holes=True) == ["#####"] * 5


def test_holes_are_filled_as_scipy_does():
    from scipy.ndimage import binary_fill_holes

    random = np.random.default_rng(0)
    filled = 0
    for _ in range(200):
        shape = random.integers(1, 14, size=2)
        lesion = random.random(shape) < random.uniform(0.3, 0.9)
        rules = PostProcessing(0, fill_holes=True, component="all")
        mask = lesion_mask(lesion.astype(np.float32), *shape, rules) > 0
        np.testing.assert_array_equal(mask, binary_fill_holes(lesion))
        filled += (mask & ~lesion).sum()
    assert filled > 100


def test_the_largest_component_is_kept():
    blobs = drawn("##...", "##..#", "....#", "#...#")
    assert mask_of(blobs, component="largest") == ["##...", "##...", ".....", "....."]
    assert mask_of(blobs, component="all") == ["##...", "##..#", "....#", "#...#"]


def test_corners_join():
    diagonal = drawn("#....", ".#...", "..#..", "....#", "....#")
    assert mask_of(diagonal, component="largest")[:3] == ["#....", ".#...", "..#.."]
    assert mask_of(diagonal, component="largest")[3:] == [".....", "....."]


def test_holes_count_for_the_size():
    ring_and_bar = drawn("####.####", "#..#.####", "####.###.")  # 10 pixels, or 12; against 11
    assert mask_of(ring_and_bar, component="largest")[1] == ".....####"
    assert mask_of(ring_and_bar, component="largest", fill_holes=True)[1] == "####....."


def test_of_equal_components_the_first_in_reading_order_is_kept():
    assert mask_of(drawn("...##", "##..."), component="largest") == ["...##", "....."]
    assert mask_of(drawn(".....", "#...#"), component="largest") == [".....", "#...."]
    # its first pixel counts, not how far left it lies
    apart = drawn("..#..", ".....", "#....")
    assert mask_of(apart, component="largest") == ["..#..", ".....", "....."]


def test_a_lesion_of_one_pixel():
    one = drawn("...", "..#", "...")
    everything = {"fill_holes": True, "component": "largest"}
    assert mask_of(one, **everything) == ["...", "..#", "..."]
    mask = lesion_mask(one, 3, 3, PostProcessing(0))
    assert bounding_box(mask) == Box(1, 2, 1, 1)


def test_the_probability_is_not_changed():
    probability = RING * np.float32(0.75)
    before = probability.copy()
    probability.setflags(write=False)  # as of a memory map
    for rules in (PostProcessing(), PostProcessing(smoothing=0), PLAIN):
        for size in (probability.shape, (50, 80)):
            lesion_mask(probability, *size, rules)
    np.testing.assert_array_equal(probability, before)


def test_other_float_types_give_the_same_mask():
    expected = lesion_mask(RING, 50, 80, PostProcessing())
    assert expected.any()
    for other in (RING.astype(np.float64), RING.astype(np.float16), np.asfortranarray(RING)):
        np.testing.assert_array_equal(lesion_mask(other, 50, 80, PostProcessing()), expected)


@pytest.mark.parametrize(
    ("probability", "message"),
    [
        (np.zeros((4, 4, 1)), "map"),
        (np.zeros((0, 4)), "map"),
        (np.full((4, 4), 1.5), "0..1"),
        (np.full((4, 4), -3.0), "0..1"),
        (np.full((4, 4), np.nan), "0..1"),
    ],
)
def test_what_is_no_probability_is_refused(probability, message):
    with pytest.raises(ValueError, match=message):
        lesion_mask(probability, 4, 4, PLAIN)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"smoothing": -1.0}, "smoothing"),
        ({"smoothing": float("nan")}, "smoothing"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"component": "biggest"}, "'largest' or 'all', not 'biggest'"),
    ],
)
def test_rules_refused(rules, message):
    with pytest.raises(UserError, match=message):
        PostProcessing(**rules)


def rectangle(box: Box, height: int = 20, width: int = 30) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[box.top : box.top + box.height, box.left : box.left + box.width] = 255
    return mask


def test_the_box_of_a_rectangle():
    for box in (Box(3, 5, 7, 11), Box(0, 0, 20, 30), Box(0, 29, 1, 1), Box(19, 0, 1, 30)):
        assert bounding_box(rectangle(box)) == box
        assert bounding_box(rectangle(box) > 0) == box
        assert bounding_box(rectangle(box) // 255) == box


def test_the_margin_is_a_fraction_of_the_longer_side():
    mask = rectangle(Box(6, 8, 4, 10))
    assert bounding_box(mask, 0.1) == Box(5, 7, 6, 12)
    assert bounding_box(mask, 0.24) == Box(4, 6, 8, 14)  # 2.4 pixels: 2
    assert bounding_box(mask, 0.25) == Box(4, 6, 8, 14)  # 2.5 pixels: 2
    assert bounding_box(mask, 0.35) == Box(2, 4, 12, 18)  # 3.5 pixels: 4


def test_half_a_pixel_of_margin_is_rounded_to_even_for_crops_and_boxes():
    mask = np.zeros((60, 70), np.uint8)
    mask[20:30, 20:45] = 1  # 25 pixels wide: 2.5 of margin
    assert bounding_box(mask, 0.1) == Box(18, 18, 14, 29)
    assert widen(bounding_box(mask), 0.1, 60, 70) == Box(18, 18, 14, 29)
    assert widen(Box(0, 50, 58, 20), 0.1, 60, 70) == Box(0, 44, 60, 26)  # the image ends it
    for margin in (-0.1, float("nan")):
        with pytest.raises(UserError, match="margin is a fraction"):
            widen(Box(0, 0, 1, 1), margin, 60, 70)


def test_the_margin_ends_at_the_image():
    assert bounding_box(rectangle(Box(1, 2, 4, 10)), 0.3) == Box(0, 0, 8, 15)
    assert bounding_box(rectangle(Box(14, 17, 4, 10)), 0.3) == Box(11, 14, 9, 16)
    assert bounding_box(rectangle(Box(9, 9, 4, 10)), 100.0) == Box(0, 0, 20, 30)


def test_two_blobs_share_a_box():
    mask = rectangle(Box(2, 3, 1, 1)) | rectangle(Box(10, 20, 2, 2))
    assert bounding_box(mask) == Box(2, 3, 10, 19)


def test_an_empty_mask_has_the_box_of_the_image():
    assert bounding_box(np.zeros((20, 30), np.uint8)) == Box(0, 0, 20, 30)
    assert bounding_box(np.zeros((20, 30), bool), 0.2) == Box(0, 0, 20, 30)


def test_a_box_holds_plain_numbers():
    box = bounding_box(rectangle(Box(3, 5, 7, 11)), 0.1)
    assert {type(value) for value in vars(box).values()} == {int}


def test_boxes_refused():
    with pytest.raises(UserError, match="margin"):
        bounding_box(rectangle(Box(3, 5, 7, 11)), -0.1)
    with pytest.raises(ValueError, match="mask must be"):
        bounding_box(np.zeros((20, 30, 1), np.uint8))
    with pytest.raises(ValueError, match="mask must be"):
        bounding_box(np.zeros((20, 30), np.float32))


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)


def test_cut_box():
    image = picture()
    before = image.copy()
    cut = cut_box(image, Box(3, 5, 7, 11))
    np.testing.assert_array_equal(cut, image[3:10, 5:16])
    cut[:] = 0
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(cut_box(image, Box(0, 0, 20, 30)), image)


@pytest.mark.parametrize(
    "box", [Box(-1, 0, 5, 5), Box(0, 26, 5, 5), Box(16, 0, 5, 5), Box(0, -1, 5, 5), Box(0, 0, 0, 5)]
)
def test_a_box_that_sticks_out_is_refused(box):
    with pytest.raises(ValueError, match="not inside an image of 20 x 30"):
        cut_box(picture(), box)


@pytest.mark.parametrize(
    "kind", [lambda mask: mask, lambda mask: mask > 0, lambda mask: mask // 255]
)
def test_cut_lesion_blacks_out_what_is_around_it(kind):
    image, mask = picture(), rectangle(Box(4, 6, 5, 8))
    before = image.copy(), mask.copy()
    cut = cut_lesion(image, kind(mask), Box(3, 5, 7, 11))
    assert cut.shape == (7, 11, 3) and cut.dtype == np.uint8
    np.testing.assert_array_equal(cut[1:6, 1:9], image[4:9, 6:14])
    assert np.count_nonzero(cut) == 5 * 8 * 3  # the picture itself has no 0
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_cut_lesion_of_an_empty_mask_is_the_whole_image():
    image, empty = picture(), np.zeros((20, 30), np.uint8)
    whole = cut_lesion(image, empty, bounding_box(empty))
    np.testing.assert_array_equal(whole, image)
    assert whole is not image and whole.base is None


def test_cut_lesion_refuses_the_mask_of_another_size():
    with pytest.raises(ValueError, match="differ in size"):
        cut_lesion(picture(), np.zeros((30, 20), np.uint8), Box(0, 0, 5, 5))


# soft edges


def half_plane() -> tuple[np.ndarray, np.ndarray]:
    """All 240; the lesion is the left 10 of 30 columns, all 20 rows: 20 is its longer side."""
    return np.full((20, 30, 3), 240, np.uint8), rectangle(Box(0, 0, 20, 10))


def test_the_fade_is_half_a_cosine_wave():
    distance = np.array([0, 1, 2, 3, 4, 5, 99], np.float32)
    values = [1, (2 + np.sqrt(2)) / 4, 0.5, (2 - np.sqrt(2)) / 4, 0, 0, 0]
    weight = fade(distance, 4)
    np.testing.assert_allclose(weight, values, atol=1e-6)
    assert weight.dtype == np.float32 and weight[0] == 1 and not weight[4:].any()
    many = fade(np.linspace(0, 40, 400), 37.3)
    assert (np.diff(many) <= 0).all() and many.min() == 0 and many.max() == 1


def test_a_straight_edge_fades_over_the_radius():
    image, mask = half_plane()
    box = bounding_box(mask, edge_radius=0.2)  # 4 pixels
    assert box == Box(0, 0, 20, 14)
    cut = cut_lesion(image, mask, box, 0.2)
    # 240 times 1, .854, .5, .146 at 0, 1, 2, 3 pixels from the lesion; black at 4
    row = [240] * 10 + [205, 120, 35, 0]
    np.testing.assert_array_equal(cut, np.repeat(np.array([row] * 20)[..., None], 3, axis=2))
    assert cut.dtype == np.uint8


def test_the_fade_goes_by_the_straight_distance():
    image, mask = np.full((21, 21, 3), 200, np.uint8), rectangle(Box(8, 8, 5, 5), 21, 21)
    cut = cut_lesion(image, mask, Box(0, 0, 21, 21), 1.0)  # 5 pixels
    assert cut[7, 7, 0] == round(100 + 100 * np.cos(np.pi * np.sqrt(2) / 5))
    assert cut[4, 5, 0] == cut[4, 4 + 11, 0] == 0  # 3 to the side, 4 up: 5 away
    assert cut[5, 5, 0] == round(100 + 100 * np.cos(np.pi * np.sqrt(18) / 5)) > 0
    assert cut[8:13, 3].max() == 0 < cut[8:13, 4].min()


def test_the_lesion_itself_stays_as_it_is():
    image = picture()
    mask = rectangle(Box(4, 6, 5, 8)) | rectangle(Box(12, 3, 2, 20))
    before = image.copy(), mask.copy()
    box = bounding_box(mask, edge_radius=0.3)
    cut, part, lesion = (
        cut_lesion(image, mask, box, 0.3),
        cut_box(image, box),
        cut_box(mask, box) > 0,
    )
    np.testing.assert_array_equal(cut[lesion], part[lesion])
    assert (cut[~lesion] <= part[~lesion]).all() and (cut[~lesion] < part[~lesion]).mean() > 0.9
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    for other in (mask > 0, mask // 255):
        np.testing.assert_array_equal(cut_lesion(image, other, box, 0.3), cut)


def test_radius_0_is_a_hard_edge():
    image, mask = picture(), rectangle(Box(4, 6, 5, 8))
    for margin in (0.0, 0.3):
        box = bounding_box(mask, margin, edge_radius=0.0)
        assert box == bounding_box(mask, margin)
        hard = cut_lesion(image, mask, box)
        np.testing.assert_array_equal(cut_lesion(image, mask, box, 0.0), hard)
    assert (hard != cut_lesion(image, mask, box, 0.3)).any()


def test_the_radius_means_the_same_at_every_size():
    small, large = rectangle(Box(8, 8, 10, 6), 30, 30), rectangle(Box(32, 32, 40, 24), 120, 120)
    widths = []
    for mask in (small, large):
        white = np.full((*mask.shape, 3), 255, np.uint8)
        cut = cut_lesion(white, mask, Box(0, 0, *mask.shape), 0.5)
        assert cut.shape == white.shape
        outside = (cut[mask.shape[0] * 2 // 5, :, 0] > 0) & (mask[mask.shape[0] * 2 // 5] == 0)
        widths.append(int(outside.sum()))
    assert widths == [2 * 4, 2 * 19]  # less than 5 and 20 pixels away, on either side


def test_the_radius_is_of_the_lesion_not_of_the_box():
    image, mask = half_plane()
    wide = cut_lesion(image, mask, Box(0, 0, 20, 30), 0.2)  # a box far longer than the lesion
    assert wide[0, 9:16, 0].tolist() == [240, 205, 120, 35, 0, 0, 0]


def test_the_box_is_wide_enough_for_the_fade():
    mask = rectangle(Box(6, 8, 4, 10))
    assert bounding_box(mask, 0.0, 0.3) == Box(3, 5, 10, 16)
    assert bounding_box(mask, 0.1, 0.3) == Box(3, 5, 10, 16)  # the larger of the two, not the sum
    assert bounding_box(mask, 0.3, 0.1) == Box(3, 5, 10, 16)
    assert bounding_box(mask, 0.0, 1.0) == Box(0, 0, 20, 28)  # the image ends it
    assert bounding_box(mask * 0, 0.0, 0.3) == Box(0, 0, 20, 30)
    with pytest.raises(UserError, match="margin"):
        bounding_box(mask, -0.1, 0.3)


@pytest.mark.parametrize("radius", [0.05, 0.12, 0.249, 0.25, 0.251, 0.6])
def test_no_fade_is_cut_by_the_box(radius):
    mask = rectangle(Box(30, 30, 20, 10), 90, 90)
    white = np.full((90, 90, 3), 255, np.uint8)
    box = bounding_box(mask, edge_radius=radius)
    everywhere = cut_lesion(white, mask, Box(0, 0, 90, 90), radius)
    inside = everywhere[box.top : box.top + box.height, box.left : box.left + box.width]
    np.testing.assert_array_equal(cut_lesion(white, mask, box, radius), inside)
    assert inside.sum() == everywhere.sum()


def test_a_soft_edge_of_an_empty_mask_is_the_whole_image():
    image, empty = picture(), np.zeros((20, 30), np.uint8)
    box = bounding_box(empty, edge_radius=0.2)
    np.testing.assert_array_equal(cut_lesion(image, empty, box, 0.2), image)


def test_a_full_mask_has_no_edge():
    image, full = picture(), np.full((20, 30), 255, np.uint8)
    np.testing.assert_array_equal(
        cut_lesion(image, full, bounding_box(full, edge_radius=0.2), 0.2), image
    )


@pytest.mark.parametrize("radius", [-0.1, 1.01, float("nan"), float("inf")])
def test_radii_refused(radius):
    image, mask = half_plane()
    for mask_or_empty in (mask, mask * 0):
        with pytest.raises(UserError, match="edge_radius"):
            cut_lesion(image, mask_or_empty, bounding_box(mask), radius)
    with pytest.raises(UserError, match=f"0 to 1, not {radius}"):
        radius_of_edge("feather", radius)
    assert radius_of_edge("hard", radius) == 0


def test_the_radius_in_force():
    assert [radius_of_edge(edge, 0.1) for edge in ("hard", "feather")] == [0, 0.1]
    assert radius_of_edge("feather", 0) == 0 and radius_of_edge("feather", 1) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 300), (3, 3)])
@pytest.mark.parametrize("component", ["largest", "all"])
@pytest.mark.parametrize("fill_holes", [True, False])
def test_pictures_of_a_few_pixels(size, component, fill_holes):
    for value in (0.2, 0.8):
        for smoothing in (0.0, 1.0):
            rules = PostProcessing(smoothing, 0.5, fill_holes, component)
            mask = lesion_mask(np.full((32, 32), value, np.float32), *size, rules)
            assert mask.shape == size and (mask == (255 if value > 0.5 else 0)).all()
