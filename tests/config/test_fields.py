"""echod.config.fields: what an operator may write for a value, and what becomes of it."""

import pytest
from pydantic import ValidationError
from support.config_mistakes import errors, listeners, mistake_of

from echod.config import fields
from echod.config.parse import parse_config
from echod.config.schema import GuardConfig, LimitsConfig, MetricsConfig


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4096B", 4096),
        ("4096 B", 4096),
        ("512KiB", 524_288),
        ("8 MiB", 8_388_608),
        ("'8  MiB'", 8_388_608),
        ("1 GiB", 1_073_741_824),
        ("'65536'", 65_536),
        ("0x10000", 65_536),
    ],
)
def test_a_size_is_bytes_or_has_a_binary_unit(text: str, size: int) -> None:
    """B, KiB, MiB and GiB are known, with a space before them or without."""
    assert parse_config(f"udp: {{receive_buffer: {text}}}".encode())[0].udp.receive_buffer == size


SIZE = "write a size from 4 KiB to 1 GiB, such as 8 MiB"
RATE = "write unlimited or a whole number from 1 to 10000000"
DASHES = "write a list with one listener per line, each after a dash"
SLASH = "write one that begins with a slash, or auto"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        # Decimal units are ambiguous and refused with the unit to write; the rest with the bounds.
        ("udp.send_buffer", "8 MB", '"MB" is not a unit here: write 8 MiB'),
        ("udp.send_buffer", "8M", '"M" is not a unit here: write 8 MiB'),
        ("udp.send_buffer", "64k", '"k" is not a unit here: write 64 KiB'),
        ("udp.send_buffer", "1 gib", '"gib" is not a unit here: write 1 GiB'),
        ("udp.send_buffer", "8 Mbit", f'"8 Mbit" is not a size: {SIZE}'),
        ("udp.send_buffer", "8.5 MiB", f'"8.5 MiB" is not a size: {SIZE}'),
        ("udp.send_buffer", "-8 MiB", f'"-8 MiB" is not a size: {SIZE}'),
        ("udp.send_buffer", "'{message} {x'", f'"{{message}} {{x" is not a size: {SIZE}'),
        ("udp.send_buffer", "4095", f"4095 is out of bounds: {SIZE}"),
        ("udp.send_buffer", "3 KiB", f"3 KiB is out of bounds: {SIZE}"),
        ("udp.send_buffer", "2 GiB", f"2 GiB is out of bounds: {SIZE}"),
        ("udp.send_buffer", "9" * 5000 + " B", f"{'9' * 60}... is out of bounds: {SIZE}"),
        ("udp.send_buffer", "8.5", f"8.5 is a decimal number: {SIZE}"),
        ("udp.send_buffer", "true", f"true is a boolean: {SIZE}"),
        ("udp.send_buffer", "[8 MiB]", f"is a list: {SIZE}"),
        ("limits.datagrams_per_second", "0", f"0 is out of bounds: {RATE}"),
        ("limits.datagrams_per_second", "Unlimited", f'"Unlimited" is not a number: {RATE}'),
        ("limits.datagrams_per_second", "1000/s", f'"1000/s" is not a number: {RATE}'),
        ("limits.datagrams_per_second", "'5'", "is text because of the quotes: write 5 without quotes"),
        ("limits.datagrams_per_second", "1.5", f"1.5 is a decimal number: {RATE}"),
        ("limits.datagrams_per_second", "true", f"true is a boolean: {RATE}"),
        ("limits.datagrams_per_second", "[5]", f"is a list: {RATE}"),
        ("limits.datagrams_per_second", "", "has no value: write one or remove the key"),
        # A daemon that listens nowhere, and a single item without its dash or its brackets.
        ("listeners", "[]", "the list is empty: write at least one listener, such as udp://192.0.2.1:7"),
        ("listeners", "{}", f"is a mapping: {DASHES}"),
        ("listeners", "udp://0.0.0.0:7", f'"udp://0.0.0.0:7" is text: {DASHES}'),
        ("access.allow", "any", '"any" is text: write a list, such as [loopback, 192.0.2.0/24]'),
        ("access.allow", "{a: 1}", "is a mapping: write a list, such as [loopback, 192.0.2.0/24]"),
        ("guard.refuse_source_ports", "53", "53 is a number: write a list of whole numbers, such as [1900, 5353]"),
        ("status.directory", "run/echod", f'"run/echod" is not an absolute path: {SLASH}'),
        ("status.directory", "''", f'"" is not an absolute path: {SLASH}'),
        ("status.directory", "7", "7 is a number: write auto or an absolute path"),
        ("status.directory", "", "has no value: write one or remove the key"),
        ("metrics.listen", "", "has no value: write one or remove the key"),
        ("metrics.listen", "9007", "is a number: write off or http://127.0.0.1:9007"),
        ("metrics.listen", "{}", "is a mapping: write off or http://127.0.0.1:9007"),
        (
            "metrics.listen",
            "http://localhost:9007",
            '"localhost" is not an address: host names are not looked up, write the address itself',
        ),
        ("metrics.listen", "[]", "the list is empty: write off or http://127.0.0.1:9007"),
    ],
)
def test_a_value_that_cannot_be_is_refused(key: str, text: str, message: str) -> None:
    """What was written is reported, or its kind, beside what may be written, in one sentence."""
    assert mistake_of(key, text) == message


def test_a_rate_is_a_number_or_unlimited() -> None:
    """`unlimited` is None for the code; a number is datagrams per second."""
    limits = "limits: {datagrams_per_second: 5, total_datagrams_per_second: unlimited}"
    assert parse_config(limits.encode())[0].limits == LimitsConfig(datagrams_per_second=5)


def test_code_writes_none_for_unlimited_and_a_file_does_not() -> None:
    """In a file nothing behind a colon is half an edit; in a config that code makes it is the value itself."""
    assert LimitsConfig(datagrams_per_second=None).datagrams_per_second is None


def test_a_mistake_in_a_listener_is_reported_with_its_index() -> None:
    """Each text that is no listener is one mistake at its place."""
    assert listeners("udp://localhost:7", "udp://0.0.0.0:7", "0.0.0.0:9", "7", "udp://0.0.0.0: 7", "") == [
        (
            2,
            5,
            "listeners[0]",
            '"localhost" is not an address: host names are not looked up, write the address itself',
        ),
        (4, 5, "listeners[2]", "has no protocol: write udp://0.0.0.0:9 or tcp://0.0.0.0:9"),
        (5, 5, "listeners[3]", "is a number: write udp://ADDRESS:PORT, without a space after a colon"),
        (6, 5, "listeners[4]", "is a mapping: write udp://ADDRESS:PORT, without a space after a colon"),
        (7, 4, "listeners[5]", "is empty: write udp://ADDRESS:PORT or remove the dash"),
    ]


def test_listeners_in_each_others_way_are_reported_with_the_line_of_the_other() -> None:
    """Equal and covered listeners are mistakes, one a text, however large the ranges are."""
    assert listeners("udp://127.0.0.1:5", "udp://0.0.0.0:1-300", "udp://0.0.0.0:1-300", "tcp://0.0.0.0:1") == [
        (
            2,
            5,
            "listeners[0]",
            "udp://127.0.0.1:5 is already covered by udp://0.0.0.0:5 in listeners[1], line 3: remove one of them",
        ),
        (4, 5, "listeners[2]", "udp://0.0.0.0:1 is already listed in listeners[1], line 3: remove one of them"),
    ]


def test_a_thousand_and_twenty_four_listeners_are_the_most() -> None:
    """The text that brings the total above the cap is reported, and none of those after it."""
    text = "listeners: [udp://0.0.0.0:1-1000, tcp://0.0.0.0:1-24]"
    assert len(parse_config(text.encode())[0].listeners) == 1024
    above = "makes 1,025 listeners in all: at most 1,024 are allowed"
    for last, index in (("25", 1), ("24", 2)):
        found = listeners("udp://0.0.0.0:1-1000", f"tcp://0.0.0.0:1-{last}", "tcp://[::]:7", "udp://[::]:1-65535")
        assert found == [(2 + index, 5, f"listeners[{index}]", above)]


WANTED = "write a network such as 192.0.2.0/24, or loopback, link-local, private or any"


def test_a_list_of_entries_is_read_in_order_and_may_be_empty() -> None:
    """Networks, addresses and names stand in one list; an empty one is nobody."""
    access = parse_config(b"access: {allow: [10.0.0.0/8, fe80::1, loopback], deny: []}")[0].access
    assert access.allow == fields.entries("10.0.0.0/8", "fe80::1", "loopback")
    assert access.deny == ()


def test_a_mistake_in_an_entry_is_reported_with_its_index() -> None:
    """Each text that is no entry is one mistake at its place."""
    entries = ["10.0.0.1/8", "any", "10", "10.0", "2001:db8::", "", "'::1'"]
    assert errors("access:\n  deny:\n" + "".join(f"  - {text}\n" for text in entries)) == [
        (
            3,
            5,
            "access.deny[0]",
            "10.0.0.1 is one address of a network: write 10.0.0.0/8 for all of it, or 10.0.0.1 alone",
        ),
        (5, 5, "access.deny[2]", f"is a number: {WANTED}"),
        (6, 5, "access.deny[3]", f"is a decimal number: {WANTED}"),
        (7, 5, "access.deny[4]", "is a mapping: put an address that ends in a colon in quotes"),
        (8, 4, "access.deny[5]", f"is empty: {WANTED}, or remove the dash"),
    ]


PORT = "write a whole number from 1 to 65535"


def test_a_list_of_ports_is_read_in_order_and_may_be_empty() -> None:
    """The first and the last port are ports."""
    guard = parse_config(b"guard: {refuse_source_ports: [65535, 1]}")[0].guard
    assert guard.refuse_source_ports == (65_535, 1)
    assert parse_config(b"guard: {refuse_source_ports: []}")[0].guard.refuse_source_ports == ()


def test_a_mistake_in_a_port_is_reported_with_its_index() -> None:
    """Each item that is no port, or stands there already, is one mistake at its place."""
    ports = ["0", "53", "65536", "'53'", "true", "5000-5010", "", "53"]
    assert errors("guard:\n  refuse_source_ports:\n" + "".join(f"  - {text}\n" for text in ports)) == [
        (3, 5, "guard.refuse_source_ports[0]", f"0 is out of bounds: {PORT}"),
        (5, 5, "guard.refuse_source_ports[2]", f"65536 is out of bounds: {PORT}"),
        (6, 5, "guard.refuse_source_ports[3]", f"is text: {PORT}"),
        (7, 5, "guard.refuse_source_ports[4]", f"is a boolean: {PORT}"),
        (8, 5, "guard.refuse_source_ports[5]", f"is text: {PORT}"),
        (9, 4, "guard.refuse_source_ports[6]", f"is empty: {PORT}, or remove the dash"),
        (10, 5, "guard.refuse_source_ports[7]", "53 is already listed, line 4: remove one of them"),
    ]


def test_the_bounds_hold_for_code_too() -> None:
    """A config that code makes is within its bounds as one from a file is."""
    with pytest.raises(ValidationError, match="less than or equal"):
        GuardConfig(refuse_source_ports=(65_536,))
    with pytest.raises(ValidationError, match="greater than or equal"):
        LimitsConfig(datagrams_per_second=0)


@pytest.mark.parametrize("text", ["auto", "/", "/run/echod", "'/srv/with space'"])
def test_a_directory_is_absolute_or_left_to_echod(text: str) -> None:
    """It means the same wherever echod was started."""
    assert parse_config(f"status: {{directory: {text}}}".encode())[0].status.directory == text.strip("'")


def test_an_endpoint_is_a_url_or_off() -> None:
    """`off` is none at all, and an empty tuple for the code, which may also write None; there may be a list."""
    assert parse_config(b"metrics: {listen: off}")[0].metrics.listen == ()
    (endpoint,) = parse_config(b"metrics: {listen: http://127.0.0.1:9}")[0].metrics.listen
    assert str(endpoint) == "http://127.0.0.1:9"
    assert MetricsConfig(listen=endpoint).listen == MetricsConfig(listen=(endpoint,)).listen == (endpoint,)
    assert MetricsConfig(listen=None).listen == ()
    several = parse_config(b'metrics: {listen: [http://127.0.0.1:9, "http://[::]:9"]}')[0].metrics.listen
    assert [str(one) for one in several] == ["http://127.0.0.1:9", "http://[::]:9"]


def test_names_of_hosts_are_in_lower_case() -> None:
    """As names are compared (RFC 9110, 4.2.3)."""
    assert parse_config(b"metrics: {hosts: [Echo.Example.com, x]}")[0].metrics.hosts == ("echo.example.com", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: {}, or remove the dash"),
        ("7", "is a number: {}"),
        ("http://echo.example.com", '"http://echo.example.com" is not a host name: {}'),
        ("echo.example.com:80", '"echo.example.com:80" is not a host name: {}'),
        ("-a", '"-a" is not a host name: {}'),
    ],
)
def test_what_is_no_name_of_a_host_is_refused(text: str, message: str) -> None:
    """The place is that of the name."""
    wanted = "write a name such as echo.example.com, without protocol and port"
    ((_, _, path, printed),) = errors(f"metrics:\n  hosts:\n    - {text}\n")
    assert (path, printed) == ("metrics.hosts[0]", message.format(wanted))
    assert [each[2] for each in errors("metrics: {hosts: echo.example.com}")] == ["metrics.hosts"]


def test_interfaces_are_names_as_the_kernel_has_them() -> None:
    """None by default; a VLAN has a dot, and a name fifteen characters at most."""
    assert parse_config(b"{}")[0].kernel.interfaces == ()
    assert parse_config(b"kernel: {interfaces: [eth0.7, lo]}")[0].kernel.interfaces == ("eth0.7", "lo")
    assert parse_config(b"kernel: {interfaces: [abcdefghijklmno]}")[0].kernel.interfaces == ("abcdefghijklmno",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: {}, or remove the dash"),
        ("7", "is a number: {}"),
        ("a/b", '"a/b" is not an interface name: {}'),
        ("eth0:1", '"eth0:1" is not an interface name: {}'),
        ("two words", '"two words" is not an interface name: {}'),
        ("abcdefghijklmnop", '"abcdefghijklmnop" is not an interface name: {}'),
    ],
)
def test_what_is_no_name_of_an_interface_is_refused(text: str, message: str) -> None:
    """The place is that of the name."""
    wanted = 'write up to 15 characters, none of them a blank, "/", ":" or "%"'
    ((_, _, path, printed),) = errors(f"kernel:\n  interfaces:\n    - {text}\n")
    assert (path, printed) == ("kernel.interfaces[0]", message.format(wanted))


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[http://127.0.0.1:9, 7]", "metrics.listen[1]", "is a number: write http://127.0.0.1:9007"),
        ("[~]", "metrics.listen[0]", "is empty: write http://127.0.0.1:9007 or remove the dash"),
        ("[off]", "metrics.listen[0]", '"off" is not a URL: write http://127.0.0.1:9007, or off'),
        (
            "[http://0.0.0.0:9, http://127.0.0.1:9]",
            "metrics.listen[1]",
            "http://0.0.0.0:9 already uses this port, line 1: remove one of them",
        ),
    ],
)
def test_a_list_of_endpoints_that_cannot_be_is_refused(text: str, path: str, message: str) -> None:
    """Each mistake stands at its own URL."""
    assert [each[2:] for each in errors(f"metrics: {{listen: {text}}}")] == [(path, message)]
