import keras
import numpy as np
import pytest

from deploy.grad_cam import Head, look


def test_a_map_by_hand():
    """One feature that speaks for class 1, one against it, one that a dead unit takes."""
    head = Head(
        hidden_kernel=np.float32([[1, 0], [-1, 0], [0, -1]]),
        hidden_bias=np.float32([0, 0]),
        logits_kernel=np.float32([[0, 2], [0, 5]]),
    )
    features = np.zeros((1, 2, 2, 3), np.float32)
    features[0, 0, 0, 0], features[0, 0, 1, 0], features[0, 1, 1, 1] = 8, 4, 4
    pooled = features.mean(axis=(1, 2))  # 3, 1, 0: the first unit is active, the second is not
    assert head.gradient(pooled, np.array([1])).tolist() == [[2, -2, 0]]
    np.testing.assert_allclose(look(head, features, pooled, np.array([1])), [[[1, 0.5], [0, 0]]])
    assert not look(head, features, pooled, np.array([0])).any()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs a gradient tape")
def test_equal_to_a_gradient_tape():
    import tensorflow as tf

    keras.utils.set_random_seed(2)
    features = keras.Input((5, 5, 12))
    more = keras.Input((3,))
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(features), more])
    hidden = keras.layers.Dense(7, activation="relu", bias_initializer="random_normal")
    logits = keras.layers.Dense(4)
    model = keras.Model([features, more], logits(hidden(x)))
    head = Head(*map(np.asarray, (hidden.kernel, hidden.bias, logits.kernel)))
    random = np.random.default_rng(0)
    maps = random.normal(size=(6, 5, 5, 12)).astype(np.float32)
    given = random.normal(size=(6, 3)).astype(np.float32)
    classes = random.integers(0, 4, 6)
    with tf.GradientTape() as tape:
        watched = tf.constant(maps)
        tape.watch(watched)
        chosen = tf.gather(model([watched, tf.constant(given)]), classes, batch_dims=1)
    weight = tape.gradient(chosen, watched).numpy().sum(axis=(1, 2)) / 25
    expected = np.maximum((maps * weight[:, None, None]).sum(axis=-1), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    pooled = np.concatenate([maps.mean(axis=(1, 2)), given], axis=1)
    np.testing.assert_allclose(look(head, maps, pooled, classes), expected, atol=2e-5)
