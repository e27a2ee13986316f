import json

import numpy as np
import pandas as pd
import pytest
from drawn_results import create_run

from evaluation import tuned
from inference import ensemble
from inference.postprocess import PostProcessing
from misc_utils.errors import UserError

FOLDS = pd.DataFrame({"image": list("abcd"), "fold": [0, 0, 1, 1]})
WORTH = {
    "tuned on other folds": pd.DataFrame(
        {"value": [0.8, 0.1], "low": [0.7, np.nan], "high": [0.9, np.nan]}, index=["dice", "error"]
    )
}
CHOSEN = {"member_weights": [1.0], "smoothing": 2.0, "threshold": 0.4}
RULES = dict.fromkeys(tuned.RULES)


@pytest.fixture
def nets(tmp_path):
    for k in range(2):
        settings = {"backbone": "tiny", "version": "0", "num_folds": 2, "image_size": 32}
        run = create_run(tmp_path, 1, k, settings, FOLDS, {"data_fingerprint": "d"})
        run.weights.write_text(run.name)
    return ensemble.find_ensemble(tmp_path, 1, "tiny", "0")


def test_values_come_back_as_they_went(nets):
    assert tuned.load_tuned(nets, 1) is None
    tuned.write_tuned(nets, 1, CHOSEN, WORTH)
    content = tuned.load_tuned(nets, 1)
    assert content["chosen"] == CHOSEN
    assert content["worth"]["tuned on other folds"]["error"] == {
        "value": 0.1,
        "low": None,
        "high": None,
    }
    assert tuned.load_tuned(nets, 8) is None  # eight views are tuned for themselves
    assert "NaN" not in tuned.tuned_file(nets, 1).read_text()


def test_values_of_other_weights_are_refused(nets, tmp_path):
    tuned.write_tuned(nets, 1, CHOSEN, WORTH)
    nets.runs[1].weights.write_text("trained anew")
    later = ensemble.find_ensemble(tmp_path, 1, "tiny", "0")
    with pytest.raises(UserError, match=r"seg_tune\.py again"):
        tuned.load_tuned(later, 1)


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 9, "weights": {}}', '{"format": 1}'])
def test_broken_files_are_refused(nets, text):
    nets.folder.mkdir()
    tuned.tuned_file(nets, 1).write_text(text)
    with pytest.raises(UserError, match="cannot be read as tuned values"):
        tuned.load_tuned(nets, 1)


def test_an_evaluation_never_uses_them_on_the_folds_they_were_tuned_on(nets):
    tuned.write_tuned(nets, 1, CHOSEN, WORTH)
    assert tuned.load_for_eval(nets, 1, False, "fold") is None
    assert tuned.load_for_eval(nets, 1, True, "test") == CHOSEN
    with pytest.raises(UserError, match="too high"):
        tuned.load_for_eval(nets, 1, True, "fold")
    with pytest.raises(UserError, match=r"is not there: run runs/seg_tune\.py"):
        tuned.load_for_eval(nets, 8, True, "test")


def test_rules_by_flag_then_tuned_then_default():
    assert tuned.choose_rules(RULES, None) == PostProcessing()
    assert tuned.choose_rules(RULES, CHOSEN) == PostProcessing(smoothing=2.0, threshold=0.4)
    by_hand = RULES | {"threshold": 0.6, "fill_holes": False}
    assert tuned.choose_rules(by_hand, CHOSEN) == PostProcessing(2.0, 0.6, fill_holes=False)
    with pytest.raises(UserError, match="threshold"):
        tuned.choose_rules(RULES | {"threshold": 1.5}, CHOSEN)


def test_weights_of_members(nets):
    assert tuned.member_weights(nets, None) == [1.0]
    assert tuned.member_weights(nets, CHOSEN | {"member_weights": [0.25, 0.75]}) == [0.25, 0.75]


def test_class_probabilities_by_hand():
    log_p = np.log([[[0.8, 0.2]], [[0.5, 0.5]]])
    assert tuned.class_probability(log_p, None) == pytest.approx(np.array([[2 / 3, 1 / 3]]))
    chosen = {"member_weights": [1.0, 0.0], "temperature": 0.5, "decision_weights": None}
    sharp = np.array([[0.64, 0.04]]) / 0.68
    assert tuned.class_probability(log_p, chosen) == pytest.approx(sharp)
    weighed = tuned.class_probability(log_p, chosen | {"decision_weights": [1.0, 16.0]})
    assert weighed == pytest.approx(np.array([[0.5, 0.5]]))


def test_a_line_says_what_is_in_force():
    chosen = {"member_weights": [0.5, 1 / 3], "temperature": 1.04567, "decision_weights": None}
    assert tuned.described(chosen) == "member weights 0.5 0.333, temperature 1.05"
    assert json.loads(json.dumps(chosen))["temperature"] == 1.04567
