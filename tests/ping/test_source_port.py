"""`echod ping --source-port`: a path that was found bad is probed again, by the ports that it hangs on."""

import re
import socket

import pytest
from support.loopback import at, hear, udp_client, udp_server
from support.ping.pinging import Pinged, ended, ping, start
from support.ports import free_port


def test_datagrams_come_from_the_ports_that_were_asked_for() -> None:
    """The first, and those that follow it, in turn; the report names the same."""
    first = free_port(3)
    with udp_server() as server:
        words = ("--json", "-i", "1ms", "-c", 6, "--sources", 3, "--source-port", first)
        with start(*words, f"127.0.0.1:{at(server)[1]}") as process:
            seen = []
            for _ in range(6):
                data, asker = hear(server)
                seen.append(asker[1])
                server.sendto(data, asker)
            out, err = ended(process)
    assert seen == [first, first + 1, first + 2] * 2
    found = Pinged(process.returncode, out, err)
    assert sorted(each["source_port"] for each in found.objects[:-1]) == sorted(seen)
    assert [each["source_port"] for each in found.summary["sources"]] == [first, first + 1, first + 2]


def test_connections_come_from_the_port_that_was_asked_for_again_and_again() -> None:
    """One run after the other, to the same address: the kernel does not keep the port of the last one back."""
    first = free_port(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(3):
            words = ("-c", 1, "-W", 10, "--source-port", first, f"tcp://127.0.0.1:{server.getsockname()[1]}")
            with start(*words) as process:
                peer, asker = server.accept()
                with peer:
                    peer.sendall(peer.recv(100))
                    out, err = ended(process)
            assert (asker[1], process.returncode, err) == (first, 0, "")
            assert "1 packets transmitted, 1 received" in out


@pytest.mark.parametrize("words", [("--mtu",), ("-f", "-c", 8)])
def test_a_flood_and_a_search_for_the_path_mtu_have_their_source_port(words: tuple[object, ...]) -> None:
    """Also with an address of this host."""
    first = free_port(1)
    words = (*words, "-W", "0.2", "-I", "127.0.0.1", "--source-port", first)
    with udp_server() as server, start(*words, f"127.0.0.1:{at(server)[1]}") as run:
        assert hear(server)[1] == ("127.0.0.1", first)
        ended(run)


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_port_that_somebody_has_is_told_with_a_way_out(kind: str) -> None:
    """Before the first probe, in one sentence."""
    with udp_client() as taken, socket.create_server(("127.0.0.1", 0)) as listening:
        number = at(taken)[1] if kind == "udp" else listening.getsockname()[1]
        found = ping("-c", 1, "-I", "127.0.0.1", "--source-port", number, f"{kind}://127.0.0.1:9")
    assert (found.code, found.out) == (2, "")
    assert re.fullmatch(
        rf"echod: --source-port {number}: another socket of this host has this port: choose another one; "
        rf"`ss -a.. 'sport = {number}'` shows who has it\n",
        found.err,
    )
