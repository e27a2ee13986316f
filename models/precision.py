"""Number format that nets compute in: float32, or bfloat16 with weights and outputs in float32.

Enters: a setting. Leaves: Keras's policy for the layers that are built next.
"""

import keras

PRECISIONS = ("auto", "float32", "bfloat16")


def use_precision(precision: str) -> str:
    """Set the policy of layers built from here on; gives back what is in force.

    `auto` is bfloat16 on a GPU, whose matrix units it is made for, and float32 elsewhere. It has
    float32's range, so the loss needs no scaling; ValueError for other names than PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "auto":
        device = str(keras.ops.zeros(1).device).lower()  # each back end has its own words
        on_gpu = "cuda" in device or "gpu" in device
        precision = "bfloat16" if on_gpu else "float32"
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    return precision
