import signal

import pytest

from misc_utils.signals import EndedBySignal, deferred, end_now, handled


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_at_once_with_the_code_of_a_shell(number, code):
    before = signal.getsignal(number)
    with pytest.raises(EndedBySignal, match=signal.Signals(number).name) as error:
        with handled(end_now):
            signal.raise_signal(number)
            raise AssertionError("not reached")
    assert error.value.code == code and signal.getsignal(number) is before


def test_a_deferred_signal_waits_until_asked():
    done = []
    with pytest.raises(EndedBySignal) as error, handled(end_now), deferred() as end_if_told:
        end_if_told()
        signal.raise_signal(signal.SIGTERM)
        done.append("the batch")
        end_if_told()
        done.append("the next")
    assert done == ["the batch"] and error.value.code == 143


def test_a_deferred_signal_is_not_forgotten_at_the_end():
    with pytest.raises(EndedBySignal), deferred():
        signal.raise_signal(signal.SIGINT)


def test_a_second_signal_does_not_wait():
    done = []
    with pytest.raises(EndedBySignal), deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("the batch")
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert done == ["the batch"]
