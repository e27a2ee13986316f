import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from datasets.own_settings import OwnFolder
from misc_utils import command_line

ROOT = Path(__file__).resolve().parents[1]

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = [
    *(f"runs/{file.name}" for file in sorted(REPOSITORY.glob("runs/*.py"))),
    "datasets/ISIC2018/preprocess_data.py",
]
SCRIPTS.remove("runs/paths.py")
POSITIONAL = {"output": "[{crops,mask}]", "which": "BACKBONE:VERSION", "images": "PATH ..."}
POSITIONAL |= {"archive": "PATH"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick_and_explains_every_setting(script, tmp_path):
    """From another directory, without PYTHONPATH; the quickest of three, as machines are shared."""
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), "--help"],
            cwd=tmp_path,
            env={"PATH": "", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(time.monotonic() - start)
        if seconds[-1] < 2:
            break
    assert min(seconds) < 2, seconds
    name = script.removesuffix(".py").replace("/", ".").removeprefix("runs.")
    fields = dataclasses.fields(importlib.import_module(name).Settings)
    options = re.split(r"\n│ (?=\S)", done.stdout)
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        text = [option for option in options if re.match(rf"{flag}[ ,]", option)]
        if field.name in POSITIONAL:
            start = POSITIONAL[field.name]
            text = [option for option in options if option.startswith(start)]
        if field.name == "own":  # settings within settings, whose flags have no name before them
            own = [f"--{part.name.replace('_', '-')}" for part in dataclasses.fields(OwnFolder)]
            missing = [one for one in own if not any(o.startswith(one) for o in options)]
            text = [] if missing else [option for option in options if option.startswith(own[0])]
        if field.name == "train" and dataclasses.is_dataclass(
            field.type
        ):  # the settings of another script, which is tested itself
            text = [option for option in options if option.startswith("--train.backbone")]
        assert text, f"{flag} is not in the help of {script}"
        bare = re.sub(r"--\S+|\{[^}]*\}|\(default:[^)]*\)|[A-Z]{3,}|[^a-z]", "", text[0])
        assert len(bare) > 6, f"{flag} has no comment in {script}"


def test_typing_errors_end_with_2_and_name_the_flag(run_script):
    import seg_train

    for flags in (("--backbon", "vgg16"), ("--backbone", "vgg17"), ("--folds", "first")):
        code, _, err = run_script(seg_train, *flags)
        assert code == 2 and flags[0] in err and "Traceback" not in err


@pytest.mark.parametrize("flag", ["--k_fold", "--k-fold"])
def test_both_ways_to_write_a_flag(flag, run_script, monkeypatch):
    import seg_eval

    given = []
    monkeypatch.setattr(seg_eval, "main", given.append)
    assert run_script(seg_eval, flag, "3")[0] == 0
    assert given[0].k_fold == 3


def test_what_is_no_users_error_keeps_its_traceback(run_script, monkeypatch):
    import seg_eval

    def broken(settings):
        raise ValueError("a defect")

    monkeypatch.setattr(seg_eval, "main", broken)
    with pytest.raises(ValueError, match="a defect"):
        run_script(seg_eval)


def test_an_error_within_the_silence_is_heard(capfd):
    with command_line.silence():
        os.write(2, b"greetings")
    assert "greetings" not in capfd.readouterr().err
    with pytest.raises(RuntimeError), command_line.silence():
        subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('the cause')"])
        raise RuntimeError
    assert "the cause" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("backend", "fix"),
    [
        ("theano", "Set KERAS_BACKEND to tensorflow, jax, torch"),
        (None, "requirements-torch.txt`, or"),
    ],
)
def test_a_backend_that_cannot_be_had_is_one_line(backend, fix, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError(name='torch')")
    code = "from misc_utils import command_line; command_line.import_keras()"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{code}",
        ],
        env=os.environ | {"KERAS_BACKEND": backend or "torch"},
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "UserError: Keras cannot be loaded" in last and fix in last


def test_of_the_keras_settings_of_a_home_only_the_backend_counts(tmp_path):
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    found = {
        "floatx": "float16",
        "epsilon": 0.01,
        "backend": backend,
        "image_data_format": "channels_first",
    }
    (tmp_path / "keras.json").write_text(json.dumps(found))
    code = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from misc_utils import command_line
command_line.import_keras()
import keras
layer = keras.layers.Conv2D(2, 3)
layer.build((None, 8, 8, 3))
config = keras.config
print(json.dumps([config.floatx(), config.epsilon(), config.image_data_format(),
                  keras.backend.backend(), layer.dtype, str(keras.ops.zeros(1).dtype),
                  list(layer.compute_output_shape((1, 8, 8, 3)))]))
"""
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *config, zeros, shape = json.loads(done.stdout)
    assert config == ["float32", 1e-7, "channels_last", backend, "float32"]
    assert "float32" in zeros and shape == [1, 6, 6, 2]


@pytest.mark.parametrize("script", ["seg_train", "cls_predict", "compare", "demo"])
@pytest.mark.parametrize("made", [False, True])
def test_a_forgotten_virtual_environment_is_one_line(script, made, tmp_path):
    for folder in ("misc_utils", "runs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    if made:
        (tmp_path / ".venv").mkdir()
    script = str(tmp_path / "runs" / f"{script}.py")
    command = [sys.executable, "-S", script]  # -S: no site-packages
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert f". {tmp_path}/.venv/bin/activate" in lines[0]
    installs = f"pip install -r {tmp_path}/requirements.txt" in lines[0]
    assert installs is not made


def test_an_environment_without_packages_is_told_to_install_them(tmp_path):
    for folder in ("misc_utils", "runs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    venv.create(tmp_path / ".venv", symlinks=True)
    command = [str(tmp_path / ".venv/bin/python"), str(tmp_path / "runs" / "seg_eval.py")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and f"/bin/python -m pip install -r {tmp_path}/" in done.stderr
