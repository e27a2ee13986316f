"""A frozen encoder: its features of all images are computed once, and the head is trained on them.

Enters: a classifier, cached images. Leaves: the head as a net of its own, which shares its layers
with the classifier; what the encoder gives for each image, float32 (N, F), kept in
`model_data/features/` by a hash of all that it depends on.
"""

import hashlib
import logging
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from misc_utils.files import new_array, partial_file

log = logging.getLogger(__name__)

POOLED = "average_pool"  # the layer that the head begins behind
BATCH = 32  # images per step


def head_of(model: keras.Model) -> keras.Model:
    """What follows the pooling: (B, F), and metadata where the classifier takes it -> (B, C)."""
    pooled, metadata = model.get_layer(POOLED).output, model.inputs[1:]
    inputs = [pooled, *metadata] if metadata else pooled
    return keras.Model(inputs, model.output, name=f"{model.name}_head")


def features_of(model: keras.Model, images: np.ndarray, folder: Path, name: str) -> np.ndarray:
    """Pooled features of uint8 images (N, S, S, 3): float32 (N, F), memory-mapped.

    They are computed where `folder` does not hold them yet, for the same pixels, weights of the
    encoder, precision and backend; `name` is for people.
    """
    encoder = keras.Model(model.inputs[0], model.get_layer(POOLED).output)
    file = folder / f"{name}_{_hash(encoder, images)}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(images), encoder.output.shape[-1])
        with partial_file(file) as partial:
            features = new_array(partial, np.float32, shape)
            for start in tqdm(range(0, len(images), BATCH), "features", unit="batch"):
                part = np.asarray(images[start : start + BATCH])
                filled = np.zeros((BATCH, *part.shape[1:]), part.dtype)  # one shape is compiled
                filled[: len(part)] = part
                found = np.asarray(encoder.predict_on_batch(filled), np.float32)
                features[start : start + len(part)] = found[: len(part)]
            features.flush()
            del features
    log.info("features of the frozen encoder: %s", file)
    return np.load(file, mmap_mode="r")


def _hash(encoder: keras.Model, images: np.ndarray) -> str:
    how = (keras.config.dtype_policy().name, keras.backend.backend(), images.shape)
    digest = hashlib.sha256(str(how).encode())
    for variable in encoder.variables:
        digest.update(np.ascontiguousarray(variable.numpy()))
    for start in range(0, len(images), BATCH):
        digest.update(np.ascontiguousarray(images[start : start + BATCH]))
    return digest.hexdigest()[:16]
