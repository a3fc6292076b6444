"""What a socket has no room for waits, in order, and the last message of each kind is sent when there is room."""

import socket

from echod.linux.send_queue import SendQueue


def test_messages_wait_in_order_and_the_last_of_each_kind_is_sent() -> None:
    """A replaced message takes its place at the end; what there is room for is sent at once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        queue = SendQueue(ours.send)
        queue.put(b"first", b"at once")
        sent = [b"at once"]
        while not queue.pending:
            queue.put(b"filler", b"filler")
            sent.append(b"filler")
        for kind, message in ((b"a", b"a1"), (b"b", b"b1"), (b"a", b"a2")):
            queue.put(kind, message)
        assert list(queue.pending.values()) == [b"filler", b"b1", b"a2"]
        received = [theirs.recv(64)]
        while queue.pending:
            queue.flush()
            received.append(theirs.recv(64))
        theirs.setblocking(False)
        while len(received) < len(sent) + 2:
            received.append(theirs.recv(64))
        assert received == [*sent, b"b1", b"a2"]


def test_messages_to_a_receiver_that_has_gone_are_dropped() -> None:
    """Nobody waits for them, and nothing is raised."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours:
        theirs.close()
        queue = SendQueue(ours.send)
        queue.put(b"a", b"a1")
        assert queue.pending == {}


def test_no_message_overtakes_one_that_waits() -> None:
    """Where there is no room for the first message, a later one is not sent either, although it would fit."""
    sent: list[bytes] = []

    def send(message: bytes) -> None:
        if len(message) > 2:
            raise BlockingIOError
        sent.append(message)

    queue = SendQueue(send)
    queue.put(b"long", b"too long")
    queue.put(b"short", b"ok")
    assert (sent, list(queue.pending)) == ([], [b"long", b"short"])
    queue.put(b"long", b"no")
    assert sent == [b"ok", b"no"]
