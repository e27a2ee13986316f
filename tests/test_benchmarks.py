"""What the table of `make bench` says of measurements, and that its rows can be measured."""

import importlib
import json

import bench
import numpy as np
import pytest

import pictures
from measure import Row, Target, in_turn, write_rows


def row(ours, reference, target, kind="ours / reference", **more):
    return Row("a step", "bare", "s", ours, reference, target, kind, **more)


def test_the_ratio_is_of_pairs_and_goes_the_way_it_says():
    times = [1.0, 2.0, 10.0], [2.0, 8.0, 10.0]
    assert row(*times, Target("<=", 1)).ratios.tolist() == [0.5, 0.25, 1.0]
    assert row(*times, Target(">=", 1), "reference / ours").ratios.tolist() == [2, 4, 1]
    assert "0.5 (0.25 to 1)" in row(*times, Target("<=", 1)).line()


def test_the_better_end_of_the_interval_decides():
    steady, twice = [1.0] * 7, [2.0] * 7
    assert row(twice, steady, Target("<=", 2)).interval == (2.0, 2.0)
    assert row(twice, steady, Target("<=", 2)).met
    assert not row(twice, steady, Target("<=", 1.99)).met
    assert row(twice, steady, Target(">=", 2)).met
    assert not row(twice, steady, Target(">=", 2.01)).met
    noisy = [0.9, 0.95, 1.0, 1.1, 1.2, 1.3, 1.4]
    low, high = row(noisy, steady, None).interval
    assert 0.9 <= low < 1.1 < high <= 1.4
    assert row(noisy, steady, Target("<=", 1.0)).met and row(noisy, steady, Target(">=", 1.2)).met
    assert not row(noisy, steady, Target("<=", 0.89)).met


def test_a_row_whose_results_differ_is_missed_however_fast():
    fast = row([1.0] * 7, [9.0] * 7, Target("<=", 1), note="unlike", sound=False)
    assert fast.met is False and "MISSED" in fast.line() and "unlike" in fast.line()
    assert row([1.0], [9.0], None).met is None


def test_sides_take_turns_and_the_first_of_each_does_not_count():
    calls = []

    def side(name):
        def measure():
            calls.append(name)
            return len(calls)

        return measure

    ours, reference = in_turn(side("ours"), side("reference"), 2)
    assert calls == ["ours", "reference", "ours", "reference", "reference", "ours"]
    assert (ours, reference) == ([3, 6], [4, 5])


def test_rows_are_written_whole(tmp_path):
    write_rows(tmp_path / "out" / "rows.json", [row([1.0], [2.0], Target("<=", 1))], {"date": "x"})
    content = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert content["date"] == "x" and content["machine"]["cores"] >= 1
    (only,) = content["rows"]
    assert only["ratio"] == 0.5 and only["met"] is True and only["interval_95"] == [0.5, 0.5]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows.json"]


def test_every_part_is_a_function_that_measures():
    for module, function in bench.PARTS.values():
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("part", ["preprocessing", "threads", "postprocessing"])
def test_rows_of_pictures_are_sound(part, monkeypatch):
    """Not how fast: what both sides make is alike, and every number is one."""
    monkeypatch.setattr(pictures, "SIZES", {(450, 600): 2})
    monkeypatch.setattr(pictures, "FILES", 4)
    for one in getattr(pictures, part)(1):
        assert one.sound and np.isfinite([*one.ours, *one.reference]).all()
        assert min(*one.ours, *one.reference) > 0
