"""Standard output and error that cannot end the work: what cannot be printed is lost, and told of.

Enters: the streams of the process: a pipe whose reader has gone, a full disk under a log, no stream
at all, a terminal without the letters. Leaves: the same streams, to which writing never fails.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

NAMES = {"stdout": "standard output", "stderr": "standard error"}


class Unfailing:
    """A text stream that takes whatever is written; `error` is the first that was met."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.error = stream, None
        if hasattr(stream, "reconfigure"):  # letters that the stream does not know are spelt out
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with self._losing():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what was not written yet."""
        with self._losing():
            self.stream.flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.error = self.error or error
            with contextlib.suppress(OSError, ValueError):  # what follows goes nowhere
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def unfailing() -> Iterator[None]:
    """Within the block printing raises no error; afterwards it is said what was lost.

    Ends the process with code 1 where standard output was lost: it may have been scores. A reader
    that has gone, such as `head`, wanted no more of it.
    """
    for number in (0, 1, 2):  # else the next file that is opened takes the place of one
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = {name: getattr(sys, name) for name in NAMES}
    streams = {name: Unfailing(old or open(os.devnull, "w")) for name, old in before.items()}
    for name, stream in streams.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        lost = []
        for name, stream in streams.items():
            stream.flush()
            if stream.error:
                lost.append(name)
                reason = getattr(stream.error, "strerror", None) or stream.error
                other = streams["stderr" if name == "stdout" else "stdout"]
                print(
                    f"{NAMES[name]} could not be written ({reason}). What was printed there is "
                    f"lost; files were written as usual.",
                    file=other,
                )
                other.flush()
        for name, old in before.items():
            setattr(sys, name, old)
    if "stdout" in lost and getattr(streams["stdout"].error, "errno", None) != errno.EPIPE:
        sys.exit(1)
