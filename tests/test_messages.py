from pathlib import Path

from misc_utils.messages import counted, lacking


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
