"""`echod ping` over paths that fail: what is in the way is named, with who said so."""

import json
from collections.abc import Iterator

import pytest
from support.loopback import ip, needs_root
from support.ping.path import CLIENT, ROUTER, SERVER, Path, laid
from support.ping.pinging import Pinged, impairing, ping
from support.system.network import entered

pytestmark = needs_root

FAMILIES = pytest.mark.parametrize("family", [4, 6])
HEADERS = {4: 28, 6: 48}
NOWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
CLOSED = 9
MUTE = """output: icmp type destination-unreachable drop
output: icmpv6 type packet-too-big drop"""


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
    routed.filter("", routed.client)
    routed.narrow(1500)


def complaints(found: Pinged) -> list[tuple[str, str | None, int]]:
    """Return the errors of a summary."""
    return [(each["reason"], each.get("address"), each["count"]) for each in found.summary["error_reasons"]]


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
    assert found.out.endswith("the host replies over UDP and TCP\n")


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
def test_a_host_that_is_not_there_is_named_by_its_router(path: Path, family: int) -> None:
    """It looks for its neighbour in vain, and says so."""
    missing = {4: "10.6.2.77", 6: "fd06:0:0:2::77"}[family]  # beside the server
    assert complaints(asked(path, missing, "-W", 10)) == [("host unreachable", ROUTER[family], 2)]


@FAMILIES
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_neighbour_that_is_not_there_is_missed_by_this_host(path: Path, family: int, scheme: str) -> None:
    """Over UDP the kernel writes to itself what a router would; over TCP it is the connection's error."""
    missing = {4: "10.6.1.77", 6: "fd06:0:0:1::77"}[family]  # beside the router
    found = asked(path, f"{scheme}://[{missing}]", "-W", 10)
    says = CLIENT[family] if scheme == "udp" else None
    assert {complaint[:2] for complaint in complaints(found)} == {("host unreachable", says)}
    assert found.summary["errors"] == 2


@FAMILIES
def test_a_time_to_live_that_ends_names_the_hop(path: Path, family: int) -> None:
    """As traceroute has it: -t 1 is as far as the router."""
    reason = {4: "time to live exceeded", 6: "hop limit exceeded"}[family]
    assert complaints(asked(path, SERVER[family], "-t", 1)) == [(reason, ROUTER[family], 2)]


@FAMILIES
def test_what_this_host_forbids_is_said_to_be_its_own(path: Path, family: int) -> None:
    """A filter on the way out makes the send fail: no router said so."""
    path.filter("output: udp dport 7 drop", path.client)
    assert complaints(asked(path, SERVER[family])) == [("not permitted by this host", None, 2)]


@FAMILIES
def test_a_closed_port_is_named_with_the_host(path: Path, family: int) -> None:
    """ICMP port unreachable over UDP, a reset over TCP, and what both say together."""
    assert complaints(asked(path, f"[{SERVER[family]}]:{CLOSED}")) == [("port unreachable", SERVER[family], 2)]
    found = path.ping("-n", "-c", 1, "--compare", "tcp", f"[{SERVER[family]}]:{CLOSED}")
    assert f"From {SERVER[family]}: tcp seq=1 connection refused\n" in found.out
    assert found.out.endswith("nothing listens on that UDP port; nothing listens on that TCP port\n")


@FAMILIES
def test_what_a_filter_drops_is_lost_and_no_more_is_said(path: Path, family: int) -> None:
    """No error, two lost; TCP beside it tells that the host is up."""
    path.filter("forward: udp dport 7 drop")
    found = asked(path, SERVER[family])
    assert (found.summary["lost"], found.summary["error_reasons"]) == (2, [])
    found = path.ping("-c", 2, "-i", "50ms", "-W", "500ms", "--compare", "tcp", SERVER[family])
    assert found.out.endswith("replies over TCP; UDP has no reply: it is filtered, or the server's rules drop it\n")


@FAMILIES
def test_what_a_filter_rejects_is_prohibited_by_the_router(path: Path, family: int) -> None:
    """Administratively, in its own words and under its own address."""
    path.filter(f"forward: udp dport 7 reject with icmp{'v6' * (family == 6)} type admin-prohibited")
    reason = "administratively prohibited"
    assert complaints(asked(path, SERVER[family])) == [(reason, ROUTER[family], 2)]
    found = path.ping("-n", "-c", 1, "--compare", "tcp", SERVER[family])
    assert f"From {ROUTER[family]}: udp seq=1 {reason}\n" in found.out
    assert found.out.endswith("the host replies over TCP; UDP is rejected on the path\n")


@FAMILIES
def test_a_narrow_hop_is_named_by_the_router_and_then_known(path: Path, family: int) -> None:
    """The first probe that is too long tells the MTU; the second does not leave this host."""
    path.narrow(1280)
    found = asked(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family])
    errors = found.summary["error_reasons"]
    assert [(each["reason"], each.get("address"), each["mtu"], each["count"]) for each in errors] == [
        ("needs fragmentation", ROUTER[family], 1280, 1),
        ("needs fragmentation", None, 1280, 1),
    ]


@pytest.mark.parametrize(("family", "mode", "received"), [(4, "dont", 2), (4, "want", 1), (6, "want", 1)])
def test_what_is_too_long_may_be_cut(path: Path, family: int, mode: str, received: int) -> None:
    """By the router (-M dont); or by this host, once the router has told it the size (-M want)."""
    path.narrow(1280)
    words = ("--json", "-c", 2, "-i", "300ms", "-M", mode, "-s", 1500 - HEADERS[family])
    assert path.ping(*words, SERVER[family]).summary["received"] == received


def test_a_link_local_address_has_its_link_with_it(path: Path) -> None:
    """As %eth0 behind it, or as -I eth0; it is shown in full, and replies come from it."""
    found = json.loads(ip("-n", path.node, "-json", "address", "show", "dev", "near", "scope", "link"))
    router = next(each["local"] for each in found[0]["addr_info"] if each.get("local"))
    with entered(path.node), impairing(["answer"], "impairing_server.py", f"{router}%near") as server:
        zoned = path.ping("-c", 1, f"[{router}%eth0]:{server.port}")
        assert zoned.out.startswith(f"PING udp://[{router}%eth0]:{server.port} ({router}%eth0) ")
        assert f"\n56 bytes from [{router}%eth0]:{server.port}: seq=1 " in zoned.out
        own = json.loads(ip("-n", path.client, "-json", "address", "show", "dev", "eth0", "scope", "link"))
        ours = next(each["local"] for each in own[0]["addr_info"] if each.get("local"))
        for words in (("-I", "eth0"), ("-I", f"{ours}%eth0"), ("-f", "-I", "eth0")):
            assert path.ping("-c", 1, *words, f"[{router}]:{server.port}").code == 0
        assert path.ping("-c", 1, "-I", ours, f"[{router}%eth0]:{server.port}").code == 0


@FAMILIES
def test_a_router_that_forbids_long_probes_is_not_said_to_want_them_cut(path: Path, family: int) -> None:
    """What it says is told, in its own words."""
    path.filter("forward: meta length > 1000 reject with icmpx type admin-prohibited")
    found = path.ping("--mtu", "--json", "-W", "300ms", SERVER[family]).objects[-1]
    sentence = f"outbound: {ROUTER[family]} reports for probes above {found['passes']}: administratively prohibited"
    assert (found["passes"] in (960, 1000), found["explanation"][1], "reported_mtu" in found) == (True, sentence, False)


@FAMILIES
def test_a_narrow_hop_that_may_not_speak_is_silence(path: Path, family: int) -> None:
    """What is too long is lost; what fits is answered."""
    path.narrow(1280)
    path.filter(MUTE)
    found = asked(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family])
    assert (found.summary["lost"], found.summary["error_reasons"]) == (2, [])
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
    assert (found.code, told["passes"], told["fails"], told["interface_mtu"]) == (0, 1280, 1281, 1500)
    if mute:
        assert not {"router", "reported_mtu"} & told.keys()
        assert "probes above 1280 are lost without ICMP error" in told["explanation"][1]
    else:
        assert (told["router"], told["reported_mtu"]) == (ROUTER[family], 1280)
    assert told["return_path"]["replied"] is True


def test_what_this_host_did_not_send_is_no_gap(path: Path) -> None:
    """Its own filter refuses each probe of an odd number: errors from this host, whatever the path is like."""
    path.filter("output: udp dport 7 @th,95,1 1 drop", path.client)
    found = path.ping("-n", "-c", 10, "-i", "10ms", "-W", 1, SERVER[4])
    assert "10 packets transmitted, 5 received, +5 errors, 50% packet loss" in found.out
    assert "not permitted by this host: 5 errors from this host\n" in found.out
    assert "gap" not in found.out
