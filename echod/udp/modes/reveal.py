"""The reply tells what the server saw of the datagram: see `wire.reveal`.

It tells about paths and hosts, so it is for loopback and private sources alone, whatever `access` allows besides. Owns
what is told; a datagram that is too short for it gets its own bytes back.
"""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from socket import if_indextoname
from typing import Final

from echod.linux.mmsg_layout import SLOT_BYTES
from echod.net.networks import AddressMap
from echod.net.peers import address_of
from echod.stats.outcomes import Drop
from echod.stats.refusals import Tally
from echod.udp.arrivals import Arrivals
from echod.udp.batch import Batch
from echod.udp.cmsg import Form
from echod.udp.refusal import refuse
from echod.udp.reply import send
from echod.udp.sock import UdpSocket
from echod.wire.reveal import Seen, encode

_NETWORKS: Final = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), ("::1/128", "fc00::/7")
_NEAR: Final = {
    length: AddressMap([([ip_network(each) for each in networks], True)], otherwise=False)
    for length, networks in zip((4, 16), _NETWORKS, strict=True)
}
"""Whether an address is loopback or private (RFC 1918, RFC 4193), by its length in bytes."""

_ECN: Final = 0x03
_ECN_BITS: Final = 2


class Reveal:
    """The reply of one listener in one worker."""

    def __init__(self, sock: UdpSocket, row: memoryview, tally: Tally) -> None:
        """Count refusals into this row and this tally."""
        self._row = row
        self._tally = tally
        self._port: int = sock.sock.getsockname()[1]

    def reply(self, batch: Batch, sock: UdpSocket) -> None:
        """Write into each datagram of a batch what was seen of it, and send it back."""
        names: dict[int, str] = {}
        arrivals = batch.arrivals
        for slot in sorted(set(range(batch.span.count)) - batch.refused - batch.tests):
            peer, form = batch.peer(slot), batch.forms[slot]
            address = address_of(peer)
            if not _NEAR[len(address)].value(int.from_bytes(address)):
                refuse(batch, self._row, self._tally, slot, Drop.ACCESS, batch.weight(slot))
            elif form is not None:
                index = batch.interface(slot)
                if index not in names:
                    names[index] = _name(index)
                self._write(batch, slot, self._see(batch, slot, form, arrivals, names[index]))
        send(batch, sock)

    def _see(self, batch: Batch, slot: int, form: Form, arrivals: Arrivals, interface: str) -> Seen:
        """Return what was seen of a slot."""
        peer, vector = batch.peer(slot), batch.vector
        source = address_of(peer)
        at = vector.control_at + slot * vector.control_bytes + 4 * form.spec_dst
        return Seen(
            peer=str(ip_address(source)),
            peer_port=int.from_bytes(peer[2:4]),
            local=str(ip_address(vector.memory[at : at + len(source)])),
            local_port=self._port,
            ttl=arrivals.ttls[slot],
            dscp=arrivals.toses[slot] >> _ECN_BITS,
            ecn=arrivals.toses[slot] & _ECN,
            length=batch.span.length[slot],
            interface=interface,
            received_ns=arrivals.stamps[slot],
            train=batch.weight(slot),
        )

    @staticmethod
    def _write(batch: Batch, slot: int, seen: Seen) -> None:
        """Write this into each datagram of a slot that has room for it."""
        octets, first, after = batch.vector.payload_octets, slot * SLOT_BYTES, slot * SLOT_BYTES + seen.length
        step = batch.segments.get(slot, seen.length)
        whole, rest = divmod(seen.length, step) if step else (0, 0)
        for length, start, count in ((step, first, whole), (rest, after - rest, 1)):
            payload = encode(replace(seen, length=length))
            if payload is not None:
                octets[start : start + count * length] = payload * count


def _name(index: int) -> str:
    """Return the name of an interface, empty if it is gone."""
    try:
        return if_indextoname(index)
    except OSError:
        return ""
