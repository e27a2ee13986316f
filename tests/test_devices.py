import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import seg_train

from misc_utils.errors import UserError
from models.devices import choose_devices

ON_JAX = keras.backend.backend() == "jax"
SCRIPT = Path(__file__).parents[1] / "runs" / "seg_train.py"
FLAGS = ("--backbone", "tiny", "--weights", "none", "--image-size", 32, "--num-folds", 2)
FLAGS = (*FLAGS, "--folds", 1, "--limit", 27, "--batch-size", 4, "--learning-rate", 1e-3)


@pytest.mark.skipif(ON_JAX, reason="jax can")
def test_a_backend_that_cannot_says_which_can(root, run_script):
    code, _, err = run_script(seg_train, *FLAGS, "--devices", 2)
    assert code == 1 and "Set KERAS_BACKEND=jax" in err
    assert choose_devices(1, 7) == []
    assert not (root / "model_data").exists()


@pytest.mark.skipif(not ON_JAX, reason="jax alone can")
def test_more_devices_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "cpu:1", "cpu:2"])
    with pytest.raises(UserError, match=r"--devices 4: there are 3: cpu:0, cpu:1, cpu:2"):
        choose_devices(4, 8)
    with pytest.raises(UserError, match="Choose a multiple of 3"):
        choose_devices("all", 8)
    assert choose_devices(2, 8) == ["cpu:0", "cpu:1"] and choose_devices("all", 9)[2] == "cpu:2"


@pytest.mark.skipif(not ON_JAX, reason="jax alone can")
def test_two_devices_score_as_one_does_and_resume_one_another(root):
    """The last batch of held-out images is odd."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

    def train(version, devices, epochs):
        more = ("--version", version, "--devices", devices, "--epochs", epochs)
        command = map(str, (sys.executable, SCRIPT, *FLAGS, *more))
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        folder = root / "model_data" / f"task1_tiny_k1_v{version}"
        record = json.loads((folder / "settings.json").read_text())
        return record, pd.read_csv(folder / f"{folder.name}.csv")

    record, one = train("one", 1, 2)
    assert record["devices"] == 1
    record, two = train("two", 2, 1)
    assert record["devices"] == 2
    record, two = train("two", 1, 2)  # goes on
    assert record["resumed"][0]["devices"] == 1 and len(two) == 2
    folds = pd.read_csv(root / "model_data" / "task1_tiny_k1_vone" / "folds.csv")
    assert (folds["fold"] == 1).sum() % 2 == 1
    for measure in ("loss", "val_loss"):
        np.testing.assert_allclose(two[measure], one[measure], rtol=2e-3)
    np.testing.assert_allclose(two["val_jaccard"], one["val_jaccard"], atol=0.01)
