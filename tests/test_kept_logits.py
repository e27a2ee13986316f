import numpy as np
import pandas as pd
import pytest
from drawn_results import create_run

from inference import ensemble, kept_logits
from inference.kept_logits import EnsembleLogits
from inference.prediction import Net
from inference.scope import Scope
from misc_utils.errors import UserError

FOLDS = pd.DataFrame({"image": list("abcdef"), "fold": [0, 0, 0, 1, 1, 1]})


def load_or_keep(run, images, views, image_ids, predict, data=None):
    kept = kept_logits.load_logits(run, images, views, image_ids, data)
    return kept or kept_logits.keep_logits(run, images, views, image_ids, predict, data)


def make_run(model_data, task=1, k_fold=0, backbone="tiny", folds=FOLDS):
    settings = {"backbone": backbone, "version": "0", "num_folds": 2, "image_size": 32}
    facts = {"data_fingerprint": "d"}
    run = create_run(model_data, task, k_fold, settings, folds, facts)
    run.weights.write_text(run.name)
    return run


class Predicts:
    """Batches of two; the logits of an image are its letter's number, over a small map."""

    def __init__(self, shape=(4, 4, 1)):
        self.shape, self.asked = shape, []

    def __call__(self, image_ids):
        self.asked += image_ids
        for start in range(0, len(image_ids), 2):
            batch_ids = list(image_ids[start : start + 2])
            values = np.array([ord(i) - ord("a") for i in batch_ids], np.float32) / 3
            maps = values.reshape(-1, *[1] * len(self.shape))
            yield batch_ids, np.broadcast_to(maps, (len(batch_ids), *self.shape))


def test_kept_once_read_ever_after(tmp_path):
    run, predict = make_run(tmp_path), Predicts()
    assert kept_logits.load_logits(run, "fold", 1, []) is None
    first = load_or_keep(run, "fold", 1, ["a", "b", "c"], predict)
    again = load_or_keep(run, "fold", 1, ["c", "a"], predict)
    assert predict.asked == ["a", "b", "c"]
    assert list(again) == ["a", "b", "c"] and again["b"].dtype == np.float16
    assert again["b"].shape == (4, 4, 1) and (again["b"] == np.float16(1 / 3)).all()
    assert all((first[i] == again[i]).all() for i in first)
    load_or_keep(run, "fold", 8, ["a"], predict)  # eight views are others
    load_or_keep(run, "test", 1, ["x"], predict)
    assert predict.asked == ["a", "b", "c", "a", "x"]
    names = {file.name for file in run.folder.glob("*logits*")}
    assert {
        f"{run.name}_logits_{part}" for part in ("fold.npy", "fold_tta.npy", "test.npy")
    } < names
    assert not list(run.folder.glob("partial*"))


def test_classes_are_kept_as_float32(tmp_path):
    run = make_run(tmp_path, task=3)
    kept = kept_logits.keep_logits(run, "fold", 1, ["a", "b"], Predicts((7,)))
    assert kept["b"].dtype == np.float32 and kept["b"].shape == (7,)


def test_logits_beyond_float16_stay_finite(tmp_path):
    """Infinite ones would end in NaN when an ensemble takes their mean."""

    def predict(image_ids):
        yield list(image_ids), np.array([1e6, -1e6], np.float32).reshape(2, 1, 1, 1)

    kept = kept_logits.keep_logits(make_run(tmp_path), "fold", 1, ["a", "b"], predict)
    assert [float(kept[i][0, 0, 0]) for i in "ab"] == [65504, -65504]
    blend = EnsembleLogits([[kept], [{"a": -kept["a"]}]]).blend("a", [1.0, 1.0])
    assert blend[0, 0, 0] == 0


def test_other_weights_or_other_images_are_predicted_again(tmp_path):
    run, predict = make_run(tmp_path), Predicts()
    load_or_keep(run, "fold", 1, ["a"], predict)
    load_or_keep(run, "fold", 1, ["a", "b"], predict)
    assert predict.asked == ["a", "a", "b"]
    load_or_keep(run, "test", 1, ["x"], predict, data="one")
    load_or_keep(run, "test", 1, ["x"], predict, data="one")
    assert predict.asked == ["a", "a", "b", "x"]
    load_or_keep(run, "test", 1, ["x"], predict, data="the same ids, other pictures")
    assert predict.asked == ["a", "a", "b", "x", "x"]
    run.weights.write_text("trained again")
    assert kept_logits.load_logits(run, "fold", 1, ["a"]) is None


def test_weights_that_change_meanwhile_are_noticed(tmp_path):
    run, predict = make_run(tmp_path), Predicts()

    def while_training(image_ids):
        run.weights.write_text("a better epoch")
        yield from predict(image_ids)

    with pytest.raises(UserError, match="a training is under way"):
        kept_logits.keep_logits(run, "test", 1, ["x"], while_training, "d")
    assert kept_logits.load_logits(run, "test", 1, ["x"], "d") is None


@pytest.fixture
def net_of(monkeypatch):
    """A function that stands in for loading the net of a run, once it is set."""
    stand_in = {}
    monkeypatch.setattr(kept_logits, "load_net", lambda run, images: stand_in["load"](run))
    return lambda load: stand_in.update(load=load)


def numbered(runs, asked):
    """Nets whose logits are the number of their run."""
    numbers = {run.name: number for number, run in enumerate(runs, start=1)}
    return lambda run: Net(Model(numbers[run.name], asked), Pictures())


def inputs_of(runs):
    return {run.name: Pictures() for run in runs}


def test_what_is_gathered_is_of_the_weights_that_were_looked_up(tmp_path, net_of):
    """Scores and tuned values name those; a training may have written better ones since."""
    pair = make_pair(tmp_path)
    net_of(numbered(pair.runs, []))
    to_score = ensemble.images_to_score(pair, "fold", list("abcdef"))
    pair.runs[2].weights.write_text("a better epoch")
    with pytest.raises(UserError, match=r"vgg16_k0.*a training is under way"):
        kept_logits.gather_logits(Scope(pair, "fold", False), to_score, inputs_of(pair.runs))
    again = make_pair_of(tmp_path)
    kept_logits.gather_logits(Scope(again, "fold", False), to_score, inputs=None)


@pytest.mark.parametrize("own_set", [True, False])
def test_what_is_predicted_is_of_the_weights_that_were_looked_up(tmp_path, own_set, net_of):
    pair = make_pair(tmp_path)
    assignment = ensemble.assign_runs(pair, ["a"], own_set)

    def load(run):
        run.weights.write_text("a better epoch")
        return Net(Model(1, []), Pictures())

    net_of(load)
    with pytest.raises(UserError, match="a training is under way"):
        next(kept_logits.stream_logits(of(pair), assignment, [1.0, 1.0], inputs_of(pair.runs), 2))
    assert not list(tmp_path.glob("task*/*logits*"))  # of these weights nothing was predicted


@pytest.mark.parametrize("spoil", ["cut", "mixed", "no json"])
def test_half_a_file_is_no_file(tmp_path, spoil):
    run = make_run(tmp_path)
    kept_logits.keep_logits(run, "fold", 1, ["a", "b"], Predicts())
    array, record = (run.file(f"logits_fold.{ending}") for ending in ("npy", "json"))
    if spoil == "cut":
        array.write_bytes(array.read_bytes()[:100])
    elif spoil == "mixed":
        record.write_text(record.read_text().replace('["a", "b"]', '["a"]'))
    else:
        record.write_text("{")
    assert kept_logits.load_logits(run, "fold", 1, ["a"]) is None


def of(pair):
    return Scope(pair, "fold", False)


def make_pair(model_data):
    for backbone in ("tiny", "vgg16"):
        for k in range(2):
            make_run(model_data, k_fold=k, backbone=backbone)
    return make_pair_of(model_data)


def make_pair_of(model_data):
    return ensemble.find_ensemble(model_data, 1, "tiny", "0", ["vgg16:0"])


def test_gathered_logits_are_those_each_fold_held_out(tmp_path, net_of):
    pair, asked = make_pair(tmp_path), []
    net_of(numbered(pair.runs, asked))
    to_score = ensemble.images_to_score(pair, "fold", list("abcdef"))
    scope, inputs = Scope(pair, "fold", False), inputs_of(pair.runs)
    gathered = kept_logits.gather_logits(scope, to_score, inputs, batch_size=3)
    assert [[list(logits) for logits in member] for member in gathered.members] == [
        [["a", "b", "c"], ["d", "e", "f"]]
    ] * 2
    assert asked == [1, 2, 3, 4]
    again = kept_logits.gather_logits(scope, to_score, inputs=None)
    assert (again.members[1][1]["f"] == gathered.members[1][1]["f"]).all() and len(asked) == 4
    with pytest.raises(UserError, match=r"seg_eval\.py --backbone tiny .*--tta --k-fold all"):
        kept_logits.gather_logits(Scope(pair, "fold", True), to_score, inputs=None)


def test_of_another_set_every_fold_predicts_every_image(tmp_path, net_of):
    pair, asked = make_pair(tmp_path), []
    net_of(numbered(pair.runs, asked))
    scope, inputs = Scope(pair, "test", False), inputs_of(pair.runs)
    to_score = ensemble.images_to_score(pair, "test", ["x", "y"])
    gathered = kept_logits.gather_logits(scope, to_score, inputs, batch_size=2)
    assert gathered.blend("y", [1.0, 3.0])[0, 0, 0] == (1.5 + 3 * 3.5) / 4
    inputs = inputs_of(pair.runs)
    for pictures in inputs.values():
        pictures.fingerprint = "the same ids, other pictures"
    kept_logits.gather_logits(scope, to_score, inputs, batch_size=2)
    assert asked == [1, 2, 3, 4] * 2


def test_blending_by_hand():
    first, second = {"a": np.full((2, 2, 1), 1.0)}, {"a": np.full((2, 2, 1), 4.0)}
    other = {"b": np.zeros((2, 2, 1))}
    blend = EnsembleLogits([[first, other], [second]]).blend("a", [2.0, 1.0])
    assert blend == pytest.approx(np.full((2, 2, 1), 2.0)) and blend.dtype == np.float32
    both = EnsembleLogits([[first, second]]).blend("a", [1.0])  # a set no fold trained on
    assert both == pytest.approx(np.full((2, 2, 1), 2.5))
    rows = EnsembleLogits([[{"a": np.arange(3.0)}], [{"a": np.ones(3)}]]).stack(["a"])
    assert rows.tolist() == [[[0, 1, 2]], [[1, 1, 1]]]


class Model:
    """Logits are the number of the net, whatever it is shown."""

    def __init__(self, number, asked):
        self.number, self.asked = number, asked

    def predict_on_batch(self, batch):
        self.asked.append(self.number)
        return np.full((len(batch), 2, 2, 1), float(self.number))


class Pictures:
    array = np.zeros((8, 2, 2, 3), np.uint8)
    fingerprint = "d"

    def rows(self, image_ids):
        return np.array(["abcdefxy".index(i) for i in image_ids])


def test_streaming_reads_what_was_held_out_and_predicts_the_rest(tmp_path, net_of):
    pair, asked = make_pair(tmp_path), []
    net_of(numbered(pair.runs, asked))

    def stream(own_set):
        assignment = ensemble.assign_runs(pair, list("adx"), own_set)
        batches = kept_logits.stream_logits(
            of(pair), assignment, [1.0, 3.0], inputs_of(pair.runs), 2
        )
        return {
            image_id: float(row[0, 0, 0])
            for image_ids, rows in batches
            for image_id, row in zip(image_ids, rows, strict=True)
        }

    expected = {"a": (1 + 3 * 3) / 4, "d": (2 + 3 * 4) / 4, "x": (1.5 + 3 * 3.5) / 4}
    assert stream(own_set=False) == pytest.approx(expected)
    assert not list(tmp_path.glob("*/*logits*"))
    assert stream(own_set=True) == pytest.approx(expected)
    asked.clear()
    assert stream(own_set=True) == pytest.approx(expected)
    assert sorted(asked) == [1, 2, 3, 4]  # x alone, which nothing held out
