"""`echod ping` over paths with faults: it reports each fault, and which host sent the error."""

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
BESIDE_SERVER = {4: "10.6.2.77", 6: "fd06:0:0:2::77"}
CLOSED = 9
SHORT = ("-W", "300ms")
"""Where no reply and no error is to come."""
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


def errors(found: Pinged) -> list[tuple[str, str | None, int]]:
    """Return the errors of a summary."""
    return [(each["reason"], each.get("address"), each["count"]) for each in found.summary["error_reasons"]]


def probed(path: Path, target: str, *words: object) -> Pinged:
    """Probe a target twice, which does not reply."""
    found = path.ping("--json", "-n", "-c", 2, "-i", "50ms", "-W", 10, *words, target)
    assert (found.code, found.summary["sent"], found.summary["received"]) == (1, 2, 0)
    return found


@FAMILIES
def test_a_path_without_faults_has_no_errors(path: Path, family: int) -> None:
    """Over UDP and TCP, through the router: the TTL is one less."""
    found = path.ping("-c", 3, "-i", "10ms", "--compare", "tcp", SERVER[family])
    assert (found.code, found.out.count("3 packets transmitted, 3 received, 0% packet loss")) == (0, 2)
    assert " ttl=63 " in found.out
    assert found.out.endswith("the host replies over UDP and TCP\n")


@FAMILIES
def test_an_error_is_reported_with_the_router_that_sent_it(path: Path, family: int) -> None:
    """By the address of the router towards the client; -t 1 reaches as far as the router, as in traceroute."""
    unreachable, exceeded = (
        {4: "network unreachable", 6: "no route to host"},
        {4: "time to live exceeded", 6: "hop limit exceeded"},
    )
    assert errors(probed(path, NOWHERE[family])) == [(unreachable[family], ROUTER[family], 2)]
    assert errors(probed(path, BESIDE_SERVER[family])) == [("host unreachable", ROUTER[family], 2)]
    assert errors(probed(path, SERVER[family], "-t", 1)) == [(exceeded[family], ROUTER[family], 2)]


@FAMILIES
def test_an_error_of_this_host_has_no_sender(path: Path, family: int) -> None:
    """The router itself has no route, and a filter of the client makes the send fail."""
    with entered(path.node):
        found = ping("--json", "-c", 2, "-i", "50ms", NOWHERE[family])
    assert (found.code, errors(found)) == (1, [("network unreachable", None, 2)])
    path.filter("output: udp dport 7 drop", path.client)
    assert errors(probed(path, SERVER[family])) == [("not permitted by this host", None, 2)]


@FAMILIES
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_neighbour_that_does_not_exist_is_reported_by_this_host(path: Path, family: int, scheme: str) -> None:
    """Over UDP the kernel sends itself the error that a router would send; over TCP it is the connection's error."""
    missing = {4: "10.6.1.77", 6: "fd06:0:0:1::77"}[family]  # beside the router
    found = probed(path, f"{scheme}://[{missing}]")
    sender = CLIENT[family] if scheme == "udp" else None
    assert {each[:2] for each in errors(found)} == {("host unreachable", sender)}
    assert found.summary["errors"] == 2


@FAMILIES
@pytest.mark.parametrize(
    ("rule", "error", "explanation"),
    [
        ("", "port unreachable", "nothing listens on that UDP port; nothing listens on that TCP port"),
        ("drop", "", "replies over TCP; UDP has no reply: it is filtered, or the server's rules drop it"),
        (
            "reject with icmpx type admin-prohibited",
            "administratively prohibited",
            "the host replies over TCP; UDP is rejected on the path",
        ),
    ],
    ids=["closed", "dropped", "rejected"],
)
def test_a_closed_or_filtered_port_is_explained(
    path: Path, family: int, rule: str, error: str, explanation: str
) -> None:
    """By the errors of UDP, with the host that sent them, and by what TCP does."""
    path.filter(f"forward: udp dport 7 {rule}" if rule else "")
    target, sender = f"[{SERVER[family]}]:{7 if rule else CLOSED}", (ROUTER if rule else SERVER)[family]
    found = probed(path, target, *(() if error else SHORT))
    assert errors(found) == ([(error, sender, 2)] if error else [])
    assert found.summary["lost"] == (0 if error else 2)
    found = path.ping("-n", "-c", 2, "-i", "50ms", "-W", 2, "--compare", "tcp", target)
    assert (f"From {sender}: udp seq=1 {error}\n" in found.out) == bool(error)
    assert (f"From {sender}: tcp seq=1 connection refused\n" in found.out) == (not rule)
    assert found.out.endswith(f"{explanation}\n")


@FAMILIES
def test_the_router_of_a_narrow_link_reports_its_mtu(path: Path, family: int) -> None:
    """For the first probe that is too long; the second one does not leave this host."""
    path.narrow(1280)
    found = probed(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family])
    assert errors(found) == [("needs fragmentation", ROUTER[family], 1), ("needs fragmentation", None, 1)]
    assert [each["mtu"] for each in found.summary["error_reasons"]] == [1280, 1280]


@pytest.mark.parametrize(("family", "mode", "received"), [(4, "dont", 2), (4, "want", 1), (6, "want", 1)])
def test_probes_that_are_too_long_may_be_fragmented(path: Path, family: int, mode: str, received: int) -> None:
    """By the router (-M dont); or by this host, once the router has reported the MTU (-M want)."""
    path.narrow(1280)
    words = ("--json", "-c", 2, "-i", "300ms", "-M", mode, "-s", 1500 - HEADERS[family])
    assert path.ping(*words, SERVER[family]).summary["received"] == received


def test_a_link_local_address_needs_its_interface(path: Path) -> None:
    """As %eth0 after it, or as -I eth0; the output has it in full, and replies come from it."""
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
def test_a_router_that_prohibits_long_probes_reports_no_mtu(path: Path, family: int) -> None:
    """The search for the path MTU ends with the reason of its error."""
    path.filter("forward: meta length > 1000 reject with icmpx type admin-prohibited")
    found = path.ping("--mtu", "--json", "-W", 2, SERVER[family]).objects[-1]
    sentence = f"outbound: {ROUTER[family]} reports for probes above {found['passes']}: administratively prohibited"
    assert (found["passes"] in (960, 1000), found["explanation"][1], "reported_mtu" in found) == (True, sentence, False)


@FAMILIES
def test_a_narrow_link_without_icmp_errors_loses_long_probes(path: Path, family: int) -> None:
    """Probes that fit have replies."""
    path.narrow(1280)
    path.filter(MUTE)
    found = probed(path, SERVER[family], "-M", "do", "-s", 1500 - HEADERS[family], *SHORT)
    assert (found.summary["lost"], found.summary["error_reasons"]) == (2, [])
    assert path.ping("-M", "do", "-s", 1280 - HEADERS[family], "-c", 1, SERVER[family]).code == 0


@FAMILIES
@pytest.mark.parametrize("mute", [False, True], ids=["with ICMP", "without ICMP"])
def test_the_path_mtu_is_found(path: Path, family: int, mute: bool) -> None:  # noqa: FBT001 - pytest's way
    """To the byte, with ICMP errors of the router or without; then the explanation names the loss of probes."""
    path.narrow(1280)
    if mute:
        path.filter(MUTE)
    found = path.ping("--mtu", "--json", "-W", 2, SERVER[family])
    result = found.objects[-1]
    assert (found.code, result["passes"], result["fails"], result["interface_mtu"]) == (0, 1280, 1281, 1500)
    if mute:
        assert not {"router", "reported_mtu"} & result.keys()
        assert "probes above 1280 are lost without ICMP error" in result["explanation"][1]
    else:
        assert (result["router"], result["reported_mtu"]) == (ROUTER[family], 1280)
    assert result["return_path"]["replied"] is True


def test_probes_that_this_host_did_not_send_are_no_gap(path: Path) -> None:
    """Its own filter refuses each probe of an odd number: these are errors of this host, not of the path."""
    path.filter("output: udp dport 7 @th,95,1 1 drop", path.client)
    found = path.ping("-n", "-c", 10, "-i", "10ms", "-W", 1, SERVER[4])
    assert "10 packets transmitted, 5 received, +5 errors, 50% packet loss" in found.out
    assert "not permitted by this host: 5 errors from this host\n" in found.out
    assert "gap" not in found.out
