"""An orderly end of a script on Ctrl-C and on SIGTERM, which schedulers send before they kill.

Enters: the signals of the process. Leaves: EndedBySignal, raised at once or, within `deferred`,
where the program allows it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)


class EndedBySignal(BaseException):
    """The process received a signal to end; `code` is the usual exit code for it, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def handled(handler: Callable) -> Iterator[None]:
    """Both signals call `handler(number, frame)` within the block; no effect in other threads."""
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
    """Within the block a signal waits until the yielded function is called, or for the end.

    That function raises EndedBySignal if a signal came. A second signal raises at once.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            end_now(number, frame)

    def end_if_signalled() -> None:
        if received:
            raise EndedBySignal(received[0])

    with handled(note):
        yield end_if_signalled
        end_if_signalled()
