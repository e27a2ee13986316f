"""Number format that nets compute in: float32, or bfloat16 with weights and outputs in float32.

Enters: a setting. Leaves: Keras's dtype policy, which holds for layers that are built afterwards.
"""

import keras

PRECISIONS = ("auto", "float32", "bfloat16")


def use_precision(precision: str) -> str:
    """Set the precision of layers that are built from now on; returns "float32" or "bfloat16".

    `auto` means bfloat16 on a GPU, which has matrix units for it, and float32 elsewhere. bfloat16
    has float32's range, so the loss needs no scaling. ValueError for a name not in PRECISIONS.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "auto":
        device = str(keras.ops.zeros(1).device).lower()  # each backend has its own words
        on_gpu = "cuda" in device or "gpu" in device
        precision = "bfloat16" if on_gpu else "float32"
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    return precision
