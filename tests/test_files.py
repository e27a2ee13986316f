import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest

from misc_utils import files
from misc_utils.errors import UserError


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_there_whole_or_as_before(tmp_path):
    file = tmp_path / "a.txt"
    files.write_text(file, "one\r\n")
    with pytest.raises(KeyError), files.partial_file(file) as partial:
        partial.write_text("tw")
        assert file.read_bytes() == b"one\r\n"
        raise KeyError
    assert file.read_bytes() == b"one\r\n" and names(tmp_path) == ["a.txt"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace

    def note_fsync(descriptor):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note_fsync)
    monkeypatch.setattr(
        files.os, "replace", lambda one, two: (order.append("name"), replace(one, two))
    )
    files.write_text(tmp_path / "a.txt", "one")
    assert order == ["file", "name", "folder"]
    with files.partial_file(tmp_path / "b.txt", durable=False) as partial:
        partial.write_text("two")
    assert order[3:] == ["name"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full. Free some space"),
        (errno.EDQUOT, "your quota"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
    ],
)
def test_what_is_wrong_with_a_disk_is_said_of_the_file_itself(tmp_path, number, words):
    with pytest.raises(UserError, match=rf"a\.txt: .*{words}") as error:
        with files.partial_file(tmp_path / "a.txt") as partial:
            raise OSError(number, os.strerror(number), str(partial))
    assert files.PARTIAL not in str(error.value) and names(tmp_path) == []
    with pytest.raises(UserError, match=rf"a\.txt: .*{words}"):
        with files.partial_file(tmp_path / "a.txt"):
            raise RuntimeError(f"HDF5 says: errno = {number}, error message = '...'")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="not a whole picture"):
        with files.partial_file(tmp_path / "a.txt"):
            raise OSError("not a whole picture")
    assert files.explained(ValueError("x")) is None
    assert files.explained(OSError(errno.ENOENT, "not there", "a")) is None
    assert files.explained(OSError(errno.ENOSPC, "no file is named")) is None


def test_a_disk_without_room_is_seen_before_the_array_is_mapped(tmp_path, monkeypatch):
    """A write to a mapped page without room behind it would end the process."""
    seen = []

    def full(descriptor, start, size):
        seen.append(size)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"a\.npy: the disk is full"):
        with files.partial_file(tmp_path / "a.npy") as partial:
            files.new_array(partial, np.float32, (10, 3))
    assert seen[0] >= 120 and names(tmp_path) == []


def test_an_array_comes_back(tmp_path):
    array = files.new_array(tmp_path / "a.npy", np.float16, (3, 2))
    array[:] = [[1, 2], [3, 4], [5, 6]]
    array.flush()
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_leftovers_of_killed_processes_go_away(tmp_path):
    old, new = tmp_path / ".partial_0123456789ab_a.txt", tmp_path / ".partial_ba9876543210_a.txt"
    other = tmp_path / ".partial_0123456789ab_aa.txt"
    for file in (old, new, other):
        file.write_text("half")
    os.utime(old, (time.time() - 4000,) * 2)
    files.write_text(tmp_path / "a.txt", "whole")  # it may be another process that writes `new`
    assert names(tmp_path) == [other.name, new.name, "a.txt"]
    files.remove_partials(tmp_path, "a.txt")  # it holds the lock
    assert names(tmp_path) == [other.name, "a.txt"]
    files.remove_partials(tmp_path)
    assert names(tmp_path) == ["a.txt"]


def hold(folder, taken, go):
    with files.locked(folder, "work"):
        taken.set()
        go.wait(20)
        os._exit(9)  # as a kill does


def test_one_process_at_a_time_and_a_kill_frees_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    context = multiprocessing.get_context("spawn")
    taken, go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, taken, go))
    process.start()
    assert taken.wait(20)
    with pytest.raises(files.InUseError), files.locked(tmp_path, "work"):
        pass
    with files.locked(tmp_path, "other work"):
        pass
    assert not caplog.records
    go.set()
    with files.locked(tmp_path, "work", wait="waiting for it"):
        pass
    process.join()
    assert process.exitcode == 9


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_said_once_and_used(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.locked(tmp_path, "work"):
        (tmp_path / "done").touch()
    assert caplog.text.count("has no file locks") == 1 and (tmp_path / "done").exists()


def test_a_file_deleted_while_it_is_written_is_said(tmp_path):
    for deleted in ("file", "folder"):
        folder = tmp_path / deleted
        folder.mkdir()
        with pytest.raises(UserError, match=r"a\.txt: another process deleted it"):
            with files.partial_file(folder / "a.txt") as partial:
                partial.write_text("half")
                partial.unlink() if deleted == "file" else shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError), files.partial_file(tmp_path / "a.txt"):
        (tmp_path / "source").read_text()


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "model_data").symlink_to(tmp_path / "not there")
    with pytest.raises(FileExistsError) as error, files.locked(tmp_path / "model_data", "work"):
        pass
    assert "model_data: exists, but is not a folder" in files.explained(error.value)


def test_room_is_asked_for_where_it_cannot_be_reserved(tmp_path, monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "posix_fallocate")
    files.take_room(tmp_path / "small", 10)
    with pytest.raises(OSError, match="No space left on device") as error:
        files.take_room(tmp_path / "large", shutil.disk_usage(tmp_path).total + 1)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path / "large")
