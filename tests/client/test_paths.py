"""`echod ping` over paths that fail: what is in the way is named, with who said so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as File

import pytest
from client.deeds import shuffled
from client.path import ROUTER, SERVER, Path
from client.pinging import Pinged, mischief, ping
from loopback import needs_root
from running import Daemon
from system.network import entered

pytestmark = needs_root

FAMILIES = pytest.mark.parametrize("family", [4, 6])
HEADERS = {4: 28, 6: 48}
NOWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
CLOSED = 9
MUTE = """output: icmp type destination-unreachable drop
output: icmpv6 type packet-too-big drop"""
HARM = ["drop", "duplicate", "corrupt", "drop out", "duplicate out", "corrupt out", "overtaken", "delay", "late"]
NAMED = [
    *("sent", "received", "in_flight", "lost", "duplicates", "corrupt", "late", "reordered"),
    *("truncated", "extended", "elsewhere", "foreign", "refused", "errors"),
]


@contextmanager
def laid(folder: File, *, routed: bool) -> Iterator[Path]:
    """Lay a path with echod at its end, on port 7 of UDP and TCP."""
    config = {"listeners": [f"{scheme}://{host}:7" for scheme in ("udp", "tcp") for host in ("0.0.0.0", "[::]")]}  # noqa: S104
    with Path(routed=routed) as path:
        daemon = Daemon(folder, config | {"workers": 1}, prefix=("ip", "netns", "exec", path.server))
        try:
            daemon.wait_for("ready")
            yield path
        finally:
            daemon.end()


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Lay a path with a router, for all tests of the module."""
    with laid(tmp_path_factory.mktemp("routed"), routed=True) as path:
        path.wait()
        yield path


@pytest.fixture
def path(routed: Path) -> Iterator[Path]:
    """Give the path as it was laid, and make it so again."""
    yield routed
    routed.filter("")
    routed.narrow(1500)


def complaints(found: Pinged) -> list[tuple[str, str | None, int]]:
    """Return the errors of a summary."""
    return [(each["reason"], each["address"], each["count"]) for each in found.summary["errors"]]


def asked(path: Path, target: str, *words: object) -> Pinged:
    """Ask a target twice, which does not answer."""
    found = path.ping("--json", "-n", "-c", 2, "-i", "50ms", "-W", "500ms", *words, target)
    assert (found.code, found.summary["sent"], found.summary["received"]) == (1, 2, 0)
    return found


@FAMILIES
def test_a_path_without_harm_is_found_without_harm(path: Path, family: int) -> None:
    """Over UDP and TCP, through the router: its hop is missing from the TTL."""
    found = path.ping("-c", 3, "-i", "10ms", "--compare", "tcp", SERVER[family])
    assert (found.code, found.out.count("3 packets transmitted, 3 received, 0% packet loss")) == (0, 2)
    assert " ttl=63 " in found.out
    assert found.out.endswith("UDP and TCP are both answered\n")


@FAMILIES
def test_no_route_is_named_with_the_router_that_has_none(path: Path, family: int) -> None:
    """By its address towards the client."""
    reason = {4: "network unreachable", 6: "no route to host"}[family]
    assert complaints(asked(path, NOWHERE[family])) == [(reason, ROUTER[family], 2)]


@FAMILIES
def test_no_route_of_this_host_is_said_to_be_its_own(path: Path, family: int) -> None:
    """The router itself asks for what it has no route to."""
    with entered(path.node):
        found = ping("--json", "-c", 2, "-i", "50ms", NOWHERE[family])
    assert (found.code, complaints(found)) == (1, [("network unreachable", None, 2)])


@FAMILIES
def test_a_closed_port_is_named_with_the_host(path: Path, family: int) -> None:
    """ICMP port unreachable over UDP, a reset over TCP, and what both say together."""
    assert complaints(asked(path, f"[{SERVER[family]}]:{CLOSED}")) == [("port unreachable", SERVER[family], 2)]
    found = path.ping("-n", "-c", 1, "--compare", "tcp", f"[{SERVER[family]}]:{CLOSED}")
    assert f"From {SERVER[family]}: seq=1 connection refused\n" in found.out
    assert found.out.endswith("the host is up, but gives no echo: UDP is refused, TCP is refused\n")


@FAMILIES
def test_what_a_filter_drops_is_lost_and_no_more_is_said(path: Path, family: int) -> None:
    """No error, two lost; TCP beside it tells that the host is up."""
    path.filter("forward: udp dport 7 drop")
    found = asked(path, SERVER[family])
    assert (found.summary["lost"], found.summary["errors"]) == (2, [])
    found = path.ping("-c", 2, "-i", "50ms", "-W", "500ms", "--compare", "tcp", SERVER[family])
    assert found.out.endswith("the host is up and answers TCP: UDP is filtered, or nothing answers it there\n")


@FAMILIES
def test_what_a_filter_rejects_is_prohibited_by_the_router(path: Path, family: int) -> None:
    """Administratively, in its own words and under its own address."""
    path.filter(f"forward: udp dport 7 reject with icmp{'v6' * (family == 6)} type admin-prohibited")
    reason = "administratively prohibited"
    assert complaints(asked(path, SERVER[family])) == [(reason, ROUTER[family], 2)]
    found = path.ping("-n", "-c", 1, "--compare", "tcp", SERVER[family])
    assert f"From {ROUTER[family]}: seq=1 {reason}\n" in found.out
    assert found.out.endswith("the host is up and answers TCP: UDP is refused on the way\n")


@FAMILIES
def test_a_narrow_hop_is_named_by_the_router_and_then_known(path: Path, family: int) -> None:
    """The first probe that is too long tells the MTU; the second does not leave this host."""
    path.narrow(1280)
    found = asked(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family])
    told = [(each["reason"], each["address"], each["mtu"], each["count"]) for each in found.summary["errors"]]
    assert told == [("needs fragmentation", ROUTER[family], 1280, 1), ("needs fragmentation", None, 1280, 1)]


@FAMILIES
def test_a_narrow_hop_that_may_not_speak_is_silence(path: Path, family: int) -> None:
    """What is too long is lost; what fits is answered."""
    path.narrow(1280)
    path.filter(MUTE)
    found = asked(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family])
    assert (found.summary["lost"], found.summary["errors"]) == (2, [])
    assert path.ping("-M", "do", "-s", 1280 - HEADERS[family], "-c", 1, SERVER[family]).code == 0


@FAMILIES
@pytest.mark.parametrize("mute", [False, True], ids=["with ICMP", "without ICMP"])
def test_the_path_mtu_is_found(path: Path, family: int, mute: bool) -> None:  # noqa: FBT001 - pytest's way
    """To the byte, with the router's word or without; then it is called a black hole."""
    path.narrow(1280)
    if mute:
        path.filter(MUTE)
    found = path.ping("--mtu", "--json", "-W", "300ms", SERVER[family])
    told = found.objects[-1]
    assert (found.code, told["passes"], told["fails"], told["highest"]) == (0, 1280, 1281, 1500)
    if mute:
        assert (told["router"], told["told"]) == ("", 0)
        assert "probes above 1280 vanish without a word" in told["says"][1]
    else:
        assert (told["router"], told["told"]) == (ROUTER[family], 1280)
    assert told["back"]["answered"] is True


@pytest.mark.parametrize(("family", "seed"), [(4, 0), (6, 1)])
def test_the_report_of_a_path_is_its_account(tmp_path: File, family: int, seed: int) -> None:
    """Probes and replies dropped, doubled, damaged, delayed and overtaken by seed: each is counted as often as done."""
    calm = ["answer"] * 1200  # at its end everything late has come
    plan = shuffled([*["answer"] * 200, *HARM * 12], seed) + calm
    with laid(tmp_path, routed=False) as path, entered(path.node), mischief(plan, "meddler.py") as meddler:
        path.wait()
        words = ("--json", "-q", "-c", len(plan), "-i", "1ms", "-W", "400ms")
        found = path.ping(*words, SERVER[family]).summary
        done = meddler.account()
    assert done == {"answer": len(plan) - len(HARM) * 12, **dict.fromkeys(HARM, 12)}
    assert {name: found[name] for name in NAMED} == {
        "sent": len(plan),
        "received": len(plan) - done["drop"] - done["drop out"] - done["corrupt"] - done["corrupt out"],
        "in_flight": 0,
        "lost": done["drop"] + done["drop out"],
        "duplicates": done["duplicate"] + done["duplicate out"],
        "corrupt": done["corrupt"] + done["corrupt out"],
        "late": done["late"],
        "reordered": done["overtaken"] + done["delay"] + done["late"],
        "truncated": 0,
        "extended": 0,
        "elsewhere": 0,
        "foreign": 0,
        "refused": 0,
        "errors": [],
    }
    assert 50 <= found["rtt_ms"]["max"] < 5000
