"""The packets of measuring protocols that carry probes: UDPEchoPlus and STAMP.

Owns what is put around a payload, and what is read out of a reply. Never remembers. Invariant: what a responder may
change is set back before a reply is compared with its probe, and nothing else is, so that every other byte is verified.
The number of the probe, and what a frame adds to it, is in the first four bytes of both.
"""

from dataclasses import dataclass, field
from typing import Final

from echod.errors import UsageError
from echod.measurement.responder import Report
from echod.net.mode import Mode
from echod.wire import stamp, tlv, udpecho_plus
from echod.wire.authentication import CODE_BYTES, code_of

STAMP_PORT: Final = stamp.PORT

_MICROSECOND: Final = 1000

_CLASS_OF_SERVICE_BYTES: Final = tlv.HEADER_BYTES + 4
_HMAC_BYTES: Final = tlv.HEADER_BYTES + CODE_BYTES


class PlusFrame:
    """UDPEchoPlus (TR-143, A.1): 24 bytes before the payload."""

    mode = Mode.UDPECHO_PLUS
    offset = 0
    start = udpecho_plus.HEADER_BYTES

    def check(self, size: int) -> None:
        """Raise UsageError if a packet has no such size."""
        if size < self.start:
            raise UsageError(f"ping: -s {size}: a packet of UDPEchoPlus has {self.start} bytes or more")

    def request(self, sequence: int, _sent: int, _size: int, payload: bytes) -> bytes:
        """Return a request."""
        return udpecho_plus.request(sequence, sequence, payload)

    def open(self, data: bytes) -> tuple[bytes, Report | None]:
        """Return a reply as the request that it answers, and what the responder wrote; a plain echo writes nothing."""
        if len(data) < self.start or not any(data[udpecho_plus.RESPONSE_SEQUENCE_AT : udpecho_plus.FAILURES_AT + 4]):
            return data, None
        reply = udpecho_plus.read(data)
        report = Report(
            received=reply.received * _MICROSECOND,
            replied=reply.replied * _MICROSECOND,
            wraps=udpecho_plus.WRAP * _MICROSECOND,
            count=reply.response_sequence + reply.failures,
            failures=reply.failures,
        )
        return udpecho_plus.request(reply.sequence, reply.iteration, reply.data), report


@dataclass(frozen=True, slots=True, kw_only=True)
class StampFrame:
    """STAMP (RFC 8762): the packet of a Session-Sender, and TLVs (RFC 8972): class of service, and extra padding.

    The payload is the padding. With a key packet and TLVs are authenticated.
    """

    key: bytes = b""
    ssid: int = 0
    dscp: int = 0
    """Of the probes; it is asked for in the replies too."""
    offset: int = field(default=0, compare=False)
    """What is added to the number of a probe: far from small, so that the number of a reflector that counts (stateful
    mode) differs from that of one that copies the sender's."""

    @property
    def mode(self) -> Mode:
        """Return what answers it."""
        return Mode.STAMP

    @property
    def _base(self) -> int:
        return stamp.layout(self.key).length

    @property
    def start(self) -> int:
        """Bytes before the payload."""
        return self._base + _CLASS_OF_SERVICE_BYTES + (_HMAC_BYTES if self.key else 0) + tlv.HEADER_BYTES

    def check(self, size: int) -> None:
        """Raise UsageError if a packet has no such size."""
        if size < self.start and size != self._base:
            which = "an authenticated packet" if self.key else "a packet"
            raise UsageError(
                f"ping: -s {size}: {which} of STAMP has {self._base} bytes, or {self.start} or more with its TLVs"
            )

    def request(self, sequence: int, sent: int, size: int, payload: bytes) -> bytes:
        """Return a request."""
        sequence = (sequence + self.offset) % stamp.WRAP
        if size == self._base:
            return stamp.request(sequence, sent, ssid=self.ssid, key=self.key)
        asked = tlv.encode(tlv.Type.CLASS_OF_SERVICE, tlv.ClassOfService(wanted=self.dscp).value)
        packet = stamp.request(sequence, sent, ssid=self.ssid, tlvs=asked, key=self.key)
        return packet + tlv.encode(tlv.Type.EXTRA_PADDING, payload)

    def open(self, data: bytes) -> tuple[bytes, Report | None]:
        """Return a reply as the request that it answers, and what the reflector wrote; a plain echo writes nothing.

        A reply that does not verify with the key is left as it is, and so differs from any request. One of TWAMP-Light
        lacks three zeros at its end, and is that of a base packet.
        """
        places = stamp.layout(self.key)
        try:
            reply = stamp.read_reply(data, self.key)
        except ValueError:
            return data, None
        if not any(data[places.received : places.received + 8]):
            return data, None
        request = bytearray(data)
        if len(data) == stamp.SHORT_BYTES:
            request += bytes(self._base - stamp.SHORT_BYTES)
        for to, source, length in (
            (0, places.sender_sequence, 4),
            (places.stamp, places.sender_stamp, 8),
            (places.error_estimate, places.sender_error_estimate, 2),
        ):
            request[to : to + length] = data[source : source + length]
            request[source : source + length] = bytes(length)
        for at, length in ((places.received, 8), (places.ttl, 4), *places.zeros):
            request[at : at + length] = bytes(len(request[at : at + length]))
        if self.key:
            request[stamp.HMAC_AT : self._base] = code_of(self.key, bytes(request[: stamp.HMAC_AT]))
        service = self._open_tlvs(request, reply.tlvs)
        report = Report(
            received=reply.received,
            replied=reply.sent,
            wraps=stamp.WRAP * 10**9,
            count=(reply.sequence + 1) % stamp.WRAP,
            copied=reply.sequence == reply.sender_sequence,
            ttl=reply.ttl,
            dscp=service.dscp if service else None,
            request_dscp=self.dscp if service else None,
            reply_dscp=service.wanted if service and not service.refused else None,
        )
        return bytes(request), report

    def _open_tlvs(self, request: bytearray, tlvs: bytes) -> tlv.ClassOfService | None:
        """Set back the TLVs of a packet, where the reflector may have written; return the class of service."""
        service, at = None, self._base
        for each in tlv.decode(tlvs):
            known = not each.flags & tlv.UNRECOGNIZED
            request[at] |= tlv.UNRECOGNIZED
            begin = at + tlv.HEADER_BYTES
            if known and each.type == tlv.Type.CLASS_OF_SERVICE and len(each.value) == _CLASS_OF_SERVICE_BYTES - 4:
                service = tlv.ClassOfService.read(each.value)
                asked = tlv.ClassOfService(wanted=service.wanted).value
                request[begin : begin + len(asked)] = asked
            elif known and self.key and each.type == tlv.Type.HMAC and len(each.value) == CODE_BYTES:
                request[begin : begin + CODE_BYTES] = code_of(self.key, bytes(request[:4] + request[self._base : at]))
            at = begin + len(each.value)
        return service


Frame = PlusFrame | StampFrame
