"""echod.config.lint: what is wrong or unreasonable in a config whose values are valid one by one."""

import pytest
from support.config_mistakes import errors, warnings

from echod.config.document import read
from echod.config.lint import listener_ranges, places
from echod.config.parse import parse_config
from echod.config.written import write_value
from echod.net.listener import parse_endpoint

OPEN = (
    "includes public addresses: the source of a datagram can be forged, so that replies hit anybody: write "
    "limits.datagrams_per_second too, such as 1000, or unlimited if that is meant"
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("access: {allow: [any]}", (1, 18, "access.allow[0]")),
        ("access:\n  allow:\n    - loopback\n    - 8.0.0.0/8\n    - any\n", (4, 7, "access.allow[1]")),
        ("limits: {total_datagrams_per_second: 9}\naccess: {allow: [any]}", (2, 18, "access.allow[0]")),
    ],
)
def test_a_file_that_lets_the_internet_in_must_speak_of_the_limit(text: str, place: tuple[int, int, str]) -> None:
    """It is one mistake, at the first such entry; the limit of all sources together does not hold a single one."""
    assert errors(text) == [(*place, OPEN)]


@pytest.mark.parametrize("limit", ["1000", "unlimited"])
def test_the_limit_that_is_spoken_of_may_be_none(limit: str) -> None:
    """`unlimited` is the default, but here somebody must have meant it."""
    limits = parse_config(f"access: {{allow: [any]}}\nlimits: {{datagrams_per_second: {limit}}}".encode())[0].limits
    assert write_value("limits.datagrams_per_second", limits.datagrams_per_second) == limit


def test_an_open_file_is_told_so_beside_its_other_mistakes() -> None:
    """An entry that is none, a list that is none and a section that is none hide it no more than they are hidden."""
    assert [mistake[:3] for mistake in errors("access: {allow: [7, ayn, any], deny: 5}\nlimits: 5")] == [
        (1, 18, "access.allow[0]"),
        (1, 21, "access.allow[1]"),
        (1, 26, "access.allow[2]"),
        (1, 38, "access.deny"),
        (2, 9, "limits"),
    ]
    assert [mistake[:3] for mistake in errors("access: {allow: any}")] == [(1, 17, "access.allow")]
    assert [mistake[:3] for mistake in errors("access: any")] == [(1, 9, "access")]


@pytest.mark.parametrize("listener", ["tcp://127.0.0.1:9007", "tcp://0.0.0.0:9000-9010"])
def test_metrics_and_an_echo_cannot_have_one_port(listener: str) -> None:
    """The listener in the way is named, at the endpoint; a UDP listener is in nobody's way."""
    text = f"listeners: [{listener}]\nmetrics: {{listen: http://127.0.0.1:9007}}"
    ((line, column, path, message),) = errors(text)
    assert (line, column, path) == (2, 19, "metrics.listen")
    assert message == f"{listener.replace('9000-9010', '9007')} uses this port: write another"
    parse_config(text.replace("tcp:", "udp:").encode())
    text = f"listeners: [{listener}]\nmetrics: {{listen: [http://127.0.0.1:8, http://127.0.0.1:9007]}}"
    assert [each[2:] for each in errors(text)] == [("metrics.listen[1]", message)]


OPENED = "access: {allow: [any]}\n"
TOO_MUCH = (
    "access.allow includes public addresses: above 10,000 a second, replies to a forged source flood the host that "
    "has that address"
)
NO_EFFECT = "no limit is set, so this has no effect"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("access:\n  allow: []", "2:3 access.allow", "the list is empty: nobody gets a reply"),
        (
            "access:\n  allow: [private, '::1']\n  deny: [loopback]",
            "2:20 access.allow[1]",
            "access.deny covers all of ::1 and takes precedence: none of it gets a reply",
        ),
        (
            "access:\n  deny: [fe80::/9, 169.254.0.0/15]",
            "2:3 access.deny",
            "access.deny covers all of link-local and takes precedence: none of it gets a reply",
        ),
        (OPENED + "limits: {datagrams_per_second: unlimited}", "2:10 limits.datagrams_per_second", TOO_MUCH),
        (OPENED + "limits: {datagrams_per_second: 10001}", "2:10 limits.datagrams_per_second", TOO_MUCH),
        (
            "guard:\n  min_source_port: 1023",
            "2:3 guard.min_source_port",
            (
                "ports below 1024 belong to services such as DNS and NTP: after one forged datagram echod and "
                "such a service reply to each other for ever"
            ),
        ),
        (
            "guard: {loop_breaker: false}",
            "1:9 guard.loop_breaker",
            "without it, a datagram that circulates between two servers never stops",
        ),
        ("limits: {burst: 255}", "1:10 limits.burst", NO_EFFECT),
        ("limits: {slip: 0}", "1:10 limits.slip", NO_EFFECT),
        ("limits: {dry_run: true}", "1:10 limits.dry_run", NO_EFFECT),
        (
            "limits:\n  total_datagrams_per_second: 9\n  slip: 4",
            "3:3 limits.slip",
            "limits.datagrams_per_second is not set, so this has no effect: it does not apply to the total limit",
        ),
        (
            "limits:\n  total_datagrams_per_second: 9\n  dry_run: true",
            "3:3 limits.dry_run",
            "nothing is refused: datagrams above a limit are counted and replied to",
        ),
        (
            "limits:\n  datagrams_per_second: 1001\n  total_datagrams_per_second: 1000",
            "3:3 limits.total_datagrams_per_second",
            (
                "total_datagrams_per_second (1,000) is less than datagrams_per_second (1,001): a single source "
                "can use all of it"
            ),
        ),
        (
            "udp:\n  receive_buffer: 127 KiB",
            "2:3 udp.receive_buffer",
            "below 128 KiB it has no room for two full datagrams: bursts will be lost",
        ),
        (
            "udp:\n  send_buffer: 127 KiB",
            "2:3 udp.send_buffer",
            "below 128 KiB it has no room for two full datagrams: bursts will be lost",
        ),
        (
            "listeners: [udp://1.2.3.4:7]\ntcp: {max_connections: 100}",
            "2:1 tcp",
            "no tcp:// listener is configured, so these settings apply only to those of a .socket unit",
        ),
        (
            "tcp:\n  max_connections_per_source: 1025",
            "2:3 tcp.max_connections_per_source",
            (
                "max_connections_per_source (1,025) is more than max_connections (1,024): a single source can "
                "take every connection"
            ),
        ),
        (
            "tcp:\n  max_connections: 63",
            "2:3 tcp.max_connections",
            (
                "max_connections_per_source (64) is more than max_connections (63): a single source can take "
                "every connection"
            ),
        ),
        (
            "tcp:\n  stall_timeout_seconds: 301",
            "2:3 tcp.stall_timeout_seconds",
            (
                "stall_timeout_seconds (301) is more than idle_timeout_seconds (300): a stalled connection is "
                "closed as idle first"
            ),
        ),
        ("drain_timeout_seconds: 61", "1:1 drain_timeout_seconds", "systemctl stop can take this long: 61 seconds"),
        (
            "metrics:\n  listen: http://0.0.0.0:9007",
            "2:3 metrics.listen",
            (
                "everybody who can reach this port can read the metrics and the top sources, because there is "
                "no password: write http://127.0.0.1:9007, or put a firewall or a proxy in front of it"
            ),
        ),
        (
            "listeners:\n  - {address: udp://127.0.0.1:7, mode: stamp}",
            "2:34 listeners[0].mode",
            (
                "port 7 is that of echo (RFC 862), and its clients take the replies of stamp for errors: write another "
                "port, or mode: echo"
            ),
        ),
        (
            "listeners:\n  - udp://127.0.0.1:5\n  - tcp://127.0.0.1:8-9",
            "3:5 listeners[1]",
            (
                "port 9 is that of discard (RFC 863), and its clients take the replies of echo for errors: write "
                "another port, or mode: discard"
            ),
        ),
        (
            "listeners:\n  - {mode: udpecho_plus, address: udp://127.0.0.1:862}",
            "2:6 listeners[0].mode",
            (
                "port 862 is that of stamp (RFC 8762), and its clients take the replies of udpecho_plus for errors: "
                "write another port, or mode: stamp"
            ),
        ),
        (
            "listeners:\n  - {address: udp://0.0.0.0:7072, impair: {loss: 2%}}",
            "2:35 listeners[0].impair",
            (
                "whoever can reach this host gets these errors and delays, and may take them for those of the "
                "network: write 127.0.0.1, unless that is meant"
            ),
        ),
        (
            "listeners:\n  - {address: 'tcp://[2001:db8::1]:7072', impair: {delay: 1 s}}",
            "2:43 listeners[0].impair",
            (
                "whoever can reach 2001:db8::1 gets these errors and delays, and may take them for those of the "
                "network: write [::1], unless that is meant"
            ),
        ),
        (
            "listeners: [tcp://1.2.3.4:7]\nkernel:\n  interfaces: [eth0]",
            "3:3 kernel.interfaces",
            "no udp:// listener is a plain echo: there is nothing for the kernel to repeat",
        ),
        (
            "listeners: [{address: udp://1.2.3.4:7, dscp: reflect}]\nkernel:\n  interfaces: [eth0]",
            "3:3 kernel.interfaces",
            "no udp:// listener is a plain echo: there is nothing for the kernel to repeat",
        ),
        (
            "kernel:\n  stale_seconds: 5",
            "2:3 kernel.stale_seconds",
            (
                "fresh_seconds (5) is not less than stale_seconds (5): no reply of the daemon is renewed in time, so "
                "that each ends after stale_seconds"
            ),
        ),
    ],
)
def test_what_is_legal_but_unreasonable_is_warned_of(text: str, place: str, message: str) -> None:
    """A warning points at the key that the file sets, and keeps nothing from starting."""
    ((line, column, path, found),) = warnings(text)
    assert (f"{line}:{column} {path}", found) == (place, message)


@pytest.mark.parametrize(
    "text",
    [
        "access: {allow: [loopback, 192.0.2.0/24], deny: [8.0.0.0/8]}",
        "access: {allow: [any], deny: [10.0.0.0/8]}\nlimits: {datagrams_per_second: 10000}",
        OPENED + "limits: {datagrams_per_second: unlimited, total_datagrams_per_second: 10000}",
        "guard: {min_source_port: 1024, refuse_source_ports: []}",
        "limits: {burst: 256, slip: 8, dry_run: false}",
        "limits: {datagrams_per_second: 5, burst: 1, slip: 0}",
        "limits: {datagrams_per_second: 1000, total_datagrams_per_second: 1000}",
        "udp: {receive_buffer: 128 KiB, send_buffer: 128 KiB}",
        "listeners: [udp://1.2.3.4:7]\ntcp: {}",
        "listeners: [udp://1.2.3.4:7]\ntcp: {max_connections: 1024, idle_timeout_seconds: 300}",
        "listeners: [tcp://1.2.3.4:7]\ntcp: {max_connections: 64}",
        "tcp: {stall_timeout_seconds: 300}",
        "drain_timeout_seconds: 60",
        "metrics: {listen: 'http://[::1]:9007'}",
        "metrics: {listen: http://127.9.9.9:9007}",
        "metrics: {listen: off}",
        "log: {level: debug}",
        "listeners: [{address: udp://1.2.3.4:862, mode: stamp}, {address: tcp://1.2.3.4:9, mode: discard}]",
        "listeners: [tcp://1.2.3.4:862, 'udp://1.2.3.4:10-861', {address: tcp://1.2.3.4:863, mode: discard}]",
        "listeners: [{address: udp://127.0.0.2:7072, impair: {loss: 2%}}]",
        "kernel: {fresh_seconds: 9}",
    ],
)
def test_what_is_reasonable_is_not_warned_of(text: str) -> None:
    """A warning that is always there is never read."""
    assert warnings(text) == []


def test_endpoints_are_found_at_their_places() -> None:
    """One endpoint stands at the key, those of a list at their indices."""
    here, there = parse_endpoint("http://127.0.0.1:8"), parse_endpoint("http://127.0.0.1:9")
    one, several = (read(f"metrics: {{listen: {text}}}".encode()) for text in (there, f"[{here}, {there}]"))
    assert places([there], one) == {("metrics", "listen"): there}
    assert places([here, there], several) == {("metrics", "listen", 0): here, ("metrics", "listen", 1): there}


def test_listeners_are_found_at_their_places() -> None:
    """Each entry of the list at its index; none where the file leaves out the key."""
    document = read(b"listeners: ['udp://[::]:7', 'tcp://0.0.0.0:8-9']")
    assert {path: str(each) for path, each in listener_ranges(document).items()} == {
        ("listeners", 0): "udp://[::]:7",
        ("listeners", 1): "tcp://0.0.0.0:8-9",
    }
    assert listener_ranges(read(b"workers: 1")) == {}
