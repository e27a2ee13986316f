"""That the fault programme would see what it looks for."""

import json

import faults
import h5py
import numpy as np
import pytest
from same_results import contents, differences


def fill(folder):
    folder.mkdir()
    (folder / ".locks").mkdir()
    (folder / ".locks" / "a.lock").touch()
    (folder / "table.csv").write_text("a,b\n1,2\n")
    np.save(folder / "cache.npy", np.arange(6, dtype=np.uint8))
    record = {"made_by": {"seed": 1}, "written": "now", "seconds": 3}
    (folder / "record.json").write_text(json.dumps(record))
    with h5py.File(folder / "net.weights.h5", "w") as file:
        file["layer/kernel"] = np.float32([1, 2])
    progress = np.array(json.dumps({"best": 0.5, "seconds": 1.0}))
    np.savez(folder / "net_state.npz", progress=progress, variable_0=np.float32([1, 2]))


def rewrite(name, change):
    def spoil(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return spoil


def other_tensor(folder):
    with h5py.File(folder / "net.weights.h5", "r+") as file:
        file["layer/kernel"][1] = np.nextafter(np.float32(2), np.float32(3))


def other_state(folder):
    progress = np.array(json.dumps({"best": 0.6, "seconds": 1.0}))
    np.savez(folder / "net_state.npz", progress=progress, variable_0=np.float32([1, 2]))


@pytest.mark.parametrize(
    ("spoil", "lost", "different"),
    [
        (lambda folder: None, [], []),
        (lambda folder: (folder / ".locks" / "b.lock").touch(), [], []),
        (rewrite("record.json", lambda text: text.replace(b"now", b"then")), [], []),
        (rewrite("record.json", lambda text: text.replace(b"1", b"2")), [], ["record.json"]),
        (rewrite("table.csv", lambda text: text + b"1,2\n"), [], ["table.csv"]),
        (rewrite("cache.npy", lambda text: text[:-1] + b"x"), [], ["cache.npy"]),
        (other_tensor, [], ["net.weights.h5"]),
        (other_state, [], ["net_state.npz"]),
        (lambda folder: (folder / "table.csv").unlink(), ["table.csv"], []),
        (lambda folder: (folder / ".partial_0_x").touch(), [], [".partial_0_x"]),
    ],
)
def test_what_is_lost_and_what_differs_is_seen(tmp_path, spoil, lost, different):
    for name in ("whole", "killed"):
        fill(tmp_path / name)
    spoil(tmp_path / "killed")
    found = differences(contents(tmp_path / "whole"), contents(tmp_path / "killed"))
    assert found == (lost, different)


def test_moments_lie_all_over_the_work():
    whole = faults.Whole({}, [(0.0, "start"), (4.0, "caches"), (6.0, "fold 1")], 14.0)
    assert whole.spans() == {"start": (0, 4), "caches": (4, 6), "fold 1": (6, 14)}
    moments = faults.draw_moments(whole, 12, np.random.default_rng(0))
    assert len(moments) == 12 and all(0 < moment < 4 for moment in moments[:2])
    assert [int(moment) for moment in moments[2:]] == list(range(4, 14))


def test_a_training_is_told_by_its_files(tmp_path):
    part = faults.training_part("seg_train", 1, [])
    roots = type("Roots", (), {"small": tmp_path})()
    phase = part(roots).phase
    assert phase(tmp_path) == "start"
    (tmp_path / "data" / "cache").mkdir(parents=True)
    assert phase(tmp_path) == "caches"
    run = tmp_path / "model_data" / "task1_tiny_k0_v0"
    run.mkdir(parents=True)
    assert phase(tmp_path) == "fold 1, first epoch"
    history = run / f"{run.name}.csv"
    history.write_text("epoch,loss\n0,1\n")
    assert phase(tmp_path) == "fold 1, later epochs"
    history.write_text("epoch,loss\n0,1\n1,1\n2,1\n3,1\n")
    assert phase(tmp_path) == "fold 1, after the epochs"
    (run / "settings.json").write_text('{"finished": true}')
    assert phase(tmp_path) == "fold 1 finished"


def test_a_kill_is_a_kill(tmp_path):
    """A process that ends before its moment is killed earlier, and then runs to its end."""
    script = tmp_path / "work.py"
    script.write_text(
        "import os, pathlib, time\n"
        "root = pathlib.Path(os.environ['ISIC_ROOT'])\n"
        "(root / 'begun').touch()\n"
        "time.sleep(0.5)\n"
        "(root / 'done').touch()\n"
    )
    (tmp_path / "start").mkdir()
    part = faults.Part(
        "work",
        [str(script)],
        tmp_path / "start",
        lambda r: "begun" if any(r.iterdir()) else "start",
    )
    phase, when = faults.kill_once(part, 0.9, tmp_path / "root")
    assert when < 0.9 and phase in ("begun", "start")
    assert sorted(file.name for file in (tmp_path / "root").iterdir()) == ["begun", "done"]
    phase, _ = faults.kill_once(part, 0.05, tmp_path / "root", aim="begun")
    assert phase == "begun"
