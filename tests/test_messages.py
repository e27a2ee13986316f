import shlex
import sys
from pathlib import Path

from misc_utils.messages import counted, lacking, pip_install, printable


def test_long_lists_are_cut():
    assert counted(["b", "a"]) == "2: a, b"
    assert counted(f"n{k:02d}" for k in range(12)).endswith("n08, n09 and 2 more")


def test_packages_that_are_missing_are_named_with_what_installs_them():
    assert lacking(("numpy", "pytest")) == ""
    found = lacking(("numpy", "not_there", "nor_this"))
    assert found.startswith("not_there, nor_this must be installed: ")
    assert found.endswith(" -m pip install not_there nor_this")
    file = lacking(("not_there",), "requirements-ray.txt").split(" -r ")[1]
    assert Path(file).is_file()


def test_commands_that_install_can_be_pasted_whatever_the_paths(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my environment/python")
    said = pip_install("-r", Path("/my code/requirements.txt"))
    words = ["/my environment/python", "-m", "pip", "install", "-r", "/my code/requirements.txt"]
    assert shlex.split(said) == words
    assert pip_install("some[all]").endswith(" -m pip install 'some[all]'")
    assert lacking(("not_there",)).endswith(": '/my environment/python' -m pip install not_there")


def test_names_are_printed_without_what_a_terminal_would_obey():
    assert printable("ü\x1b[2J\n\udcff") == "ü\\x1b[2J\\n\\udcff"
