"""Many TCP connections are served on a real host, whether or not its policy lets echod serve them together."""

import socket
from contextlib import ExitStack

from support.system.operating import PORT, Host
from support.waiting import SECONDS

MANY = 40


def rings(host: Host) -> list[bool]:
    """Tell of each worker whether it has an io_uring."""
    return ["io_uring" in host.run(["find", f"/proc/{pid}/fd", "-printf", "%l\n"]).stdout for pid in host.workers()]


def serves_many(host: Host) -> bool:
    """Let many connections say something at once; each must get back its own."""
    with host.client(), ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host.address, PORT), timeout=SECONDS)) for _ in range(MANY)
        ]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        return [client.recv(64) for client in clients] == [b"%d" % number for number in range(MANY)]


def test_the_sandbox_lets_them_be_served_together(standing: Host) -> None:
    """With the units as they are, each worker has what it takes."""
    assert set(rings(standing)) == {True}
    assert serves_many(standing)


def test_a_host_that_forbids_it_serves_them_too(bound: Host) -> None:
    """Where io_uring is filtered, as in many a container, nothing is amiss."""
    bound.drop_in("[Service]\nSystemCallFilter=~io_uring_setup io_uring_enter io_uring_register\n")
    bound.systemctl("restart", "echod")
    bound.await_answer()
    assert set(rings(bound)) == {False}
    assert serves_many(bound)
