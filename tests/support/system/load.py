"""The load of clients on a host while an operator works on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.system.operating import PORT, Host
from support.udp_load import UdpLoad
from support.waiting import wait_until

RATE = 10_000
KEPT_RATE = 0.95  # what the load must have sent for the figure to mean something


@contextmanager
def loaded(host: Host, seconds: float, kept: float = KEPT_RATE) -> Iterator[None]:
    """Let clients send for at least so long, and for as long as the block takes; nothing may be lost.

    `kept` is the part of RATE that they must have sent, beside what the block makes the machine do.
    """
    begin = time.monotonic()
    with host.client():
        load = UdpLoad(PORT, host=host.address, rate=RATE)
    with load:
        yield
        wait_until(lambda: time.monotonic() > begin + seconds, "the time is over", seconds=seconds)
        report = load.finish()
    assert report.seconds >= seconds - 1
    assert report.rate > kept * RATE
    assert (len(report.lost), report.repeated, report.wrong, report.refused) == (0, 0, 0, 0), str(report)
