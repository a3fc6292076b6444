"""One request from each source port, and one reply to each: what a responder is, and what it saw.

Owns the tries and the waiting. Never decides what a reply means: its caller does. Invariant: a request is sent again
only while it has no reply and no error, at most `TRIES` times.
"""

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final, Generic, TypeVar

from echod.measurement.round_trip import Response
from echod.probes.udp import UdpTransport

TRIES: Final = 3

Meaning = TypeVar("Meaning")


@dataclass(frozen=True, slots=True)
class Answer(Generic[Meaning]):
    """What a reply means; None and a reason where none came."""

    meaning: Meaning | None
    reason: str = "no reply"


def exchange(
    transports: Sequence[UdpTransport],
    request: bytes,
    read: Callable[[bytes], Meaning | None],
    *,
    timeout: int,
    unread: str = "no reply",
) -> list[Answer[Meaning]]:
    """Send a request from each source port; return what `read` makes of the reply to each.

    A reply for which it returns None does not end the wait; `unread` is the reason where no other came. Each try waits
    for so many ns.
    """
    answers: dict[int, Answer[Meaning]] = {}
    replied: set[int] = set()
    for _ in range(TRIES):
        waiting = [each for each in transports if each.port_index not in answers]
        for transport in waiting:
            if error := transport.send(request):
                answers[transport.port_index] = Answer(None, error.reason)
        replied |= _collect(waiting, read, answers, monotonic_ns() + timeout)
    for port_index in replied:
        answers.setdefault(port_index, Answer(None, unread))
    return [answers.get(each.port_index, Answer(None)) for each in transports]


def _collect(
    transports: Sequence[UdpTransport],
    read: Callable[[bytes], Meaning | None],
    answers: dict[int, Answer[Meaning]],
    end: int,
) -> set[int]:
    """Read replies and errors until each source port has one, or until that time, monotonic in ns.

    Return the source ports to which anything was sent back by the target.
    """
    replied: set[int] = set()
    by_descriptor = {each.sock.fileno(): each for each in transports}
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while (now := monotonic_ns()) < end and any(each.port_index not in answers for each in transports):
        for descriptor, _ in poll.poll((end - now) / 10**6):
            transport = by_descriptor[descriptor]
            for received in transport.receive():
                if not isinstance(received, Response):
                    answers.setdefault(transport.port_index, Answer(None, received.reason))
                elif received.from_target:
                    replied.add(transport.port_index)
                    if (meaning := read(received.data)) is not None:
                        answers[transport.port_index] = Answer(meaning, "")
    return replied
