import json

import numpy as np
import pytest

from misc_utils.journal import Journal

ROW = {"logits": np.float32([0.1, -3e-7, 12345.678]).tolist()}


def written(folder, *image_ids, key="k"):
    journal = Journal(folder / "j.jsonl", key)
    for image_id in image_ids:
        journal.add(image_id, ROW)
    return journal


def test_rows_come_back_to_the_last_bit(tmp_path):
    written(tmp_path, "b", "a")
    rows = Journal(tmp_path / "j.jsonl", "k").rows
    assert list(rows) == ["b", "a"]
    assert np.float32(rows["a"]["logits"]).tobytes() == np.float32(ROW["logits"]).tobytes()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_cut_line_is_done_again_and_the_next_begins_a_line(tmp_path, cut):
    written(tmp_path, "a", "b")
    file = tmp_path / "j.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    journal = Journal(file, "k")
    assert list(journal.rows) == ["a"]
    journal.add("c", ROW)
    assert list(Journal(file, "k").rows) == ["a", "c"]


@pytest.mark.parametrize("damage", [b"\0" * 30 + b"\n", b"[1]\n", b'{"no": "image"}\n', b"\xff\n"])
def test_nothing_behind_a_damaged_line_counts(tmp_path, damage):
    written(tmp_path, "a")
    file = tmp_path / "j.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + damage + json.dumps({"image": "b"} | ROW).encode() + b"\n")
    journal = Journal(file, "k")
    assert list(journal.rows) == ["a"]
    journal.add("c", ROW)
    assert file.read_bytes().startswith(whole)
    assert list(Journal(file, "k").rows) == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b"not JSON\n", b"[]\n", b'{"key": "k"}'])
def test_a_head_that_is_not_whole_starts_from_scratch(tmp_path, content):
    (tmp_path / "j.jsonl").write_bytes(content)
    journal = written(tmp_path, "a")
    assert list(journal.rows) == ["a"] and list(Journal(journal.file, "k").rows) == ["a"]


def test_another_key_starts_from_scratch(tmp_path):
    before = written(tmp_path, "a").file.read_bytes()
    other = written(tmp_path, key="other")
    assert other.rows == {} and other.file.read_bytes() == before  # nothing is added yet
    assert Journal(tmp_path / "j.jsonl", "k", from_scratch=True).rows == {}
    other.add("b", ROW)
    assert Journal(tmp_path / "j.jsonl", "k").rows == {}
    assert list(Journal(tmp_path / "j.jsonl", "other").rows) == ["b"]


def test_what_is_finished_is_sorted(tmp_path):
    written(tmp_path, "b", "c", "a").close()
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert lines[0] == {"key": "k"} and [line["image"] for line in lines[1:]] == ["a", "b", "c"]
