"""The documents name what there is."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from datasets.own_settings import OwnFolder

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
SCRIPTS = sorted(file.stem for file in (ROOT / "runs").glob("*.py") if file.stem != "paths")


def names_of(settings):
    """Fields of settings, those of a folder of one's own by themselves, as flags name them."""
    names = {field.name for field in dataclasses.fields(settings)}
    if "own" in names:
        names = names - {"own"} | {field.name for field in dataclasses.fields(OwnFolder)}
    if "epochs" in names:  # of a training script
        names.add("recipe")
    return names


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_of_a_script_is_described(script):
    part = re.search(rf"(?ms)^## `?(?:runs/)?{script}\.py`?\n(.*?)(?=^## |\Z)", COMMANDS)
    assert part, f"docs/commands.md has no part about {script}.py"
    for name in names_of(importlib.import_module(script).Settings):
        flag = name.replace("_", "-")
        assert re.search(rf"`(--)?{flag}\b", part[1]), f"{script}.py: --{flag}"


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_and_flags_of_documents_exist(document):
    file = ROOT / document if document == "README.md" else ROOT / "docs" / document
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
        assert (file.parent / target).exists(), target
    for script, flags in re.findall(
        r"python3 runs/(\w+)\.py((?: [^\n`|]*)?(?:\\\n[^\n`|]*)*)", text
    ):
        fields = names_of(importlib.import_module(script).Settings)
        for flag in re.findall(r"--([a-z][a-z-]*)", flags):
            name = flag.removeprefix("no-").replace("-", "_")
            assert name in fields or flag.replace("-", "_") in fields or flag == "help", flag


def test_every_module_is_in_the_development_guide():
    guide = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    for package in (
        "misc_utils",
        "datasets",
        "models",
        "training",
        "inference",
        "evaluation",
        "deploy",
        "sweeps",
    ):
        part = guide.split(f"### {package}\n")[1].split("\n###")[0]
        for file in (ROOT / package).glob("*.py"):
            if file.name != "__init__.py":
                assert f"`{file.name}`" in part, f"{package}/{file.name}"
