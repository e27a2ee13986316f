import keras
import numpy as np
import pytest

from datasets.batches import Batches

IMAGES = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 3), dtype=np.uint8)
MASKS = (IMAGES[..., :1] > 127).astype(np.uint8)
LABELS = np.eye(7, dtype=np.float32)[np.arange(50) % 7]


def training(**options):
    options = {"batch_size": 8, "training": True, "seed": 1} | options
    return Batches(IMAGES, MASKS, np.arange(10, 40), **options)


def row_of(image):
    return int(np.flatnonzero((IMAGES == image).all(axis=(1, 2, 3)))[0])


def test_held_out_rows_come_once_and_in_order():
    batches = Batches(IMAGES, LABELS, np.arange(5, 25), 8)
    assert [len(batches[k][0]) for k in range(len(batches))] == [8, 8, 4]
    rows = [row_of(image) for k in range(3) for image in batches[k][0]]
    assert rows == list(range(5, 25))
    targets = np.concatenate([batches[k][1] for k in range(3)])
    assert targets.dtype == np.float32 and (targets == LABELS[5:25]).all()


def test_training_takes_full_batches_of_rows_shuffled_again():
    batches, seen = training(), []
    assert len(batches) == 3
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen.append([row_of(image) for k in range(3) for image in batches[k][0]])
        assert len(set(seen[-1])) == 24 and set(seen[-1]) <= set(range(10, 40))
    assert set(seen[0]) != set(seen[1])


def test_fewer_rows_than_a_batch_still_train():
    batches = Batches(IMAGES, MASKS, np.arange(3), 8, training=True)
    assert len(batches) == 1 and len(batches[0][0]) == 3


@pytest.mark.parametrize("augmentation", ["none", "affine"])
def test_targets_stay_with_their_images(augmentation):
    batches = training(augmentation=augmentation)
    for k in range(3):
        images, masks = batches[k]
        assert images.dtype == np.uint8 and masks.dtype == np.float32
        if augmentation == "none":
            assert (masks == (images[..., :1] > 127)).all()
        else:
            assert set(np.unique(masks)) <= {0, 1}


def test_a_batch_depends_on_seed_epoch_and_index_alone():
    one, two = training(augmentation="affine"), training(augmentation="affine")
    one.set_epoch(3)
    two.set_epoch(3)
    _ = two[2], two[0]  # the order of asking does not matter
    for k in range(3):
        assert (one[k][0] == two[k][0]).all() and (one[k][1] == two[k][1]).all()
    other = training(augmentation="affine", seed=2)
    other.set_epoch(3)
    assert (one[0][0] != other[0][0]).any()
    before = one[0][0]
    one.set_epoch(4)
    assert (before != one[0][0]).any()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data feeds no other")
def test_tensorflow_does_not_tune_the_feed(monkeypatch):
    """Its tuner sleeps for up to a minute, and the end of `fit` waits for it."""
    import tensorflow as tf

    tuned, prefetch = [], tf.data.Dataset.prefetch
    monkeypatch.setattr(
        tf.data.Dataset, "prefetch", lambda *given: tuned.append(given) or prefetch(*given)
    )
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.compile("sgd", "mse")
    targets = np.zeros((8, 192), np.float32)
    model.fit(Batches(IMAGES[:8], targets, np.arange(8), 4, training=True), verbose=0)
    assert not tuned


def test_the_memory_map_is_not_written_to():
    images, masks = IMAGES.copy(), MASKS.copy()
    images.flags.writeable = masks.flags.writeable = False
    _ = Batches(images, masks, np.arange(8), 8, training=True, augmentation="affine")[0]


def test_fit_sees_each_epochs_own_batches_in_order():
    """With a learning rate of zero, the losses of the steps tell which batches came."""
    from training.fit import set_epoch

    batches = Batches(IMAGES, LABELS, np.arange(30), 5, training=True, seed=1, workers=3)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(7, "softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    found, expected, all_losses = [], [], []

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(float(logs["loss"]))  # the mean since the epoch began

    callbacks = [set_epoch(batches), Note()]
    model.fit(batches, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    for epoch in range(3):
        losses = [float(model.test_on_batch(*batches.make(epoch, i))) for i in range(6)]
        expected += [np.mean(losses[: i + 1]) for i in range(6)]
        all_losses += losses
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(np.unique(np.round(all_losses, 5))) == 18


def test_batches_are_made_ahead_and_not_of_another_epoch():
    made = []

    class Spy(Batches):
        def make(self, epoch, index):
            made.append((epoch, index))
            return super().make(epoch, index)

    batches = Spy(IMAGES, MASKS, np.arange(48), 4, training=True, workers=2)
    first = batches[0]
    batches._threads.shutdown()  # what was asked for is made
    assert sorted(made) == [(0, index) for index in range(8)]
    batches = Spy(IMAGES, MASKS, np.arange(48), 4, training=True, workers=2)
    _ = batches[0], batches[1]
    batches.set_epoch(1)
    assert (batches[0][0] != first[0]).any()


def test_images_of_a_batch_are_mixed_while_training_only():
    options = {"training": True, "seed": 3, "mix": "mixup"}
    batches = Batches(IMAGES, LABELS, np.arange(16), 8, **options)
    images, targets = batches[0]
    again = Batches(IMAGES, LABELS, np.arange(16), 8, **options)[0]
    assert (images == again[0]).all() and (targets == again[1]).all()
    plain = Batches(IMAGES, LABELS, np.arange(16), 8, training=True, seed=3)[0]
    assert (images != plain[0]).any() and targets.sum(axis=1) == pytest.approx(1)
    assert ((targets > 0.01) & (targets < 0.99)).any()
    held_out = Batches(IMAGES, LABELS, np.arange(16), 8, mix="mixup")[0]
    assert (held_out[0] == IMAGES[:8]).all() and (held_out[1] == LABELS[:8]).all()


def test_metadata_and_weights_are_mixed_as_labels_are(monkeypatch):
    monkeypatch.setattr("datasets.batches.leave_out", lambda values, random: values)
    metadata = np.arange(2 * len(LABELS), dtype=np.float32).reshape(len(LABELS), 2) + 1
    metadata = np.concatenate([LABELS, metadata], axis=1)  # the label once more
    class_weights = np.linspace(0.5, 2, LABELS.shape[1])
    for mix in ("mixup", "cutmix"):
        options = {"training": True, "seed": 3, "mix": mix, "class_weights": class_weights}
        batches = Batches(IMAGES, LABELS, np.arange(16), 16, metadata=metadata, **options)
        (_, known), targets, weights = batches[0]
        assert ((targets > 0.01) & (targets < 0.99)).any() and known.dtype == np.float32
        np.testing.assert_allclose(known[:, : LABELS.shape[1]], targets, atol=1e-6)
        np.testing.assert_allclose(weights, targets @ class_weights, rtol=1e-6)
    plain = Batches(IMAGES, LABELS, np.arange(16), 8, training=True, class_weights=class_weights)
    _, targets, weights = plain[0]
    assert (weights == np.float32(class_weights)[targets.argmax(axis=1)]).all()


def test_an_epoch_draws_rows_by_their_chances_again_and_again():
    rows, chances = np.arange(10, 26), np.full(16, 0.5 / 15)
    chances[3] = 0.5
    options = {"training": True, "seed": 2, "chances": chances}
    batches = Batches(IMAGES, LABELS, rows, 8, **options)
    counts = np.zeros(len(IMAGES))
    for epoch in range(20):
        batches.set_epoch(epoch)
        for k in range(2):
            images, labels = batches[k]
            for image, label in zip(images, labels, strict=True):
                row = row_of(image)
                counts[row] += 1
                assert (label == LABELS[row]).all()
    assert counts.sum() == 320 and 130 < counts[13] < 190  # 160 are expected
    assert (counts[10:26] > 0).sum() > 10
    assert not counts[:10].any() and not counts[26:].any()
    again = Batches(IMAGES, LABELS, rows, 8, **options)
    assert (again[1][0] == Batches(IMAGES, LABELS, rows, 8, **options)[1][0]).all()
