from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from inference import prediction
from models.trained import logits_of

IMAGES = np.random.default_rng(0).integers(0, 255, (7, 6, 6, 3), dtype=np.uint8)
IDS = tuple("abcdefg")


class Pictures:
    """Stands in for a cache: one picture per letter."""

    def __init__(self, array=IMAGES, image_ids=IDS):
        self.array, self.image_ids = array, image_ids

    def rows(self, image_ids):
        return np.array([self.image_ids.index(image_id) for image_id in image_ids])


class Scaled:
    """Stands in for a net: logits are the red channel (a map) times a factor, row for row."""

    def __init__(self, factor):
        self.factor, self.batches = factor, []

    def predict_on_batch(self, batch):
        self.batches.append(len(batch))
        return batch[..., :1].astype(np.float32) * self.factor


class Classes:
    """Stands in for a classifier of two classes: sees the mean of the top left corner."""

    def __init__(self, factor):
        self.factor = factor

    def predict_on_batch(self, batch):
        corner = batch[:, :2, :2].mean(axis=(1, 2, 3)) * self.factor
        return np.stack([corner, np.ones_like(corner)], axis=1)


def predict(nets, image_ids, batch_size, views):
    got = list(prediction.predict_logits(nets, image_ids, batch_size, views))
    return [ids for ids, _ in got], np.concatenate([values for _, values in got])


def test_maps_are_averaged_over_nets_and_turned_back():
    scaled = [Scaled(1.0), Scaled(3.0)]
    for views in (1, 8):
        nets = [prediction.Net(net, Pictures()) for net in scaled]
        ids, logits = predict(nets, ["f", "a", "d"], 2, views)
        assert ids == [["f", "a"], ["d"]]
        assert logits.dtype == np.float32
        assert logits == pytest.approx(2.0 * IMAGES[[5, 0, 3], ..., :1])
    assert set(scaled[0].batches) == {2}  # the last batch is filled up: one shape, one compilation


@pytest.mark.parametrize(
    ("number", "sizes"), [(1, [1]), (4, [4]), (5, [3, 3]), (6, [3, 3]), (7, [4, 4])]
)
def test_batches_are_alike_and_hardly_filled_up(number, sizes):
    net = Scaled(1.0)
    ids, _ = predict([prediction.Net(net, Pictures())], IDS[:number], 4, 1)
    assert net.batches == sizes and sum(map(len, ids)) == number


def test_batches_stay_the_same_without_what_is_done():
    """A net may give other last bits for an image in other company."""

    class Remembers(Scaled):
        def predict_on_batch(self, batch):
            seen.append(np.array(batch))
            return super().predict_on_batch(batch)

    seen = []
    net = prediction.Net(Remembers(1.0), Pictures())
    _, whole = predict([net], IDS[:7], 3, 1)
    batches, seen = seen, []
    got = list(prediction.predict_logits([net], IDS[:7], 3, 1, done={*IDS[:4], IDS[5]}))
    assert [ids for ids, _ in got] == [[IDS[4]], [IDS[6]]]
    assert (np.concatenate([logits for _, logits in got]) == whole[[4, 6]]).all()
    assert len(batches) == 3 and len(seen) == 2
    assert all((one == other).all() for one, other in zip(seen, batches[1:], strict=True))


def test_each_net_takes_its_own_pictures_and_weighs_as_asked():
    turned = Pictures(IMAGES[::-1], IDS[::-1])  # the same pictures in other rows
    nets = [
        prediction.Net(Scaled(1.0), Pictures(), weight=3.0),
        prediction.Net(Scaled(5.0), turned, weight=1.0),
    ]
    _, logits = predict(nets, ["g", "b"], 4, 1)
    assert logits == pytest.approx(2.0 * IMAGES[[6, 1], ..., :1])  # (3 * 1 + 1 * 5) / 4


def test_maps_of_two_sizes_meet_at_the_larger():
    flat = np.full((1, 6, 6, 3), 8, np.uint8)
    large = np.full((1, 12, 12, 3), 4, np.uint8)
    nets = [prediction.Net(Scaled(1.0), Pictures(part, ("a",))) for part in (flat, large)]
    _, logits = predict(nets, ["a"], 1, 1)
    assert logits.shape == (1, 12, 12, 1) and logits == pytest.approx(6.0)


def test_classes_are_averaged_as_log_probabilities():
    models = [Classes(0.01), Classes(0.02)]
    nets = [prediction.Net(model, Pictures()) for model in models]
    each = [log_softmax(model.predict_on_batch(IMAGES), axis=1) for model in models]
    assert predict(nets, IDS, 4, 1)[1] == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    turned = [
        np.rot90(flipped, k, (1, 2)) for k in range(4) for flipped in (IMAGES, IMAGES[:, ::-1])
    ]
    each = [
        log_softmax(model.predict_on_batch(view), axis=1) for model in models for view in turned
    ]
    assert predict(nets, IDS, 4, 8)[1] == pytest.approx(np.mean(each, axis=0), abs=1e-5)


def test_nets_end_at_their_logits():
    image = keras.Input((4, 4, 3))
    logits = keras.layers.Dense(1, name="logits")(image)
    model = keras.Model(image, keras.layers.Activation("sigmoid", name="probability")(logits))
    values = logits_of(model).predict_on_batch(np.ones((1, 4, 4, 3)))
    probability = np.asarray(model.predict_on_batch(np.ones((1, 4, 4, 3))))
    assert 1 / (1 + np.exp(-np.asarray(values))) == pytest.approx(probability, abs=1e-6)


def test_maps_of_several_channels_are_resized_each_by_itself():
    """Channel 0 of a smaller map would else be taken for all of them."""
    levels = np.arange(5, dtype=np.float32)
    small, large = (np.broadcast_to(levels, (1, size, size, 5)) for size in (4, 8))
    mean = prediction.mean_logits([small, 3 * large], [1.0, 1.0])
    assert mean.shape == (1, 8, 8, 5)
    np.testing.assert_allclose(mean, np.broadcast_to(2 * levels, mean.shape))
    ramp = np.random.default_rng(0).normal(size=(2, 4, 4, 5)).astype(np.float32)
    both = prediction.mean_logits([ramp, np.zeros((2, 8, 8, 5), np.float32)], [1.0, 1.0])
    for k in range(5):
        one = [ramp[..., k : k + 1], np.zeros((2, 8, 8, 1), np.float32)]
        np.testing.assert_array_equal(both[..., k : k + 1], prediction.mean_logits(one, [1.0, 1.0]))


def test_the_first_batch_is_predicted_at_once():
    def batches():
        seen.append("first")
        yield 1
        yield 2

    seen = []
    begun = prediction.begun(batches())
    assert seen == ["first"] and list(begun) == [1, 2]
    assert list(prediction.begun(iter([]))) == []


def test_an_error_names_the_image_it_came_up_with():
    def work(image_id, logits):
        if image_id == "b":
            raise RuntimeError("of some library")
        return image_id

    done = []
    with ThreadPoolExecutor() as threads, pytest.raises(RuntimeError) as told:
        for one in prediction.work_behind(threads, work, [(["a", "b"], np.zeros((2, 1)))], 4):
            done.append(one)
    assert done == ["a"] and told.value.__notes__ == ["image: b"]
