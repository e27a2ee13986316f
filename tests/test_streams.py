"""Output that cannot be written: the work is done all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A script that prints, logs, shows progress and an odd letter, and then has done its work.
SCRIPT = """
import logging, os, sys
from dataclasses import dataclass
from pathlib import Path
from tqdm import tqdm
from misc_utils import command_line

@dataclass(frozen=True)
class Settings:
    "Nothing to set."
    done: Path = Path("done")

def main(settings):
    for _ in tqdm(range(3)):
        print("a line " * 40_000, flush=True)  # more than a pipe holds
        logging.getLogger("any").warning("a note")
    print("caf\\udce9 \\u0416", flush=True)
    with settings.done.open("w") as opened:
        os.write(2, b"as libraries of C write\\n")  # into no file that took the place of a stream
        opened.write("all of it")
    print("after it")

command_line.run(main, Settings, None, needs_keras=False)
"""


def run(folder, redirected, **named):
    code = folder / "script.py"
    code.write_text(SCRIPT)
    words = f'exec "{sys.executable}" "{code}" {redirected}'
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"} | named
    command = ["bash", "-c", words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (folder / "done").read_text() == "all of it", done.stderr
    assert "Traceback" not in done.stderr + done.stdout and "ignored" not in done.stderr
    return done


def test_a_reader_that_has_gone(tmp_path):
    code = tmp_path / "script.py"
    code.write_text(SCRIPT)
    words = f'"{sys.executable}" "{code}" | head -c 1; exit ${{PIPESTATUS[0]}}'
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "a"
    assert (tmp_path / "done").read_text() == "all of it"
    assert "standard output could not be written (Broken pipe). What was printed" in done.stderr
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_log(tmp_path):
    done = run(tmp_path, "> /dev/full")
    assert done.returncode == 1
    assert "standard output could not be written (No space left on device)" in done.stderr
    done = run(tmp_path, "2> /dev/full")
    assert done.returncode == 0 and done.stdout.count("a line") == 120_000
    assert "standard error could not be written (No space left" in done.stdout
    assert "after it" in done.stdout
    assert run(tmp_path, "> /dev/full 2>&1").returncode == 1


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed, tmp_path):
    done = run(tmp_path, closed)
    assert done.returncode == 0
    if ">&-" not in closed.split():
        assert "after it" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["done", "script.py"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "latin-1:strict"])
def test_letters_that_a_terminal_does_not_know(encoding, tmp_path):
    done = run(tmp_path, "", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and r"caf\udce9" in done.stdout and "after it" in done.stdout


def test_the_streams_of_before_come_back(capsys):
    from misc_utils import streams

    before = sys.stdout, sys.stderr
    with streams.unfailing():
        print("one")
        assert sys.stdout is not before[0]
        assert sys.stdout.isatty() is False
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "one\n"
