import json
import os
import socket
import subprocess
import sys
from contextlib import closing
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
    for number in (0, -1):
        code, _, err = run_script(seg_train, *FLAGS, "--devices", number)
        assert code == 1 and f"--devices {number}: expected a number from 1, all or hosts" in err
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


def start(device_settings, environment):
    """A process that trains, and what it says."""
    command = map(str, (sys.executable, SCRIPT, *FLAGS, *device_settings))
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train_together(root, *flags):
    """Exit codes and outputs of two processes that train one net."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    started = [
        start(
            ("--devices", "hosts", *flags),
            common | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number), "TMPDIR": str(root / "own")},
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    return [process.returncode for process in started], said


@pytest.mark.skipif(not ON_JAX, reason="jax alone can")
def test_two_processes_train_one_net_as_one_does(root):
    (root / "own").mkdir()
    alone = start(("--version", "one", "--epochs", 2), {})
    said = alone.communicate(timeout=300)[0]
    assert alone.returncode == 0, said

    for epochs in (1, 2):  # the second time they resume
        codes, said = train_together(root, "--version", "two", "--epochs", epochs)
        assert codes == [0, 0], said
    assert "resumes after epoch 1 of 2" in said[0]
    assert "next: " in said[0] and "next: " not in said[1]

    one, two = (root / "model_data" / f"task1_tiny_k1_v{version}" for version in ("one", "two"))
    assert json.loads((two / "settings.json").read_text())["devices"] == 2
    tables = [pd.read_csv(folder / f"{folder.name}.csv") for folder in (one, two)]
    for measure in ("loss", "val_loss"):
        np.testing.assert_allclose(*(table[measure] for table in tables), rtol=2e-3)
    logits = [np.load(folder / f"{folder.name}_logits_fold.npy") for folder in (one, two)]
    np.testing.assert_allclose(*(array.astype(float) for array in logits), atol=0.05)
    # the second process kept nothing: no run beside these, nothing left in its folder
    assert sorted(f.name for f in one.iterdir()) == sorted(
        f.name.replace("vtwo", "vone") for f in two.iterdir()
    )
    assert len(list((root / "model_data").glob("task1*"))) == 2
    assert not list((root / "own").iterdir())

    # both end where the first cannot begin
    (two / f"{two.name}_state.npz").unlink()
    codes, said = train_together(root, "--version", "two", "--epochs", 3)
    assert codes == [1, 1] and "_state.npz is missing" in said[0]
    assert "The first of the processes that train together could not begin" in said[1]


@pytest.mark.skipif(not ON_JAX, reason="jax alone can")
def test_a_process_that_is_not_told_of_the_others_says_so(root):
    process = start(("--devices", "hosts"), {})
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 1 and "Traceback" not in said
    assert "Start one on each host with srun, or set KERAS_DISTRIBUTION_JOB_ADDRESSES" in said


@pytest.mark.parametrize("flag", ["--wait", "--freeze"])
def test_what_several_hosts_cannot_do_is_refused(flag, root, run_script):
    import cls_train

    code, _, err = run_script(cls_train, "--devices", "hosts", flag)
    assert code == 1 and f"{flag} does not go with --devices hosts" in err
