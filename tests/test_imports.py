"""The line of packages, read from the source; and that importing a module does nothing."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each package imports only itself and what stands before it.
LINE = (
    "misc_utils",
    "datasets",
    "models",
    "training",
    "inference",
    "evaluation",
    "reports",
    "deploy",
    "archives",
    "sweeps",
    "runs",
)
SCRIPTS = sorted(file.stem for file in (ROOT / "runs").glob("*.py"))
PRODUCT = [
    file.relative_to(ROOT) for folder in LINE for file in sorted((ROOT / folder).glob("**/*.py"))
]
TESTS = [file.relative_to(ROOT) for file in sorted((ROOT / "tests").glob("**/*.py"))]
PREPROCESS = Path("datasets/ISIC2018/preprocess_data.py")  # a script that lies with its data set
# runs other scripts, one after another, with settings of theirs
RUNS_OTHERS = {
    Path("runs/cls_views.py"): {"cls_train", "cls_eval", "compare"},
    Path("runs/sweep.py"): {
        *("seg_train", "seg_eval", "seg_tune", "cls_train", "cls_eval", "cls_tune", "compare")
    },
}
BACKENDS = {"tensorflow", "jax", "jaxlib", "torch"}
# for several hosts Keras has no words of its own
MAY_USE_JAX = Path("models/devices.py")
UNSAFE = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
# an unpickler that builds nothing but tensors, for a file that is checked by its hash
MAY_UNPICKLE = Path("models/pretrained.py")
SLOW = {"keras", "sklearn", "pandas", "matplotlib", "scipy", "skimage"} | BACKENDS


def imports_of(source, file):
    """Dotted names a module imports anywhere, relative ones resolved.

    `from a.b import c` gives a.b and a.b.c, as c may be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = file.parent.parts[: len(file.parent.parts) - node.level + 1]
            start = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            names |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    return names


def read(file):
    return imports_of((ROOT / file).read_text(encoding="utf-8"), file)


def tops(names):
    return {name.split(".")[0] for name in names}


def forbidden(file, names):
    """Which of the imported names this file may not import."""
    package = file.parts[0]
    script = package == "runs" or file == PREPROCESS
    others = set(SCRIPTS) - ({"paths"} if script else set()) - RUNS_OTHERS.get(file, set())
    after = set(LINE[LINE.index(package) + 1 :]) | {"runs"}  # a script is imported by its own name
    unsafe = UNSAFE - ({"pickle"} if file == MAY_UNPICKLE else set())
    backends = BACKENDS - ({"jax"} if file == MAY_USE_JAX else set())
    wrong = tops(names) & (backends | unsafe | after | others)
    of_datasets = package == "datasets" and file.parent == Path("datasets")
    if of_datasets and file.stem != "catalogue":  # what every data set stands on
        wrong |= {name for name in names if name.startswith("datasets.ISIC2018")}
    return wrong


def test_the_line_holds_every_package():
    folders = {file.parent.name for file in ROOT.glob("*/*.py")}
    assert folders == {*LINE, "tests", "benchmarks"}
    assert list(ROOT.glob("*.py")) == []


def test_arrows():
    wrong = {str(file): sorted(forbidden(file, read(file))) for file in PRODUCT}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_no_module_imports_itself_through_others():
    names_of = {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): read(file)
        for file in PRODUCT
        if file.parts[0] != "runs"
    }
    graph = {name: (names & set(names_of)) - {name} for name, names in names_of.items()}
    # a package that a module lies in is imported with it, which says nothing
    graph = {
        name: {other for other in names if not name.startswith(f"{other}.")}
        for name, names in graph.items()
    }
    while leaves := [name for name, names in graph.items() if not names]:
        graph = {name: names - set(leaves) for name, names in graph.items() if name not in leaves}
    assert graph == {}


@pytest.mark.parametrize(
    ("file", "line", "name"),
    [
        ("misc_utils/files.py", "import datasets.cache", "datasets"),
        ("datasets/batches.py", "import models.unet", "models"),
        ("datasets/lesion_crops.py", "from inference import submission", "inference"),
        ("datasets/cache.py", "from datasets.ISIC2018 import raw", "datasets.ISIC2018"),
        ("datasets/folds.py", "from .ISIC2018.raw import CLASSES", "datasets.ISIC2018.raw"),
        ("models/unet.py", "from training import fit", "training"),
        ("training/fit.py", "    from reports import figures", "reports"),
        ("inference/tta.py", "from evaluation import bootstrap", "evaluation"),
        ("evaluation/tuned.py", "import reports.pages", "reports"),
        ("reports/pages.py", "import seg_train", "seg_train"),
        ("reports/pages.py", "import paths", "paths"),
        ("runs/seg_train.py", "from runs import paths", "runs"),
        ("runs/seg_train.py", "import seg_eval", "seg_eval"),
        ("runs/cls_views.py", "import seg_train", "seg_train"),
        ("deploy/export.py", "from archives import parts", "archives"),
        ("archives/merge.py", "from sweeps import grid", "sweeps"),
        ("runs/seg_train.py", "import tensorflow as tf", "tensorflow"),
        ("models/unet.py", "from jax import numpy", "jax"),
        ("models/unet.py", "import torch.nn", "torch"),
        ("datasets/cache.py", "import pickle", "pickle"),
    ],
)
def test_a_wrong_arrow_would_be_seen(file, line, name):
    source = f"def f():\n{line}\n" if line.startswith(" ") else line
    assert name in forbidden(Path(file), imports_of(source, Path(file)))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("runs/seg_train.py", "import paths\nfrom models import unet\nfrom reports import figures"),
        ("datasets/ISIC2018/preprocess_data.py", "import paths\nfrom misc_utils import a"),
        ("datasets/ISIC2018/raw.py", "from datasets.challenge import CLASSES"),
        ("evaluation/tuned.py", "from inference import ensemble\nfrom training import run_folder"),
        ("models/unet.py", "from misc_utils.errors import UserError\nfrom models import backbones"),
    ],
)
def test_right_arrows_pass(file, line):
    assert forbidden(Path(file), imports_of(line, Path(file))) == set()


def test_tests_import_scripts_by_their_own_name():
    """As runs.seg_train there would be two modules `paths`."""
    assert [str(file) for file in TESTS if "runs" in tops(read(file))] == []


def test_no_pickle_is_allowed_in_arrays():
    for file in PRODUCT:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "safe_mode"):
                right = {"allow_pickle": False, "safe_mode": True}[node.arg]
                given = getattr(node.value, "value", "an expression")
                assert given is right, f"{file}:{node.value.lineno} {node.arg} is {given}"


def run_python(code, folder):
    """Run code in an empty folder with the repository on the path; what it prints, as JSON."""
    work, home = folder / "work", folder / "home"
    work.mkdir()
    home.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runs")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "ISIC_ROOT": str(work / "root"),
        "HOME": str(home),  # where Keras and matplotlib write their own settings
        "KERAS_HOME": str(home),
        "MPLCONFIGDIR": str(home),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(work.rglob("*")) == []
    return json.loads(done.stdout)


def test_script_heads_load_nothing_slow(tmp_path):
    """`--help` and a wrong flag must be answered at once."""
    code = f"""
import importlib, json, sys
found = {{}}
for name in {SCRIPTS!r}:
    importlib.import_module(name)
    found[name] = sorted({SLOW!r} & set(sys.modules))
print(json.dumps(found))
"""
    assert run_python(code, tmp_path) == {name: [] for name in SCRIPTS}


def test_importing_does_nothing(tmp_path):
    modules = [
        ".".join(file.with_suffix("").parts).removeprefix("runs.").removesuffix(".__init__")
        for file in PRODUCT
    ]
    code = f"""
import contextlib, importlib, io, json, logging, random, sys
import keras, matplotlib, numpy, pandas, scipy, skimage, sklearn
def state():
    return [repr(random.getstate()), repr(numpy.random.get_state()), repr(logging.root.handlers)]
said, before, changed = io.StringIO(), state(), []
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    for name in {modules!r}:
        importlib.import_module(name)
        if state() != before:
            changed.append(name)
            before = state()
print(json.dumps([said.getvalue(), changed]))
"""
    assert run_python(code, tmp_path) == ["", []]
