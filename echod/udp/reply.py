"""The reply to a batch: one `sendmmsg` of the same bytes, to their senders, from the addresses they were sent to.

Owns what is sent, and as how many messages. Trains go out as trains, and adjacent slots that could form a train are
joined into one, because most of the cost of an echo is the path of each packet through the kernel. Never waits; what
the kernel refuses is left to `transmit`. Invariant: after `send`, datagrams = refused + replied + failed, and one
datagram that cannot be answered has never cost another its reply.
"""

from collections.abc import Hashable
from typing import Final

from echod.linux.mmsg import NAMES
from echod.linux.mmsg_layout import SEGMENT_CMSG_BYTES
from echod.udp.batch import Batch
from echod.udp.sock import UdpSocket
from echod.udp.trains import WORTH_JOINING, find_alike, find_runs
from echod.udp.transmit import Dispatch, Outgoing

FEWEST_JOINED: Final = 4
"""In a batch of fewer slots, the search for slots to join does not pay."""


def send(batch: Batch, sock: UdpSocket) -> None:
    """Send every slot that was not refused back to its peer, from the address it was sent to.

    Raises OSError if the descriptor is not a socket.
    """
    vector, count, runs = batch.vector, batch.span.count, None
    if batch.failures:
        batch.failures = {}
    if batch.refused and len(batch.refused) == count:
        batch.replied = batch.replied_octets = 0
        return
    if batch.pattern is not None:
        headers_at = vector.answers_at
    else:
        headers_at = vector.received_at
        batch.span.iov_length[:] = batch.span.length
    if batch.refused or (count >= FEWEST_JOINED and _may_have_neighbours(batch, sock)):
        found = _runs(batch, sock)
        if batch.refused or 0 < len(found) * WORTH_JOINING <= count:
            runs, count, headers_at = found, len(found), vector.composed_at
            _compose(batch, sock, found)
    sent = vector.send(sock.fd, headers_at, count) if count else 0
    if sent == count and not batch.refused:
        batch.replied, batch.replied_octets = batch.datagrams, batch.octets
    else:
        _find_out(batch, sock, runs, sent)


def _may_have_neighbours(batch: Batch, sock: UdpSocket) -> bool:
    """Tell from two pairs of slots whether adjacent slots often share a peer, so that the search may pay."""
    names, (first, second, before, middle) = batch.names, batch.span.pairs
    if names[first] != names[second] and names[before] != names[middle]:
        return False
    return sock.longest_joined > 0 and len(batch.segments) * WORTH_JOINING <= batch.span.count


def _find_out(batch: Batch, sock: UdpSocket, runs: list[range] | None, sent: int) -> None:
    """Send the messages after the first `sent`, and record the outcome of each."""
    vector, span = batch.vector, batch.span
    if batch.pattern is not None:
        out = slots = Outgoing(vector.answers_at, vector.answers_length[: span.count], batch.trains)
    else:
        out = slots = Outgoing(vector.received_at, span.length, batch.trains)
    if runs is not None:
        weights = [batch.weight(run.start) if len(run) == 1 else len(run) for run in runs]
        out = Outgoing(vector.composed_at, vector.composed_length[: len(runs)], weights, runs)
    dispatch = Dispatch(vector, sock, slots, batch.segments)
    dispatch.send(out, sent)
    batch.replied, batch.replied_octets, batch.failures = dispatch.replied, dispatch.octets, dispatch.failures
    batch.failed = dispatch.failed


def _runs(batch: Batch, sock: UdpSocket) -> list[range]:
    """Split the slots that were not refused into runs that can each be one message; empty if that does not pay."""
    span, pattern = batch.span, batch.pattern
    keys: list[Hashable]
    if pattern is not None:
        if not batch.refused and not batch.segments:
            return find_alike(batch.names, pattern.length, sock.longest_joined)
        lengths, keys = [pattern.length] * span.count, [*batch.peers]
    else:
        lengths, singles = span.length.tolist(), {form for form in batch.forms if form and form.train is None}
        if len(singles) == 1:
            # Slots with the same length, peer and control messages have equal keys.
            keys = list(zip(lengths, batch.peers, *sock.control.keys(span, singles.pop()), strict=True))
        else:
            keys = list(range(span.count))  # the socket is changing from one form to another, or has no single datagram
    for slot in batch.segments:
        keys[slot] = slot  # already a train, equal to no other slot
    for slot in batch.refused:
        keys[slot] = None
    return find_runs(keys, lengths, sock.longest_joined)


def _compose(batch: Batch, sock: UdpSocket, runs: list[range]) -> None:
    """Build one message for each run, over the payload of its slots."""
    vector, pattern, name_length = batch.vector, batch.pattern, NAMES[sock.family][0]
    if pattern is not None:
        alone = range(vector.answers_control_at, vector.answers_control_at + pattern.form.length)
        joined = range(vector.answers_joined_at, vector.answers_joined_at + SEGMENT_CMSG_BYTES + pattern.form.length)
        for message, run in enumerate(runs):
            control = joined if len(run) > 1 else alone
            vector.compose(message, run, name_length, vector.answers_iovecs_at, control)
        return
    size = vector.control_bytes
    for message, run in enumerate(runs):
        slot = run.start
        at = vector.control_at + slot * size
        if len(run) > 1:
            turned = sock.control.join(
                batch.span.length[slot], vector.memory[at : at + batch.span.control_length[slot]]
            )
            at, length = vector.composed_control_at + message * size, len(turned)
            vector.memory[at : at + length] = turned
        else:
            length = batch.span.control_length[slot]
        vector.compose(message, run, name_length, vector.iovecs_at, range(at, at + length))
