"""The discard service (RFC 863): every byte is read and counted, none is sent. A FIN of the peer closes.

Owns the reading alone. A self test is echoed: else nobody could tell a listener that discards from one that hangs.
"""

from dataclasses import replace

from echod.tcp.connection import READ_BYTES, READS, RECEIVED_BYTES, WAIT_READ, Connection, IoState
from echod.tcp.connections import Connections, IoBuffers, OnClose, Timeouts


class DiscardingConnection(Connection):
    """An accepted connection whose bytes are discarded."""

    __slots__ = ()

    def move(self, buffer: memoryview, row: memoryview, *, more: bool) -> IoState:
        """Read what has come, as a connection that echoes does."""
        if self.self_test:
            return super().move(buffer, row, more=more)
        for _ in READS:
            try:
                received = self.sock.recv_into(buffer, READ_BYTES)
            except BlockingIOError:
                return WAIT_READ
            if not received:
                return IoState.END_OF_STREAM
            row[RECEIVED_BYTES] += received
            if received < READ_BYTES and not more:
                return WAIT_READ
        self.streaming = True
        return IoState.REARM


def discarding(*, io: IoBuffers, row: memoryview, timeouts: Timeouts, on_close: OnClose) -> Connections:
    """Make connections that discard. They do without the io_uring, whose batches send what they have received."""
    io = replace(io, io_uring=None)
    return Connections(io=io, row=row, timeouts=timeouts, on_close=on_close, connection=DiscardingConnection)
