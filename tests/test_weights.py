import h5py
import keras
import numpy as np
import pytest

from misc_utils.errors import UserError
from models import weights
from models.classifier import build_classifier
from models.unet import build_segmenter
from models.weights import load_weights, save_weights


def small(filters=3, extra=False, name="small"):
    x = image = keras.Input((4, 4, 2), name="image")
    x = keras.layers.Conv2D(filters, 3)(x)  # automatic names on purpose
    x = keras.layers.BatchNormalization()(x)
    if extra:
        x = keras.layers.Conv2D(filters, 1)(x)
    return keras.Model(image, keras.layers.Flatten()(x), name=name)


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(-1, 1, value.shape) for value in model.get_weights()])
    return model


def assert_same(one, other):
    assert len(one.get_weights()) == len(other.get_weights()) > 0
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def datasets_of(file):
    names = []
    file.visit(lambda n: names.append(n) if isinstance(file[n], h5py.Dataset) else None)
    return names


def datasets(path):
    with h5py.File(path) as file:
        return datasets_of(file)


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    save_weights(model, path)
    again = randomise(small(), seed=1)
    load_weights(again, path)
    assert_same(again, model)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written is left


def test_keras_itself_reads_the_file(tmp_path):
    model = randomise(small())
    save_weights(model, tmp_path / "run.weights.h5")
    again = randomise(small(), seed=1)
    again.load_weights(tmp_path / "run.weights.h5")
    assert_same(again, model)


def test_the_optimiser_of_a_compiled_model_stays_out(tmp_path):
    model = randomise(small())
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 4, 4, 2)), np.ones((2, 12)), verbose=0)
    model.save_weights(tmp_path / "keras.weights.h5")
    assert any("optimizer" in name for name in datasets(tmp_path / "keras.weights.h5"))
    path = tmp_path / "run.weights.h5"
    save_weights(model, path)
    # convolution 2, batch normalisation 4
    assert len(datasets(path)) == 6
    assert not any("optimizer" in name for name in datasets(path))
    assert model.optimizer is not None
    again = randomise(small(), seed=1)
    again.compile("adam", "mse")
    again.fit(np.ones((2, 4, 4, 2)), np.ones((2, 12)), verbose=0)
    load_weights(again, path)
    assert_same(again, model)


def test_a_file_of_a_later_build_fits_an_earlier_and_a_fresh_one(tmp_path):
    path = tmp_path / "run.weights.h5"
    first, later = small(), randomise(small())
    assert first.layers[1].name != later.layers[1].name
    save_weights(later, path)
    load_weights(first, path)
    assert_same(first, later)
    keras.utils.clear_session()  # counters of names as in a new process
    fresh = small()
    assert fresh.layers[1].name == "conv2d"
    load_weights(fresh, path)
    assert_same(fresh, later)


def test_saving_replaces_in_one_step_and_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    save_weights(model, path)
    before = path.read_bytes()

    def fail(self, partial, **arguments):
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(keras.Model, "save_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(randomise(model, seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_loading_writes_nothing_to_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "run.weights.h5"
    save_weights(small(extra=True), path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(weights, "take_room", None)
    load_weights(small(extra=True), path)
    with pytest.raises(UserError, match="2 tensors extra"):
        load_weights(small(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_tensor_is_refused_before_another_is_set(tmp_path):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    before = model.get_weights()
    save_weights(randomise(small(), seed=1), path)
    with h5py.File(path, "r+") as file:
        last = datasets_of(file)[-1]
        shape = file[last].shape
        del file[last]
        file[last] = np.full(shape, b"text")
    with pytest.raises(UserError, match=r"run\.weights\.h5: cannot be read"):
        load_weights(model, path)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backbone", ["mobilenet_v3", "convnext_tiny"])  # nested blocks
def test_every_weight_of_a_nested_net_comes_back(tmp_path, backbone):
    path = tmp_path / "run.weights.h5"
    keras.utils.set_random_seed(0)
    model = build_classifier(backbone, image_size=32, weights="none", dropout=0.5)
    save_weights(model, path)
    again = build_classifier(backbone, image_size=32, weights="none", dropout=0.5)
    load_weights(again, path)
    assert len(again.weights) == len(datasets(path))
    assert_same(again, model)


def test_another_ending_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.weights\.h5"):
        save_weights(small(), tmp_path / "run.hdf5")


def test_missing_extra_and_misshapen_tensors_are_named_and_nothing_is_set(tmp_path):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    before = model.get_weights()

    save_weights(randomise(small(extra=True), seed=1), path)
    with pytest.raises(UserError, match=r"run\.weights\.h5.*small.*2 tensors extra .*conv2d_1"):
        load_weights(model, path)
    save_weights(randomise(small(filters=5), seed=1), path)
    with pytest.raises(UserError, match=r"of another shape .*\(5,\), not \(3,\)"):
        load_weights(model, path)
    bigger = randomise(small(extra=True, name="bigger"), seed=2)
    save_weights(randomise(small(), seed=1), path)
    with pytest.raises(UserError, match=r"bigger.*2 tensors missing .*conv2d_1/vars/0"):
        load_weights(bigger, path)

    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_without_tensors_is_refused(tmp_path):
    path = tmp_path / "run.weights.h5"
    h5py.File(path, "w").close()
    with pytest.raises(UserError, match="6 tensors missing"):
        load_weights(small(), path)


def test_a_weight_that_keras_skips_is_noticed(tmp_path, monkeypatch):
    """It skips the layers of a nested list without an error where the file has none of them."""
    path = tmp_path / "run.weights.h5"
    save_weights(small(), path)
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, path: None)
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(small(), path)


def test_keras_alone_would_take_a_file_with_an_extra_layer(tmp_path):
    """The reason for our own check: if this fails one day, Keras has become strict."""
    save_weights(randomise(small(extra=True)), tmp_path / "run.weights.h5")
    small().load_weights(tmp_path / "run.weights.h5")


def test_a_segmenter_is_not_taken_for_a_classifier(tmp_path):
    path = tmp_path / "run.weights.h5"
    save_weights(build_segmenter("tiny", image_size=64, weights="none"), path)
    with pytest.raises(UserError, match="not the weights of tiny_classifier"):
        load_weights(build_classifier("tiny", image_size=64, weights="none"), path)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    with pytest.raises(UserError, match=r"run\.weights\.h5: no such weight file"):
        load_weights(model, path)
    save_weights(model, path)
    whole = path.read_bytes()
    for content in (b"", b"not HDF5 at all", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"run\.weights\.h5: cannot be read"):
            load_weights(model, path)


def test_float16_fills_float32_variables(tmp_path):
    path = tmp_path / "run.weights.h5"
    model = randomise(small())
    save_weights(model, path)
    with h5py.File(path, "r+") as file:
        for name in datasets_of(file):
            value = file[name][()].astype(np.float16)
            del file[name]
            file[name] = value
    again = randomise(small(), seed=1)
    load_weights(again, path)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b.astype(np.float16).astype(np.float32))
