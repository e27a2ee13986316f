import cls_eval
import cls_train
import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from models.classifier import build_classifier
from training.frozen import features_of, head_of


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_classifier("tiny", image_size=32, weights="none", num_metadata=3)


def test_head_of_features_is_the_whole_net(model, tmp_path):
    """And what is learnt by the head is learnt by the net, whose encoder stays as it is."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 32, 32, 3), np.uint8)  # more than a batch
    metadata = random.random((40, 3), np.float32)
    features = features_of(model, images, tmp_path, "tiny_32")
    assert features.shape == (40, 64) and features.dtype == np.float32
    head = head_of(model)

    def same():
        whole = model.predict_on_batch((images, metadata))
        np.testing.assert_allclose(head.predict_on_batch((features, metadata)), whole, atol=1e-5)
        return whole

    before = same()
    encoder = [v.numpy() for v in model.variables if v.path not in {h.path for h in head.variables}]
    head.compile(keras.optimizers.Adam(0.1), "categorical_crossentropy")
    head.train_on_batch(
        (features, metadata), np.eye(7, dtype=np.float32)[random.integers(0, 7, 40)]
    )
    assert np.abs(same() - before).max() > 0.01
    after = [v.numpy() for v in model.variables if v.path not in {h.path for h in head.variables}]
    assert len(encoder) > 5
    for one, other in zip(encoder, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_are_kept_for_what_they_depend_on(model, tmp_path, monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    first = features_of(model, images, tmp_path, "a").copy()
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    assert (features_of(model, images, tmp_path, "a") == first).all()
    assert file.stat().st_mtime_ns == stamp and len(list(tmp_path.iterdir())) == 1
    images[4, 31, 31, 2] ^= 1
    features_of(model, images, tmp_path, "a")
    assert len(list(tmp_path.iterdir())) == 2
    variable = next(v for v in model.trainable_variables if v.path.endswith("kernel"))
    variable.assign(variable.numpy() + 0.5)
    features_of(model, images, tmp_path, "a")
    assert len(list(tmp_path.iterdir())) == 3


FLAGS = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--num-folds", 2)
FLAGS = (*FLAGS, "--lesion-view", "whole", "--epochs", 2, "--batch-size", 8, "--freeze")


def test_a_run_with_a_frozen_encoder_is_a_run(root, run_script, eagerly, blank_charts):
    code, _, err = run_script(cls_train, *FLAGS)
    assert code == 1 and "Add --augmentation none --mix none" in err
    code, _, err = run_script(cls_train, *FLAGS, "--augmentation", "none")
    assert code == 0, err
    assert len(list((root / "model_data" / "features").iterdir())) == 1  # of both folds
    files = [root / f"model_data/task3_tiny_k{k}_v0/task3_tiny_k{k}_v0.weights.h5" for k in (0, 1)]
    with h5py.File(files[0]) as one, h5py.File(files[1]) as other:
        layers = one["layers"]
        same = {
            name: all(
                (layers[name]["vars"][v][()] == other["layers"][name]["vars"][v][()]).all()
                for v in layers[name]["vars"]
            )
            for name in layers
            if len(layers[name]["vars"])
        }
    assert {name for name, equal in same.items() if not equal} == {
        "dense",
        "dense_1",
    }  # fc1, logits
    assert len(same) > 5
    code, out, err = run_script(cls_eval, "--backbone", "tiny")
    assert code == 0, err
    history = pd.read_csv(files[0].parent / "task3_tiny_k0_v0.csv")
    best = history.loc[history["val_loss"].idxmin(), "val_accuracy"]
    assert f"accuracy: {best:.3f}" in out
