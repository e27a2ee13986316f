from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from evaluation import bootstrap
from evaluation.attribute_scoring import (
    COUNTS,
    RANKED_BY,
    attribute_difference,
    attributes_of,
    count_pixels,
    count_table,
    score_attributes,
)

NAMES = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")


def strip(part: slice, length: int = 10) -> np.ndarray:
    mask = np.zeros((1, length), np.uint8)
    mask[:, part] = 255
    return mask


def table_of(rows: dict[str, list[tuple[int, ...]]], attributes=("dots", "net")) -> pd.DataFrame:
    """{image: (tp, fp, fn, tn) of each attribute}."""
    columns = [f"{name}_{kind}" for name in attributes for kind in COUNTS]
    counts = [[count for of_one in row for count in of_one] for row in rows.values()]
    return pd.DataFrame(counts, index=pd.Index(list(rows), name="image"), columns=columns)


# dots: 6 px of a 10 px image, 0 and 10 px of a 100 px image; net: never in b
TABLE = table_of(
    {"ISIC_0000001": [(4, 2, 2, 2), (1, 1, 3, 5)], "ISIC_0000002": [(0, 10, 0, 90), (0, 0, 0, 100)]}
)
ONCE = np.ones((1, 2), np.float32)


def test_counts_by_hand():
    counts = count_pixels(strip(slice(0, 6)), strip(slice(3, 8)))
    assert counts == {"tp": 3, "fp": 2, "fn": 3, "tn": 2}
    assert all(type(count) is int for count in counts.values())
    empty, full = strip(slice(0, 0)), strip(slice(0, 10))
    assert count_pixels(empty, full) == {"tp": 0, "fp": 10, "fn": 0, "tn": 0}
    assert count_pixels(full, empty) == {"tp": 0, "fp": 0, "fn": 10, "tn": 0}
    assert count_pixels(empty > 0, empty) == {"tp": 0, "fp": 0, "fn": 0, "tn": 10}


def test_grey_values_are_cut_above_128():
    full = np.full((2, 2), 255, np.uint8)
    counts = {grey: count_pixels(full, full // 255 * np.uint8(grey)) for grey in range(256)}
    assert [grey for grey, of_one in counts.items() if of_one["tp"] == 4] == list(range(129, 256))
    assert [count_pixels(full // 255 * np.uint8(g), full)["tp"] for g in (128, 129)] == [0, 4]
    assert count_pixels(full > 0, full > 0)["tp"] == 4


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "one size"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3, 1), np.uint8), "prediction must be"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8), "truth must be"),
        (np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8), "one size"),
    ],
)
def test_masks_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        count_pixels(truth, prediction)


def test_scores_by_hand():
    scores = score_attributes(TABLE, ONCE)
    assert scores["value"].to_dict() == pytest.approx(
        {
            # shares of their image: both 0.4, false 0.2 + 0.1, missed 0.2
            "dots_jaccard": 0.4 / 0.9,
            "net_jaccard": 0.1 / 0.5,
            "dots_dice": 0.8 / 1.3,
            "net_dice": 0.2 / 0.6,
            "jaccard": (0.4 / 0.9 + 0.1 / 0.5) / 2,
            "dice": (0.8 / 1.3 + 0.2 / 0.6) / 2,
            "micro_jaccard": 0.5 / 1.4,
            "micro_dice": 1.0 / 1.9,
        }
    )
    assert list(scores.columns) == ["value", "low", "high"]
    assert list(scores.index) == [
        *("dots_jaccard", "net_jaccard", "dots_dice", "net_dice"),
        *("jaccard", "dice", "micro_jaccard", "micro_dice"),
    ]
    assert RANKED_BY in scores.index
    one_resample = scores[["low", "high"]].to_numpy() - scores[["value"]].to_numpy()
    assert one_resample == pytest.approx(0)


def test_nothing_to_nothing_is_one():
    nothing = table_of({"ISIC_0000001": [(0, 0, 0, 10), (2, 1, 1, 6)]})
    values = score_attributes(nothing, ONCE[:, :1])["value"]
    assert values["dots_jaccard"] == values["dots_dice"] == 1
    assert values["jaccard"] == pytest.approx((1 + 0.5) / 2)
    assert values["micro_jaccard"] == pytest.approx(0.5)
    neither = table_of({"ISIC_0000001": [(0, 0, 0, 10), (0, 0, 0, 10)]})
    assert (score_attributes(neither, ONCE[:, :1]) == 1).all().all()
    wrong = table_of({"ISIC_0000001": [(0, 1, 0, 9), (0, 0, 1, 9)]})
    assert (score_attributes(wrong, ONCE[:, :1]) == 0).all().all()


def test_a_resample_is_a_set_of_its_own():
    weights = np.array([[2, 0], [0, 2], [1, 3]], np.float32)
    scores = score_attributes(TABLE, weights)
    dots = [0.4 / 0.8, 0.0, 0.4 / (0.8 + 3 * 0.1)]
    net = [0.1 / 0.5, 1.0, 0.1 / 0.5]  # none in the second image, and none predicted there
    micro = [0.5 / 1.3, 0.0, 0.5 / (1.3 + 0.3)]
    for name, values in (
        ("dots_jaccard", dots),
        ("net_jaccard", net),
        ("jaccard", np.mean([dots, net], axis=0)),
        ("micro_jaccard", micro),
        ("micro_dice", [1 / 1.8, 0.0, 1 / (1.8 + 0.3)]),
    ):
        ends = np.percentile(values, [2.5, 97.5])
        assert scores.loc[name, ["low", "high"]].tolist() == pytest.approx(ends.tolist()), name
    once = score_attributes(TABLE, ONCE)
    assert scores["value"].tolist() == once["value"].tolist()  # of the set, not of the resamples


def test_intervals_of_many_images():
    random = np.random.default_rng(0)
    both, false, missed = random.integers(1, 30, (3, 80))
    rows = {
        f"ISIC_{k:07d}": [(both[k], false[k], missed[k], 100 - both[k] - false[k] - missed[k])]
        for k in range(80)
    }
    table = table_of(rows, ["streaks"])
    weights = bootstrap.resample(table.index, 400)
    row = score_attributes(table, weights).loc["streaks_jaccard"]
    assert row["value"] == pytest.approx(both.sum() / (both + false + missed).sum())
    again = [(w * both).sum() / (w * (both + false + missed)).sum() for w in weights]
    assert row["low"] == pytest.approx(np.percentile(again, 2.5))
    assert row["high"] == pytest.approx(np.percentile(again, 97.5))
    assert row["low"] < row["value"] < row["high"]


def test_differences_are_paired_and_joined_by_id():
    random = np.random.default_rng(1)
    rows_a, rows_b = {}, {}
    for k in range(60):
        size, found = random.integers(10, 40), random.integers(0, 10)
        rows_a[f"ISIC_{k:07d}"] = [(found, 5, size - found, 95 - size), (4, 0, 0, 96)]
        rows_b[f"ISIC_{k:07d}"] = [(found + 1, 5, size - found - 1, 95 - size), (4, 0, 0, 96)]
    table_a = table_of(rows_a)
    table_b = table_of(rows_b).sample(frac=1, random_state=0)  # in another order
    table_b = table_b[list(table_b.columns[::-1])]
    weights = bootstrap.resample(table_a.index, 300)
    difference = attribute_difference(table_a, table_b, weights)
    alone_a, alone_b = score_attributes(table_a, weights), score_attributes(table_b, weights)
    assert list(difference.index) == list(alone_a.index)
    expected = (alone_b["value"] - alone_a["value"])[alone_a.index]
    assert difference["value"].tolist() == pytest.approx(expected.tolist())
    row = difference.loc["dots_jaccard"]
    assert 0 < row["low"] < row["value"] < row["high"]
    assert row["high"] - row["low"] < (alone_a["high"] - alone_a["low"])["dots_jaccard"] / 5
    assert (difference.loc["net_jaccard"] == 0).all()
    back = attribute_difference(table_b, table_a, weights)
    assert (back["value"][difference.index] + difference["value"]).abs().max() < 1e-12


def test_a_difference_by_hand():
    each_alone = np.eye(2, dtype=np.float32) * 3
    worse = TABLE.assign(dots_tp=[2, 0], dots_fn=[4, 0])
    row = attribute_difference(worse, TABLE, each_alone).loc["dots_jaccard"]
    assert row.tolist() == pytest.approx(
        [0.4 / 0.9 - 0.2 / 0.9, *np.percentile([0.4 / 0.8 - 0.2 / 0.8, 0], [2.5, 97.5])]
    )


def test_only_the_same_set_is_compared():
    with pytest.raises(ValueError, match="same images"):
        attribute_difference(TABLE, TABLE[1:], ONCE)
    with pytest.raises(ValueError, match="same images and attributes"):
        attribute_difference(TABLE, TABLE.filter(like="dots_"), ONCE)
    other = TABLE.assign(net_fn=[3, 1])
    with pytest.raises(ValueError, match=r"ISIC_0000002, net: .*another truth"):
        attribute_difference(TABLE, other, ONCE)


def test_a_table_of_counts(capsys):
    truths = {
        "ISIC_0000002": {"net": strip(slice(0, 5)) > 0, "dots": strip(slice(8, 10)) > 0},
        "ISIC_0000001": {"net": strip(slice(0, 0), 6) > 0, "dots": strip(slice(0, 6), 6) > 0},
    }
    asked = []

    def masks_for(image_id, height, width):
        asked.append((image_id, height, width))
        return {"dots": strip(slice(0, 9), width), "net": strip(slice(4, 6), width), "more": None}

    table = count_table(list(truths), truths.get, masks_for, ("dots", "net"))
    assert table.index.tolist() == ["ISIC_0000002", "ISIC_0000001"] and table.index.name == "image"
    assert table.columns.tolist() == [f"{a}_{kind}" for a in ("dots", "net") for kind in COUNTS]
    assert table.to_numpy().tolist() == [[1, 8, 1, 0, 1, 1, 4, 4], [6, 0, 0, 0, 0, 2, 0, 4]]
    assert attributes_of(table) == ["dots", "net"]
    assert sorted(asked) == [("ISIC_0000001", 1, 6), ("ISIC_0000002", 1, 10)]
    assert capsys.readouterr().err == ""
    count_table(list(truths), truths.get, masks_for, ("dots",), described="scored")
    assert "scored" in capsys.readouterr().err


def test_masks_of_ones_are_foreground_in_a_table():
    ones = {"net": np.ones((2, 2), np.uint8)}
    table = count_table(["a"], lambda _: {"net": np.ones((2, 2), bool)}, lambda *_: ones, ["net"])
    assert table.loc["a"].tolist() == [4, 0, 0, 0]


@pytest.mark.parametrize(
    ("truth", "masks", "message"),
    [
        ({"net": strip(slice(0, 1)) > 0}, {}, "ISIC_1: the truth has no mask of dots$"),
        (None, {"dots": strip(slice(0, 1))}, "ISIC_1: the prediction has no mask of net$"),
        (None, {n: strip(slice(0, 1), 9) for n in ("dots", "net")}, "ISIC_1, dots: .* one size"),
    ],
)
def test_a_table_names_the_image_that_is_wrong(truth, masks, message):
    truth = truth or {name: strip(slice(0, 1)) > 0 for name in ("dots", "net")}
    with pytest.raises(ValueError, match=message):
        count_table(["ISIC_1"], lambda _: truth, lambda *_: masks, ("dots", "net"))


def random_set(random: np.random.Generator) -> list[SimpleNamespace]:
    """A few small images with all attributes; some attributes empty in truth, prediction, both."""
    densities = {
        name: (random.choice([0, 0, 0.1, 0.5, 1]), random.choice([0, 0, 0.2, 0.9]))
        for name in NAMES
    }
    pairs = []
    for number in range(random.integers(1, 5)):
        shape = random.integers(1, 12, size=2)
        for name in NAMES:
            truth, prediction = (random.random(shape) < density for density in densities[name])
            if densities[name][1]:  # soft values on both sides of 128
                prediction |= truth & (random.random(shape) < 0.5)
            soft = random.integers(127, 256, shape)
            pairs.append(
                SimpleNamespace(
                    truth_image=truth * np.uint8(255),
                    prediction_image=np.where(prediction, soft, 0).astype(np.uint8),
                    image_id=f"ISIC_{number:07d}",
                    attribute_id=name,
                )
            )
    return pairs


def test_300_sets_as_the_organisers_score_them(monkeypatch):
    from isic_challenge_scoring import task2

    random, empty = np.random.default_rng(0), {"truth": 0, "prediction": 0, "both": 0}
    for _ in range(300):
        pairs = random_set(random)
        monkeypatch.setattr(task2, "iter_image_pairs", lambda *_, pairs=pairs: iter(pairs))
        theirs = task2.score(None, None)
        image_ids = sorted({pair.image_id for pair in pairs})
        truth, masks = ({image_id: {} for image_id in image_ids} for _ in range(2))
        for pair in pairs:
            truth[pair.image_id][pair.attribute_id] = pair.truth_image > 128
            masks[pair.image_id][pair.attribute_id] = (pair.prediction_image > 128) * np.uint8(255)
        table = count_table(image_ids, truth.get, lambda i, *_, masks=masks: masks[i], NAMES)
        ours = score_attributes(table, np.ones((1, len(table))))["value"]
        for measure in ("jaccard", "dice"):
            of_each = [theirs[name][measure] for name in NAMES]
            assert [ours[f"{name}_{measure}"] for name in NAMES] == pytest.approx(of_each, abs=1e-9)
            assert ours[measure] == pytest.approx(np.mean(of_each), abs=1e-9)
            micro = theirs["micro_average"][measure]
            assert ours[f"micro_{measure}"] == pytest.approx(micro, abs=1e-9)
        assert ours[RANKED_BY] == pytest.approx(theirs["overall"], abs=1e-9)
        for pair in pairs:
            counts = count_pixels(pair.truth_image, pair.prediction_image)
            row = table.loc[pair.image_id]
            assert [row[f"{pair.attribute_id}_{kind}"] for kind in COUNTS] == list(counts.values())
        for name in NAMES:
            sums = table.filter(regex=f"^{name}_").sum()
            no_truth = sums[f"{name}_tp"] + sums[f"{name}_fn"] == 0
            no_prediction = sums[f"{name}_tp"] + sums[f"{name}_fp"] == 0
            empty["both"] += no_truth and no_prediction
            empty["truth"] += no_truth and not no_prediction
            empty["prediction"] += no_prediction and not no_truth
    assert min(empty.values()) > 30
