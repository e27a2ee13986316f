import numpy as np
import pandas as pd
import pytest
from drawn_results import create_run

from inference import ensemble, kept_logits
from inference.prediction import Net
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
            some = list(image_ids[start : start + 2])
            values = np.array([ord(i) - ord("a") for i in some], np.float32) / 3
            yield (
                some,
                np.broadcast_to(
                    values.reshape(-1, *[1] * len(self.shape)), (len(some), *self.shape)
                ),
            )


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


def test_other_weights_or_other_images_are_predicted_anew(tmp_path):
    run, predict = make_run(tmp_path), Predicts()
    load_or_keep(run, "fold", 1, ["a"], predict)
    load_or_keep(run, "fold", 1, ["a", "b"], predict)
    assert predict.asked == ["a", "a", "b"]
    load_or_keep(run, "test", 1, ["x"], predict, data="one")
    load_or_keep(run, "test", 1, ["x"], predict, data="one")
    assert predict.asked == ["a", "a", "b", "x"]
    load_or_keep(run, "test", 1, ["x"], predict, data="the same ids, other pictures")
    assert predict.asked == ["a", "a", "b", "x", "x"]
    run.weights.write_text("trained anew")
    assert kept_logits.load_logits(run, "fold", 1, ["a"]) is None


def test_weights_that_change_meanwhile_are_noticed(tmp_path):
    run, predict = make_run(tmp_path), Predicts()

    def while_training(image_ids):
        run.weights.write_text("a better epoch")
        yield from predict(image_ids)

    with pytest.raises(UserError, match="a training is under way"):
        kept_logits.keep_logits(run, "test", 1, ["x"], while_training, "d")
    assert kept_logits.load_logits(run, "test", 1, ["x"], "d") is None


def test_what_is_gathered_is_of_the_weights_that_were_looked_up(tmp_path):
    """Scores and tuned values name those; a training may have written better ones since."""
    nets, predict = make_pair(tmp_path), Predicts()
    parts = ensemble.images_to_score(nets, "fold", list("abcdef"))
    nets.runs[2].weights.write_text("a better epoch")
    with pytest.raises(UserError, match=r"vgg16_k0.*a training is under way"):
        kept_logits.gather_logits(nets, "fold", 1, parts, lambda run, ids: predict(ids))
    again = make_pair_of(tmp_path)
    kept_logits.gather_logits(again, "fold", 1, parts, predict=None)


@pytest.mark.parametrize("own_set", [True, False])
def test_what_is_predicted_is_of_the_weights_that_were_looked_up(tmp_path, own_set):
    nets = make_pair(tmp_path)
    groups, _ = ensemble.assign_runs(nets, ["a"])

    def net_of(run):
        run.weights.write_text("a better epoch")
        return Net(Model(1, []), Pictures())

    with pytest.raises(UserError, match="a training is under way"):
        next(kept_logits.stream_logits(nets, groups, [1.0, 1.0], 1, own_set, net_of, 2))
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


def make_pair(model_data):
    for backbone in ("tiny", "vgg16"):
        for k in range(2):
            make_run(model_data, k_fold=k, backbone=backbone)
    return make_pair_of(model_data)


def make_pair_of(model_data):
    return ensemble.find_ensemble(model_data, 1, "tiny", "0", ["vgg16:0"])


def test_gathered_logits_are_those_each_fold_held_out(tmp_path):
    nets, predict = make_pair(tmp_path), Predicts()
    parts = ensemble.images_to_score(nets, "fold", list("abcdef"))
    gathered = kept_logits.gather_logits(nets, "fold", 1, parts, lambda run, ids: predict(ids))
    assert [[list(logits) for logits in member] for member in gathered] == [
        [["a", "b", "c"], ["d", "e", "f"]]
    ] * 2
    assert len(predict.asked) == 12
    again = kept_logits.gather_logits(nets, "fold", 1, parts, predict=None)
    assert (again[1][1]["f"] == gathered[1][1]["f"]).all()
    with pytest.raises(UserError, match=r"seg_eval\.py --backbone tiny .*--k-fold 0 --tta"):
        kept_logits.gather_logits(nets, "fold", 8, parts, predict=None)


def test_blending_by_hand():
    first, second = {"a": np.full((2, 2, 1), 1.0)}, {"a": np.full((2, 2, 1), 4.0)}
    other = {"b": np.zeros((2, 2, 1))}
    blend = kept_logits.blend_logits([[first, other], [second]], [2.0, 1.0], "a")
    assert blend == pytest.approx(np.full((2, 2, 1), 2.0)) and blend.dtype == np.float32
    both = kept_logits.blend_logits([[first, second]], [1.0], "a")  # a set no fold trained on
    assert both == pytest.approx(np.full((2, 2, 1), 2.5))
    rows = kept_logits.stack_logits([[{"a": np.arange(3.0)}], [{"a": np.ones(3)}]], ["a"])
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

    def rows(self, image_ids):
        return np.array(["abcdefxy".index(i) for i in image_ids])


def test_streaming_reads_what_was_held_out_and_predicts_the_rest(tmp_path):
    nets, asked = make_pair(tmp_path), []
    numbers = {run.name: number for number, run in enumerate(nets.runs, start=1)}

    def net_of(run):
        return Net(Model(numbers[run.name], asked), Pictures())

    def stream(own_set):
        got = kept_logits.stream_logits(nets, groups, [1.0, 3.0], 1, own_set, net_of, 2)
        return {
            i: float(row[0, 0, 0]) for ids, rows in got for i, row in zip(ids, rows, strict=True)
        }

    groups, _ = ensemble.assign_runs(nets, list("adx"))
    expected = {"a": (1 + 3 * 3) / 4, "d": (2 + 3 * 4) / 4, "x": (1.5 + 3 * 3.5) / 4}
    assert stream(own_set=False) == pytest.approx(expected)
    assert not list(tmp_path.glob("*/*logits*"))
    assert stream(own_set=True) == pytest.approx(expected)
    asked.clear()
    assert stream(own_set=True) == pytest.approx(expected)
    assert sorted(asked) == [1, 2, 3, 4]  # x alone, which nothing held out
