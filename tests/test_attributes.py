"""Task 2 through the scripts: masks of five channels, of which most are empty."""

import json

import compare
import cv2
import numpy as np
import pandas as pd
import pytest
import seg_eval
import seg_predict
import seg_train

from datasets.challenge import ATTRIBUTES
from datasets.ISIC2018 import ISIC2018
from evaluation import attribute_scoring
from inference import ensemble, kept_logits, tta
from inference.postprocess import DEFAULT_RULES, mask_of
from misc_utils.errors import UserError

pytestmark = pytest.mark.usefixtures("eagerly", "blank_charts")

TINY = {
    "backbone": "tiny",
    "task": 2,
    "weights": "none",
    "image_size": 32,
    "num_folds": 2,
    "epochs": 1,
    "batch_size": 7,
}
TRUTH = "ISIC2018_Task2_Training_GroundTruth_v3"


def test_trained_scored_predicted(root, capsys, no_leftovers):
    seg_train.main(seg_train.Settings(**TINY))
    record = json.loads((root / "model_data/task2_tiny_k0_v0/settings.json").read_text())
    assert record["settings"]["monitor"] == "val_jaccard"
    assert record["settings"]["loss"] == "binary_crossentropy_jaccard"
    out = capsys.readouterr().out
    assert "mean jaccard" in out and "threshold" not in out
    assert "seg_eval.py --task 2 --backbone tiny" in out

    # what is scored is what the kept logits say, counted by hand
    means = seg_eval.main(seg_eval.Settings("tiny", "all", task=2))
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("mean jaccard of the attributes: ")
    assert (root / "model_data/task2_tiny_v0/task2_tiny_v0_report_fold.html").exists()
    runs = ensemble.find_ensemble(root / "model_data", 2, "tiny", "0")
    shares = {name: np.zeros(2) for name in ATTRIBUTES}
    for run in runs.runs:
        logits = kept_logits.load_logits(run, "fold", 1, [])
        assert len(logits) == 14 and next(iter(logits.values())).shape == (32, 32, 5)
        for image_id, maps in logits.items():
            for k, name in enumerate(ATTRIBUTES):
                file = root / f"data/{TRUTH}/{image_id}_attribute_{name}.png"
                truth = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0
                mask = mask_of(maps, *truth.shape, DEFAULT_RULES[2], k) > 0
                both, either = (truth & mask).mean(), (truth | mask).mean()
                shares[name] += [both, either]
    by_hand = {name: both / either if either else 1 for name, (both, either) in shares.items()}
    for name in ATTRIBUTES:
        assert means[f"{name}_jaccard"] == pytest.approx(by_hand[name], abs=1e-9)
    assert means["jaccard"] == pytest.approx(np.mean(list(by_hand.values())))

    # five files of each image, of its size
    seg_predict.main(seg_predict.Settings("mask", "tiny", task=2, pred_set="test", tuned=False))
    folder = root / "submissions/task2_test"
    images = ISIC2018(root / "data").list_images(2, "test")
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        f"{image_id}_attribute_{name}.png" for image_id in images for name in ATTRIBUTES
    )
    for image_id, file in images.items():
        for name in ATTRIBUTES:
            mask = cv2.imread(str(folder / f"{image_id}_attribute_{name}.png"), -1)
            assert mask.shape == cv2.imread(str(file)).shape[:2]
            assert set(np.unique(mask)) <= {0, 255}
    # a file that was lost is written again, and only the image it belongs to
    lost = folder / f"{min(images)}_attribute_streaks.png"
    before = lost.read_bytes()
    lost.unlink()
    seg_predict.main(seg_predict.Settings("mask", "tiny", task=2, pred_set="test", tuned=False))
    assert lost.read_bytes() == before and "6 of 7 are there already" in capsys.readouterr().out
    with pytest.raises(UserError, match="crops are of lesions"):
        seg_predict.main(seg_predict.Settings("crops", "tiny", task=2, pred_set="test"))


@pytest.fixture
def no_leftovers(root):
    yield
    assert not list(root.rglob("*partial*"))


def test_two_trainings_are_compared(root, capsys):
    for version in ("0", "1"):
        seg_train.main(seg_train.Settings(**TINY | {"version": version, "folds": (0,)}))
        seg_eval.main(seg_eval.Settings("tiny", "all", version, task=2))
    difference = compare.main(compare.Settings(("tiny:0", "tiny:1"), 2))
    assert "micro jaccard" in capsys.readouterr().out and difference


def test_without_its_masks_nothing_is_read(root):
    (root / "data" / TRUTH / next((root / "data" / TRUTH).glob("*_streaks.png")).name).unlink()
    with pytest.raises(UserError, match=r"lacks ISIC_\w+\. .*mask of streaks"):
        seg_train.main(seg_train.Settings(**TINY))
    assert not (root / "data/cache").exists()


def test_views_turn_every_channel_alike():
    maps = np.random.default_rng(0).normal(size=(2, 6, 6, 5)).astype(np.float32)
    for k in range(tta.VIEWS):
        np.testing.assert_array_equal(tta.undo(tta.view(maps, k), k), maps)


def test_a_mask_is_that_of_its_channel():
    maps = np.full((8, 8, 5), -9.0, np.float32)
    maps[2:6, 2:6, 3] = 9
    masks = [mask_of(maps, 16, 16, DEFAULT_RULES[2], k) for k in range(5)]
    assert [mask.any() for mask in masks] == [False, False, False, True, False]


def test_parts_stay_and_holes_too():
    maps = np.full((32, 32, 1), -20.0, np.float32)
    maps[4:8, 4:8] = maps[16:30, 16:30] = 20
    maps[21:25, 21:25] = -20
    kept, filled = (mask_of(maps, 32, 32, DEFAULT_RULES[task]) for task in (2, 1))
    assert kept[6, 6] == 255 and kept[23, 23] == 0
    assert filled[6, 6] == 0 and filled[23, 23] == 255


def test_scores_of_a_table_with_folds():
    table = pd.DataFrame(
        {f"{name}_{c}": [1] for name in ATTRIBUTES for c in ("tp", "fp", "fn", "tn")}
    )
    table.insert(0, "fold", [0])
    scores = attribute_scoring.score_attributes(table, np.ones((3, 1), np.float32))
    assert scores.loc["jaccard", "value"] == pytest.approx(1 / 3)
