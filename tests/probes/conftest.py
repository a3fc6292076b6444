"""What the tests of the probing engine share."""

import signal
from collections.abc import Iterator

import pytest

from echod.probes.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Return a loop; the handlers of signals are those of the tests again behind it."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in caught}
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
