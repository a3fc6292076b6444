"""Pages of counters, and the listeners whose counters they are."""

import mmap

from support.loopback import listener

from echod.net.listener import Listener, Protocol
from echod.stats.counters import CounterPage
from echod.stats.totals import Totals

UDP, TCP = listener(port=7), listener(port=7, protocol=Protocol.TCP)


def listeners(count: int) -> list[Listener]:
    """Make that many listeners, UDP and TCP in turn, from port 1 on."""
    return [listener(port=1 + number, protocol=list(Protocol)[number % 2]) for number in range(count)]


def counter_page(*listeners: Listener, slots: int = 1, places: int = 0) -> CounterPage:
    """Lay a page over shared memory of exactly its size, as a generation does."""
    size = CounterPage.size(slots=slots, listeners=len(listeners), places=places)
    return CounterPage(memoryview(mmap.mmap(-1, size)), slots=slots, listeners=listeners, places=places)


def summed(page: CounterPage) -> dict[Listener, list[int]]:
    """Return the row of each listener, summed over the worker slots."""
    return Totals().rows([page])
