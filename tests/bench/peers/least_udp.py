"""The least that Python can do over UDP: `recvmmsg`, `sendmmsg`, and nothing that is not needed between them.

Usage: least_udp.py PORT. Owns one server on 127.0.0.1 that answers what comes with the two calls that echod makes: no
rule, no count, no look at whom it answers, and the one that the kernel refuses costs those behind it their reply. What
this misses, no daemon misses less that calls the kernel from Python.
"""

import ctypes
import mmap
import select
import signal
import socket
import struct
import sys

HOST = "127.0.0.1"
RECEIVE_BUFFER = 8 << 20
SO_RCVBUFFORCE = 33
PR_SET_PDEATHSIG = 1

SLOTS, SLOT_BYTES, NAME_BYTES = 64, 65_536, 16
HEADER, IOVEC = struct.Struct("<QIxxxxQQQQIxxxxIxxxx"), struct.Struct("<QQ")
"""`struct mmsghdr` (recvmmsg(2)) and `struct iovec` of a 64-bit little-endian Linux."""

LOOKS = 30
"""In vain before it sleeps: some 20 us, for which echod, too, looks before it sleeps."""


def main() -> None:
    """Serve until ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # nobody stops it when the benchmark is killed
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.bind((HOST, int(sys.argv[1])))
    echo(sock)


def echo(sock: socket.socket) -> None:
    """Answer for ever."""
    headers, rest = SLOTS * HEADER.size, SLOTS * (IOVEC.size + NAME_BYTES)
    memory, payload = mmap.mmap(-1, headers + rest), mmap.mmap(-1, SLOTS * SLOT_BYTES)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = ctypes.addressof(ctypes.c_char.from_buffer(payload))
    for slot in range(SLOTS):
        iovec, name = headers + slot * IOVEC.size, headers + SLOTS * IOVEC.size + slot * NAME_BYTES
        IOVEC.pack_into(memory, iovec, first + slot * SLOT_BYTES, SLOT_BYTES)
        HEADER.pack_into(memory, slot * HEADER.size, base + name, NAME_BYTES, base + iovec, 1, 0, 0, 0, 0)
    numbers = memoryview(memory).cast("Q")
    received = [numbers[7 : count * 8 : 8] for count in range(SLOTS + 1)]
    room = [numbers[headers // 8 + 1 : headers // 8 + count * 2 : 2] for count in range(SLOTS + 1)]
    whole = [memoryview(SLOT_BYTES.to_bytes(8, "little") * count).cast("Q") for count in range(SLOTS + 1)]
    awake = select.poll()
    awake.register(sock.fileno(), select.POLLIN)
    receive, send = (getattr(ctypes.CDLL(None), name) for name in ("recvmmsg", "sendmmsg"))
    fd, at, in_vain = sock.fileno(), ctypes.c_void_p(base), 0
    while True:
        count = receive(fd, at, SLOTS, socket.MSG_DONTWAIT, None)
        if count > 0:
            room[count][:] = received[count]
            send(fd, at, count, socket.MSG_DONTWAIT)
            room[count][:] = whole[count]
            in_vain = 0
        elif (in_vain := in_vain + 1) > LOOKS:
            awake.poll()


if __name__ == "__main__":
    main()
