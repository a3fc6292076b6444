"""echod.config.socket_unit: what systemd reports of echod's units, and what a config needs of them."""

from echod.config.document import read
from echod.config.parse import parse_config
from echod.config.socket_unit import (
    Passing,
    Units,
    advice,
    config_of,
    find_not_passed,
    find_replaced,
    is_activated,
    passed,
    properties,
    units_of,
    units_of_service,
)
from echod.errors import Mistake
from echod.net.listener import parse_listener

DEFAULT = "/etc/echod.yaml"
UNITS = Units(service="echod.service", socket="echod.socket", metrics="echod-metrics.socket")
USUAL = (
    "Listen=0.0.0.0:7 (Datagram)\nListen=[::]:7 (Datagram)\n"
    "Listen=0.0.0.0:7 (Stream)\nListen=[::]:7 (Stream)\nListen=route (Netlink)\n"
)
WHOLE = Passing(units=UNITS, listeners=passed(USUAL), metrics=passed("Listen=127.0.0.1:9007 (Stream)\n"))


def found(text: str, passing: Passing = WHOLE) -> tuple[Mistake, ...]:
    """Return what a config has and the units do not pass."""
    return find_not_passed(parse_config(text.encode())[0], read(text.encode()), passing)


def drop_in(text: str, passing: Passing = WHOLE) -> str:
    """Return the advice for a config."""
    return advice(parse_config(text.encode())[0].listeners, passing)


def test_the_properties_are_those_that_systemctl_prints() -> None:
    """A value may hold what separates; a line that is no property is none."""
    assert properties("LoadState=loaded\nExecStart={ a=b ; c=d }\n\nwarning\n") == {
        "LoadState": "loaded",
        "ExecStart": "{ a=b ; c=d }",
    }


def test_an_instance_has_units_of_its_own() -> None:
    """They are named in what is to be written and run."""
    assert units_of("") == units_of_service("") == units_of_service("echod.service") == UNITS
    red = units_of("vrf-red")
    assert (red.service, red.socket) == ("echod@vrf-red.service", "echod@vrf-red.socket")
    assert red.metrics == "echod-metrics@vrf-red.socket"
    assert units_of_service("echod@vrf-red.service") == red
    own = units_of_service("lab-echo.service")
    assert (own.service, own.socket, own.metrics) == ("lab-echo.service", "lab-echo.socket", "lab-echo-metrics.socket")
    lines = drop_in("workers: 1\n", Passing(units=red, listeners=frozenset(), metrics=None))
    assert "\nTo pass these listeners, write to /etc/systemd/system/echod@vrf-red.socket.d/listeners.conf:\n" in lines
    assert lines.endswith("systemctl restart echod@vrf-red.socket echod@vrf-red.service")


def test_the_config_is_the_one_that_the_service_starts_with() -> None:
    """In either form of the option, and the default where there is none."""
    for words, path in (
        ("run --config /etc/echod.yaml", "/etc/echod.yaml"),
        ("run --config=/srv/a.yaml --daemonize", "/srv/a.yaml"),
        ("run", "/etc/echod.yaml"),
        ("run --config", "/etc/echod.yaml"),
    ):
        start = f"{{ path=/usr/local/bin/echod ; argv[]=/usr/local/bin/echod {words} ; ignore_errors=no ; pid=0 }}"
        assert config_of({"ExecStart": start}, DEFAULT) == path
    assert config_of({}, DEFAULT) == DEFAULT


def test_activated_is_who_needs_the_socket_unit_and_has_no_network() -> None:
    """Either alone is an echod that can open what is not passed."""
    assert is_activated({"Requires": "sysinit.target echod.socket", "PrivateNetwork": "yes"}, "echod.socket")
    assert not is_activated({"Requires": "sysinit.target echod.socket", "PrivateNetwork": "no"}, "echod.socket")
    assert not is_activated({"Requires": "sysinit.target", "PrivateNetwork": "yes"}, "echod.socket")
    assert not is_activated({}, "echod.socket")


def test_the_listeners_of_a_unit_are_its_internet_sockets() -> None:
    """As systemd prints them; what no listener can be is none."""
    text = f"{USUAL}Listen=/run/x (Stream)\nListen=[fe80::1%eth0]:9 (Datagram)\nListen=0.0.0.0:8 (SequentialPacket)\n"
    usual = ("udp://0.0.0.0:7", "udp://[::]:7", "tcp://0.0.0.0:7", "tcp://[::]:7", "udp://[fe80::1%eth0]:9")
    assert passed(text) == {parse_listener(each).first for each in usual}


def test_what_the_units_pass_is_no_mistake() -> None:
    """All of it, some of it, or what the config does not name."""
    for text in ("workers: 1\n", "listeners: ['udp://[::]:7']\n", "metrics: {listen: 'http://127.0.0.1:9007'}\n"):
        assert found(text) == ()
        assert drop_in(text) == ""


def test_each_entry_that_is_not_passed_is_a_mistake_with_its_line() -> None:
    """A range counts as one; the advice is a drop-in with every listener of the config, and what applies it."""
    text = "listeners:\n  - udp://[::]:7\n  - tcp://127.0.0.1:7000-7002\n  - udp://0.0.0.0:9\n"
    assert found(text) == (
        Mistake(
            line=3,
            column=5,
            path="listeners[1]",
            message="echod.socket does not pass tcp://127.0.0.1:7000 and 2 more, and echod may not open sockets itself",
        ),
        Mistake(
            line=4,
            column=5,
            path="listeners[2]",
            message="echod.socket does not pass udp://0.0.0.0:9, and echod may not open sockets itself",
        ),
    )
    lines = drop_in(text).splitlines()
    assert lines.pop(0) == ""
    assert lines[0] == "To pass these listeners, write to /etc/systemd/system/echod.socket.d/listeners.conf:"
    assert lines[1:-2] == [
        "",
        "[Socket]",
        "ListenStream=",
        "ListenDatagram=[::]:7",
        "ListenStream=127.0.0.1:7000",
        "ListenStream=127.0.0.1:7001",
        "ListenStream=127.0.0.1:7002",
        "ListenDatagram=0.0.0.0:9",
        "ListenNetlink=route",
        "FreeBind=yes",  # for 127.0.0.1, as for an address that comes later
    ]
    assert lines[-1] == "then run: systemctl daemon-reload && systemctl restart echod.socket echod.service"


def test_a_unit_is_of_one_device() -> None:
    """Its listeners have the device of BindToDevice=. Those of several devices need several units, as is reported."""
    passing = Passing(units=UNITS, listeners=passed("BindToDevice=eth1\nListen=0.0.0.0:7 (Datagram)\n"), metrics=None)
    assert found("listeners: ['udp://0.0.0.0%eth1:7']\n", passing) == ()
    text = "listeners: ['udp://0.0.0.0%eth2:7', 'udp://[fe80::1%eth2]:7']\n"
    assert len(found(text, passing)) == 2
    lines = drop_in(text.replace(", 'udp://[fe80::1%eth2]:7'", ""), passing)
    assert "\nListenDatagram=0.0.0.0:7\nListenNetlink=route\nBindToDevice=eth2\n" in lines
    assert drop_in(text, passing).startswith("\nA .socket unit has one device or none (BindToDevice=): ")


def test_a_link_local_address_keeps_its_link() -> None:
    """It stands in the line itself."""
    lines = drop_in("listeners: ['udp://[fe80::1%eth2]:7']\n")
    assert "\nListenDatagram=[fe80::1%eth2]:7\nListenNetlink=route\nFreeBind=yes\n" in lines


def test_the_usual_listeners_count_too() -> None:
    """A file that names none has those of port 7, and the mistake is reported at its beginning."""
    (mistake,) = found(
        "workers: 1\n", Passing(units=UNITS, listeners=passed("Listen=0.0.0.0:7007 (Datagram)\n"), metrics=None)
    )
    assert (mistake.line, mistake.column, mistake.path) == (1, 1, "listeners")
    assert mistake.message.startswith("echod.socket does not pass udp://0.0.0.0:7 and 3 more")
    assert "FreeBind" not in drop_in("workers: 1\n", Passing(units=UNITS, listeners=frozenset(), metrics=None))


def test_a_port_of_the_metrics_that_is_not_passed_is_a_mistake() -> None:
    """It has a unit of its own, and no drop-in is needed; where metrics are off, nothing is."""
    passing = Passing(units=UNITS, listeners=WHOLE.listeners, metrics=None)
    assert found("metrics:\n  listen: off\n", passing) == ()
    (mistake,) = found("metrics:\n  listen: http://127.0.0.1:9007\n", passing)
    assert (mistake.line, mistake.column, mistake.path) == (2, 3, "metrics.listen")
    assert mistake.message == (
        "only echod-metrics.socket can pass it, and echod may not open sockets itself: systemctl enable "
        "echod-metrics.socket && systemctl restart echod.service"
    )


def test_another_port_of_the_metrics_than_the_passed_one_is_warned_of() -> None:
    """Each entry that the unit does not pass; none where metrics are off, or have no unit, which is a mistake."""

    def replaced(text: str, passing: Passing = WHOLE) -> list[tuple[int, str, str]]:
        warnings = find_replaced(parse_config(text.encode())[0], read(text.encode()), passing)
        return [(each.line, each.path, each.message) for each in warnings]

    text = "metrics:\n  listen:\n  - http://127.0.0.1:9007\n  - http://127.0.0.1:9008\n"
    message = (
        "echod-metrics.socket passes http://127.0.0.1:9007 in its place: write that, or change the unit with "
        "systemctl edit echod-metrics.socket"
    )
    assert replaced(text) == [(4, "metrics.listen[1]", message)]
    assert replaced("metrics: {listen: off}\n") == []
    assert replaced(text, Passing(units=UNITS, listeners=WHOLE.listeners, metrics=None)) == []
