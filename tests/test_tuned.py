import json

import numpy as np
import pandas as pd
import pytest
from drawn_results import create_run

from evaluation import tuned
from evaluation.calibration import ClassChoice
from evaluation.mask_tuning import MaskChoice
from inference import ensemble
from inference.postprocess import PostProcessing
from inference.scope import Scope
from misc_utils.errors import UserError

FOLDS = pd.DataFrame({"image": list("abcd"), "fold": [0, 0, 1, 1]})
WORTH = {
    "tuned on other folds": pd.DataFrame(
        {"value": [0.8, 0.1], "low": [0.7, np.nan], "high": [0.9, np.nan]}, index=["dice", "error"]
    )
}
CHOSEN = MaskChoice((1.0,), PostProcessing(smoothing=2.0, threshold=0.4))
RULES = dict.fromkeys(tuned.RULES)


@pytest.fixture
def nets(tmp_path):
    for k in range(2):
        settings = {"backbone": "tiny", "version": "0", "num_folds": 2, "image_size": 32}
        run = create_run(tmp_path, 1, k, settings, FOLDS, {"data_fingerprint": "d"})
        run.weights.write_text(run.name)
    return ensemble.find_ensemble(tmp_path, 1, "tiny", "0")


def of(nets, tta=False):
    return Scope(nets, "fold", tta)


def write(nets, chosen=CHOSEN):
    tuned.write_tuned(of(nets), chosen, WORTH)
    return tuned.tuned_file(of(nets))


def test_values_come_back_as_they_went(nets):
    assert tuned.load_tuned(of(nets)) is None
    file = write(nets)
    found = tuned.load_tuned(of(nets))
    assert found.chosen == CHOSEN and found.file == file == tuned.tuned_file(of(nets))
    assert found.worth["tuned on other folds"]["error"] == {"value": 0.1, "low": None, "high": None}
    assert tuned.load_tuned(of(nets, tta=True)) is None  # eight views are tuned for themselves
    assert "NaN" not in file.read_text()


def test_the_file_is_as_it_always_was(nets):
    """What other versions of this code have tuned is read, and names of rules may be missing."""
    content = json.loads(write(nets).read_text())
    assert content["format"] == 1 and content["weights"].keys() == {run.name for run in nets.runs}
    assert content["chosen"] == {
        "member_weights": [1.0],
        "smoothing": 2.0,
        "threshold": 0.4,
        "fill_holes": True,
        "component": "largest",
    }
    content["chosen"] = {"member_weights": [1.0], "smoothing": 2.0, "threshold": 0.4}
    tuned.tuned_file(of(nets)).write_text(json.dumps(content))
    assert tuned.load_tuned(of(nets)).chosen == CHOSEN


def test_values_of_other_weights_are_refused(nets, tmp_path):
    write(nets)
    nets.runs[1].weights.write_text("trained again")
    later = ensemble.find_ensemble(tmp_path, 1, "tiny", "0")
    with pytest.raises(UserError, match=r"Tune again \(.*seg_tune\.py --backbone tiny"):
        tuned.load_tuned(of(later))


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 9, "weights": {}}', '{"format": 1}'])
def test_broken_files_are_refused(nets, text):
    nets.folder.mkdir()
    tuned.tuned_file(of(nets)).write_text(text)
    with pytest.raises(UserError, match="cannot be read as tuned values"):
        tuned.load_tuned(of(nets))


def test_an_evaluation_never_uses_them_on_the_folds_they_were_tuned_on(nets):
    write(nets)
    fold, test = of(nets), Scope(nets, "test", False)
    assert tuned.load_for_eval(fold, False) is None
    assert tuned.load_for_eval(test, True) == CHOSEN
    with pytest.raises(UserError, match="too high"):
        tuned.load_for_eval(fold, True)
    with pytest.raises(UserError, match=r"does not exist\. Tune first \(.*seg_tune\.py .* --tta\)"):
        tuned.load_for_eval(Scope(nets, "test", True), True)


def test_rules_by_flag_then_tuned_then_default():
    assert tuned.choose_rules(RULES, None) == PostProcessing()
    assert tuned.choose_rules(RULES, CHOSEN) == PostProcessing(smoothing=2.0, threshold=0.4)
    by_hand = RULES | {"threshold": 0.6, "fill_holes": False}
    assert tuned.choose_rules(by_hand, CHOSEN) == PostProcessing(2.0, 0.6, fill_holes=False)
    with pytest.raises(UserError, match="threshold"):
        tuned.choose_rules(RULES | {"threshold": 1.5}, CHOSEN)


def test_weights_of_members(nets):
    assert tuned.member_weights(nets, None) == [1.0]
    assert tuned.member_weights(nets, MaskChoice((0.25, 0.75))) == [0.25, 0.75]


@pytest.mark.parametrize("decision_weights", [None, (0.5, 2.0)])
def test_values_of_classifiers_come_back(tmp_path, decision_weights):
    settings = {"backbone": "tiny", "version": "0", "num_folds": 2, "image_size": 32}
    folds = FOLDS.assign(lesion=list("ABCD"), label=0)
    run = create_run(tmp_path, 3, 0, settings, folds, {"data_fingerprint": "d"})
    run.weights.write_text("w")
    nets = ensemble.find_ensemble(tmp_path, 3, "tiny", "0")
    chosen = ClassChoice((1.0,), 1.04567, decision_weights)
    tuned.write_tuned(of(nets), chosen, WORTH)
    stored = json.loads(tuned.tuned_file(of(nets)).read_text())["chosen"]
    assert stored.keys() == {"member_weights", "temperature", "decision_weights"}
    found = tuned.load_tuned(of(nets))
    assert found.chosen == chosen
    assert str(found).startswith("member weights 1, temperature 1.05")
    assert ("decision weights 0.5 2" in str(found)) is (decision_weights is not None)


@pytest.mark.parametrize(
    ("measure", "row", "kept"),
    [
        ("dice", (0.01, 0.001, 0.02), True),
        ("dice", (0.01, -0.001, 0.02), False),
        ("dice", (0.0, 0.0, 0.0), False),
        ("dice", (-0.01, -0.02, -0.001), False),
        ("dice", (0.01, np.nan, np.nan), False),
        ("negative_log_likelihood", (-0.01, -0.02, -0.001), True),
        ("negative_log_likelihood", (0.01, 0.001, 0.02), False),
        ("negative_log_likelihood", (-0.01, -0.02, 0.001), False),
    ],
)
def test_only_a_gain_beyond_its_interval_is_kept(measure, row, kept):
    def table(value):
        return pd.DataFrame({"value": [value]}, index=[measure])

    ways = ("not tuned", "tuned on other folds", "tuned on the same")
    worth = {name: table(k) for k, name in enumerate(ways)}
    worth["difference"] = pd.DataFrame([row], index=[measure], columns=["value", "low", "high"])
    choice, tables, said = tuned.keep_gain(worth, measure, CHOSEN, MaskChoice((1.0,)))
    values = {name: float(part["value"].iloc[0]) for name, part in tables.items()}
    if kept:
        assert choice == CHOSEN and values == {name: k for k, name in enumerate(ways)} | {
            "difference": row[0]
        }
        assert said == ""
    else:
        assert choice == MaskChoice((1.0,)) and "did not gain" in said
        assert list(values) == [
            *ways[:2],
            "tried on other folds",
            "tried on the same",
            "difference",
        ]
        assert values["tuned on other folds"] == values["not tuned"] == 0
        assert values["tried on other folds"] == 1
