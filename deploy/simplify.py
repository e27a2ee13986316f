"""A Keras net as another that computes the same, of layers that the converters know.

Enters: a functional Keras model in float32. Leaves: one with the same inputs, outputs and weights,
for onnx_file.py and litert_file.py; their tensors as float16.
"""

import inspect
from collections.abc import Callable

import numpy as np

LEAST = 256  # numbers of a tensor that is stored as float16; of smaller ones nothing would be saved


def simplified(model):
    """The same net with the same weights, of nothing but what the converters know.

    It has been called, as the exporter asks of a model that was cut out of another.
    """
    import keras

    simple = keras.models.clone_model(model, clone_function=_replaced, call_function=_call)
    simple([np.zeros((1, *entry.shape[1:]), entry.dtype) for entry in simple.inputs])
    return simple


def _call(operation, *args, **kwargs):
    """Call an operation as the exporter can follow it.

    Arrays take the place of tensors, which would become inputs. That nobody trains is said to each
    layer: `Resizing`, where it is not told, says to all behind it that somebody does.
    """
    import keras

    def plain(part):
        symbolic = isinstance(part, keras.KerasTensor) or not keras.ops.is_tensor(part)
        return part if symbolic else np.asarray(part)

    args, kwargs = keras.tree.map_structure(plain, (args, kwargs))
    if "training" in inspect.signature(operation.call).parameters:
        kwargs["training"] = False
    return operation(*args, **kwargs)


def _replaced(layer):
    """The layer itself, or another that computes the same."""
    for is_such, replace in _REPLACEMENTS:
        if is_such(layer):
            return replace(layer)
    return layer


def _is_normalization(layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.Normalization)


def _as_rescaling(layer):
    """Its mean and variance are tensors that the net holds, which would become inputs."""
    import keras

    deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), keras.config.epsilon()).ravel()
    scale, offset = 1 / deviation, -np.asarray(layer.mean).ravel() / deviation
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name=layer.name)


def _is_grouped(layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.Conv2D) and (
        1 < layer.groups == layer.filters == layer.input.shape[-1]
    )


def _as_depthwise(layer):
    """A convolution with a group for each channel; Keras compiles it into an opaque call."""
    import keras

    other = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        use_bias=layer.use_bias,
        dtype="float32",
        name=layer.name,
    )
    other.build(layer.input.shape)
    kernel, *bias = layer.get_weights()  # (k, k, 1, C)
    other.set_weights([kernel.transpose(0, 1, 3, 2), *bias])
    return other


def _is_gelu(layer) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.gelu and not layer.weights


def _as_erf(layer):
    """GELU by the function erf; the converter knows no erfc, by which TensorFlow computes it."""
    import keras

    def gelu(x):
        return 0.5 * x * (1 + keras.ops.erf(x / np.float32(np.sqrt(2))))

    return keras.layers.Activation(gelu, dtype="float32", name=layer.name)


def _is_deconv(layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.Conv2DTranspose) and layer.kernel_size == layer.strides


def _as_depth_to_space(layer):
    """Of kernels that do not overlap; LiteRT would work out the size of each map while it runs."""
    import keras

    (side, _), filters = layer.kernel_size, layer.filters
    maps = keras.Input(layer.input.shape[1:])
    convolution = keras.layers.Conv2D(side * side * filters, 1, use_bias=layer.use_bias)
    pixels = keras.ops.depth_to_space(convolution(maps), side)
    kernel, *bias = layer.get_weights()  # (side, side, F, C)
    wide = kernel.transpose(3, 0, 1, 2).reshape(1, 1, -1, side * side * filters)
    convolution.set_weights([wide, *(np.tile(one, side * side) for one in bias)])
    return keras.Model(maps, layer.activation(pixels), name=layer.name)


_REPLACEMENTS: tuple[tuple[Callable, Callable], ...] = (
    (_is_normalization, _as_rescaling),
    (_is_grouped, _as_depthwise),
    (_is_gelu, _as_erf),
    (_is_deconv, _as_depth_to_space),
)


def halved(values: np.ndarray) -> np.ndarray | None:
    """A tensor as float16; None where nothing would be saved or a number is too large for it."""
    largest = np.finfo(np.float16).max
    if values.size < LEAST or not (np.abs(values) <= largest).all():
        return None
    return values.astype(np.float16)
