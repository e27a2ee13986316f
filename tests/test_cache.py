import errno
import json
import os

import numpy as np
import pytest

from datasets import cache
from datasets.cache import load_or_build
from misc_utils.errors import UserError


def read(image_id, content):
    if content == b"bad":
        raise ValueError("not a picture")
    return np.full((2, 2, 1), len(content), np.uint8), 10 * len(content), 7


@pytest.fixture
def sources(tmp_path):
    files = {}
    for k, name in enumerate(("c", "a", "b")):
        files[name] = tmp_path / name
        files[name].write_bytes(b"x" * (k + 1))
    return files


def load(tmp_path, sources, **options):
    return load_or_build(tmp_path / "cache", "name", sources, read, (2, 2, 1), **options)


def test_rows_follow_the_sorted_ids(tmp_path, sources):
    cached = load(tmp_path, sources)
    assert cached.image_ids == ("a", "b", "c")
    assert cached.array[:, 0, 0, 0].tolist() == [2, 3, 1]
    assert cached.heights.tolist() == [20, 30, 10] and cached.widths.tolist() == [7, 7, 7]
    assert cached.rows(["c", "a"]).tolist() == [2, 0]
    assert cached.size_of("b") == (30, 7)
    with pytest.raises(KeyError):
        cached.size_of("d")
    assert isinstance(cached.array, np.memmap) and not cached.array.flags.writeable
    assert sorted(os.listdir(tmp_path / "cache")) == [".locks", "name.json", "name.npy"]


def test_manifest_tells_sources(tmp_path, sources):
    load(tmp_path, sources)
    manifest = json.loads((tmp_path / "cache" / "name.json").read_text())
    assert manifest["image_ids"] == ["a", "b", "c"] and manifest["bytes"] == [2, 3, 1]
    assert manifest["format"] == 3 and manifest["shape"] == [2, 2, 1]
    assert all(len(digest) == 64 for digest in manifest["sha256"])


@pytest.fixture
def built(tmp_path, sources, caplog):
    """A cache that is there; afterwards, a line in the log means that it was built again."""
    caplog.set_level("INFO")
    load(tmp_path, sources)
    assert "does not exist yet" in caplog.text
    caplog.clear()
    return tmp_path / "cache"


def test_loaded_again_without_building(tmp_path, sources, built, caplog):
    load(tmp_path, sources)
    assert not caplog.text


def test_without_a_lock_it_is_read_and_never_built(tmp_path, sources, built, caplog, monkeypatch):
    """Somebody else's folder: another process may be building there."""

    def refuse(folder, name, wait):
        raise PermissionError(errno.EACCES, "no", str(folder / ".locks"))

    monkeypatch.setattr(cache, "locked", refuse)
    assert load(tmp_path, sources).array[:, 0, 0, 0].tolist() == [2, 3, 1]
    theirs = built / ".partial_0123456789ab_name.npy"
    theirs.write_text("half")
    sources["d"] = sources["c"]
    with pytest.raises(PermissionError):
        load(tmp_path, sources)
    assert theirs.exists() and not caplog.text


def test_content_of_the_same_length_changed(tmp_path, sources, built, caplog):
    before = load(tmp_path, sources).fingerprint
    sources["a"].write_bytes(b"yy")
    os.utime(sources["a"], (1, 1))
    assert load(tmp_path, sources).fingerprint != before
    assert "changed" in caplog.text


def test_a_new_time_alone_builds_nothing(tmp_path, sources, built, caplog):
    before = load(tmp_path, sources).fingerprint
    os.utime(sources["a"], (1, 1))
    assert load(tmp_path, sources).fingerprint == before
    assert not caplog.text
    manifest = json.loads((built / "name.json").read_text())
    assert manifest["times"][0] == 10**9  # looked at once, not hashed at each start


def test_images_came_and_went(tmp_path, sources, built, caplog):
    del sources["c"]
    (tmp_path / "d").write_bytes(b"dddd")
    sources["d"] = tmp_path / "d"
    assert load(tmp_path, sources).array[:, 0, 0, 0].tolist() == [2, 3, 4]
    assert "1 images were added and 1 removed" in caplog.text


@pytest.mark.parametrize("file", ["name.npy", "name.json"])
def test_a_deleted_file_is_built_again(tmp_path, sources, built, caplog, file):
    (built / file).unlink()
    assert load(tmp_path, sources).array[:, 0, 0, 0].tolist() == [2, 3, 1]
    assert "building" in caplog.text


def test_a_cut_array_is_built_again(tmp_path, sources, built, caplog):
    content = (built / "name.npy").read_bytes()
    (built / "name.npy").write_bytes(content[:-3])
    assert load(tmp_path, sources).array[:, 0, 0, 0].tolist() == [2, 3, 1]
    assert "damaged" in caplog.text


def test_other_dependencies_build_again(tmp_path, sources, built, caplog):
    first = load(tmp_path, sources)
    second = load(tmp_path, sources, made_from="crops 1")
    assert "other settings" in caplog.text
    assert first.fingerprint != second.fingerprint


def test_every_bad_file_is_named_and_nothing_left(tmp_path, sources):
    sources["a"].write_bytes(b"bad")
    sources["c"].write_bytes(b"bad")
    with pytest.raises(UserError) as error:
        load(tmp_path, sources)
    assert str(sources["a"]) in str(error.value) and str(sources["c"]) in str(error.value)
    assert "2 of 3" in str(error.value) and str(sources["b"]) not in str(error.value)
    assert os.listdir(tmp_path / "cache") == [".locks"]


def test_a_failed_build_leaves_no_trust_in_the_old_array(tmp_path, sources, built):
    sources["a"].write_bytes(b"bad")
    for _ in range(2):
        with pytest.raises(UserError):
            load(tmp_path, sources)
