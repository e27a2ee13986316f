"""Ctrl-C and SIGTERM, which schedulers send before they kill: an orderly end of a script.

Enters: the signals of the process. Leaves: EndedBySignal, at once or, in `deferred`, when asked.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)


class EndedBySignal(BaseException):
    """The process was told to end; `code` is the exit code a shell expects: 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def handled(handler: Callable) -> Iterator[None]:
    """Both signals go to `handler(number, frame)` within the block; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_now(number: int, frame: object) -> None:
    """A handler that raises EndedBySignal wherever the program is."""
    raise EndedBySignal(number)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within the block a signal waits until the given function is called, which then raises.

    A second one raises at once.
    """
    told: list[int] = []

    def note(number: int, frame: object) -> None:
        told.append(number)
        if len(told) > 1:
            end_now(number, frame)

    def end_if_told() -> None:
        if told:
            raise EndedBySignal(told[0])

    with handled(note):
        yield end_if_told
        end_if_told()
