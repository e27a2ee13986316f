"""Features of a classifier's training images, kept with its run, to tell what is unlike them.

Enters: a run, its net, the images it was trained and held out from. Leaves: `<run>_features.npz`
with features float16 (N, F) of up to MOST training images and the threshold of the held-out ones;
or the Reference that they are.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.dataset import Inputs
from deploy.unlikeness import Reference, refer
from misc_utils.files import partial_file
from training import run_folder
from training.run_folder import Run

FORMAT = 1
MOST = 2000  # training images that are kept, and as many held-out ones are looked at


def load_reference(run: Run) -> Reference | None:
    """The reference of a run; None where none is kept for the weights there are now."""
    try:
        with np.load(_file(run), allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            if about != _about(run):
                return None
            return Reference(kept["features"], float(kept["threshold"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def keep_features(
    run: Run, model, inputs: Inputs, folds: pd.DataFrame, batch_size: int
) -> Reference:
    """Predict the features, keep them in the run's folder, and return the reference they are.

    `model` is the run's net, ending anywhere behind its layer `fc1`; `inputs` are those it was
    trained with, `folds` its split.
    """
    import keras

    pooled = keras.Model(model.input, model.get_layer("fc1").input)
    parts = (
        run_folder.training_images(folds, run.k_fold),
        run_folder.held_out_images(folds, run.k_fold),
    )
    random = np.random.default_rng(0)
    chosen = [sorted(random.permutation(sorted(part))[:MOST].tolist()) for part in parts]
    with tqdm(total=sum(map(len, chosen)), desc=f"{run.name}: features", unit="image") as progress:
        features = [_predict(pooled, inputs, ids, batch_size, progress) for ids in chosen]
    reference = refer(*features)
    content = io.BytesIO()
    np.savez(
        content,
        about=json.dumps(_about(run)),
        features=reference.features,
        threshold=reference.threshold,
    )
    with partial_file(_file(run)) as partial:
        partial.write_bytes(content.getvalue())
    return reference


def _predict(
    model, inputs: Inputs, image_ids: Sequence[str], batch_size: int, progress: tqdm
) -> np.ndarray:
    """What enters the hidden layer, float32 (n, F + M)."""
    done = []
    for start in range(0, len(image_ids), batch_size):
        rows = inputs.images.rows(image_ids[start : start + batch_size])
        count = len(rows)
        rows = np.concatenate([rows, np.repeat(rows[:1], batch_size - count)])  # one shape for all
        taken = np.asarray(inputs.images.array[rows])
        if inputs.metadata is not None:
            taken = (taken, inputs.metadata[rows])
        done.append(np.asarray(model.predict_on_batch(taken), np.float32)[:count])
        progress.update(count)
    return np.concatenate(done)


def _about(run: Run) -> dict:
    return {"format": FORMAT, "weights": run_folder.weights_hash(run), "data": run.data_fingerprint}


def _file(run: Run) -> Path:
    return run.file("features.npz")
