import os
import shutil
import sys

import pytest
from filelock import FileLock
from quickly import draw_nothing, run_eagerly


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory):
    """A drawn data set in the released layout: small pictures, a few lesions of every class.

    Tests copy it: what one wrote into it, a cache for example, the next would find.
    """
    from datasets.synthetic import draw_dataset

    data = tmp_path_factory.mktemp("drawn") / "data"
    draw_dataset(data, lesions=28, test_lesions=7, shorter_side=(72, 96), seed=3)
    drawn = sorted(data.rglob("*"))
    yield data
    assert sorted(data.rglob("*")) == drawn


@pytest.fixture
def root(tmp_path, drawn_data, monkeypatch):
    """A root of its own with a copy of the drawn data, named by ISIC_ROOT."""
    shutil.copytree(drawn_data, tmp_path / "root" / "data", symlinks=True)
    monkeypatch.setenv("ISIC_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory, drawn_data):
    """A root with the drawn data and two folds of each task, an epoch each; copy it.

    One for all processes that run tests: the first that asks for it makes it.
    """
    import cls_train
    import seg_train

    tiny = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8}
    tiny |= {"num_folds": 2, "epochs": 1}
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "trained" / "root"
    with FileLock(shared / "trained.lock"), pytest.MonkeyPatch.context() as patch:
        if not root.exists():
            making = shared / "being trained" / "root"
            shutil.copytree(drawn_data, making / "data")
            patch.setenv("ISIC_ROOT", str(making))
            draw_nothing(patch)
            with run_eagerly():
                seg_train.main(seg_train.Settings(**tiny))
                cls_train.main(cls_train.Settings(**tiny, lesion_view="whole"))
            making.parent.rename(root.parent)
    return root


@pytest.fixture
def at_root(trained, monkeypatch):
    """The root that a file of tests trained nets in, its fixture `trained`, named by ISIC_ROOT."""
    monkeypatch.setenv("ISIC_ROOT", str(trained))
    return trained


@pytest.fixture
def eagerly():
    """Trainings of two steps, which TensorFlow runs in less time than it takes to trace them."""
    with run_eagerly():
        yield


@pytest.fixture
def blank_charts(monkeypatch):
    """Charts that nobody looks at are built and not drawn, which takes most of an evaluation."""
    draw_nothing(monkeypatch)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Runs a script's command line in this process: exit code, standard output, standard error."""

    def run(script, *flags):
        from misc_utils import command_line

        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, flags)])
        code = 0
        try:
            command_line.run(script.main, script.Settings, script.__doc__)
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def no_nets(monkeypatch):
    """Whoever loads a net now fails: all there is to read was predicted before."""
    import models.trained

    def refuse(*_):
        raise AssertionError("a net was loaded")

    monkeypatch.setattr(models.trained, "load_segmenter", refuse)
    monkeypatch.setattr(models.trained, "load_classifier", refuse)


# Each runs in one process: begun last, they would leave a core idle at the end.
LONGEST = ("resume", "runs", "runs_scores", "encoder", "unet", "bad_results", "released", "export")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


def pytest_terminal_summary(terminalreporter):
    """How many bad inputs were tried, and refused or understood as they should be."""
    passed = terminalreporter.stats.get("passed", [])
    bad = [report for report in passed if "test_bad_" in report.nodeid and "[" in report.nodeid]
    if bad:
        terminalreporter.write_line(f"bad inputs: {len(bad)} cases")
