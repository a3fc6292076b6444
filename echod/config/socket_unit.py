"""The properties of echod's units in systemd, and the drop-in by which the socket unit passes what a config has.

Owns the forms of systemctl(1)'s properties and of systemd.socket(5). It does no I/O.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from echod.config.document import Document, Path, mistake_at
from echod.config.lint import listener_ranges, places
from echod.config.schema import Config
from echod.errors import Mistake
from echod.net.listener import Endpoint, Listener, parse_listener

_PROTOCOLS: Final = {"Datagram": "udp", "Stream": "tcp"}
_LISTEN: Final = re.compile(r"Listen=(\S+) \((Datagram|Stream)\)")
_ARGUMENTS: Final = re.compile(r"argv\[\]=(.*?) ; ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The names of the units of one echod: `echod.service` and so on, or those of an instance (systemd.unit(5))."""

    service: str
    socket: str
    metrics: str
    """The socket unit of the port of the metrics."""


def units_of(instance: str) -> Units:
    """Return the units of an instance, `echod@NAME.service` and so on; without a name those of `echod.service`."""
    return units_of_service(f"echod@{instance}.service" if instance else "")


def units_of_service(service: str) -> Units:
    """Return the units of the service of this name; without a name those of `echod.service`."""
    stem = service.removesuffix(".service") or "echod"
    name, at, instance = stem.partition("@")
    return Units(service=f"{stem}.service", socket=f"{stem}.socket", metrics=f"{name}-metrics{at}{instance}.socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """What the socket units pass to an echod that cannot open anything itself."""

    units: Units
    listeners: frozenset[Listener]
    metrics: frozenset[Listener] | None
    """The ports that are passed for metrics, in the place of `metrics.listen`; None without a unit for them."""


def properties(shown: str) -> dict[str, str]:
    """Return the properties that `systemctl show` printed; of one printed several times, the last."""
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def config_of(unit: Mapping[str, str], default: str) -> str:
    """Return the path of the config file of the service, by its ExecStart=."""
    found = _ARGUMENTS.search(unit.get("ExecStart", ""))
    words = found[1].replace("=", " ").split() if found else []
    return words[words.index("--config") + 1] if "--config" in words[:-1] else default


def is_activated(unit: Mapping[str, str], socket: str) -> bool:
    """Tell whether the service has no sockets but those that this unit passes (socket-activated.conf)."""
    return socket in unit.get("Requires", "").split() and unit.get("PrivateNetwork") == "yes"


def passed(shown: str) -> frozenset[Listener]:
    """Return the listeners among the sockets of a unit, by its properties Listen and BindToDevice."""
    device = properties(shown).get("BindToDevice", "")
    return frozenset(
        replace(listener, zone=device or listener.zone)
        for line in shown.splitlines()
        if (found := _LISTEN.fullmatch(line))
        for listener in _parsed(f"{_PROTOCOLS[found[2]]}://{found[1]}")
    )


def _parsed(text: str) -> Iterable[Listener]:
    try:
        return parse_listener(text)
    except ValueError:  # a path, or what else a unit may have: echod reports it when it is passed
        return ()


def find_not_passed(config: Config, document: Document, passing: Passing) -> tuple[Mistake, ...]:
    """Find what a config has and the socket units do not pass, each entry once."""
    entries: dict[Path, Iterable[Listener]] = {**listener_ranges(document)}
    mistakes = []
    for path, entry in (entries or {("listeners",): config.listeners}).items():
        lacking = [listener for listener in entry if listener not in passing.listeners]
        if lacking:
            more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
            message = f"{passing.units.socket} does not pass {lacking[0]}{more}, and echod may not open sockets itself"
            mistakes.append(_mistake(document, path, message))
    if config.metrics.listen and passing.metrics is None:
        message = (
            f"only {passing.units.metrics} can pass it, and echod may not open sockets itself: systemctl enable "
            f"{passing.units.metrics} && systemctl restart {passing.units.service}"
        )
        mistakes.append(_mistake(document, ("metrics", "listen"), message))
    return tuple(mistakes)


def find_replaced(config: Config, document: Document, passing: Passing) -> tuple[Mistake, ...]:
    """Find the entries of `metrics.listen` in whose place the socket unit passes other ports: these are served."""
    others = " and ".join(sorted(str(Endpoint(listener=each)) for each in passing.metrics or ()))
    message = (
        f"{passing.units.metrics} passes {others} in its place: write that, or change the unit with systemctl edit "
        f"{passing.units.metrics}"
    )
    return tuple(
        _mistake(document, path, message)
        for path, endpoint in places(config.metrics.listen, document).items()
        if others and endpoint.listener not in (passing.metrics or ())
    )


def advice(listeners: Iterable[Listener], passing: Passing) -> str:
    """Return what to write where the socket unit does not pass all listeners of a config; else an empty string."""
    wanted, units = tuple(listeners), passing.units
    if passing.listeners.issuperset(wanted):
        return ""
    devices = {"" if each.link_local else each.zone for each in wanted}
    if len(devices) > 1:
        return (
            "\nA .socket unit has one device or none (BindToDevice=): these listeners need more units beside "
            f"{units.socket}, with Service={units.service}; see systemd.socket(5)"
        )
    options = [f"BindToDevice={device}" for device in devices if device]
    if not all(each.address.is_unspecified for each in wanted):
        options.append("FreeBind=yes")  # as echod binds it: the address may come later
    return "\n".join(
        (
            "",
            f"To pass these listeners, write to /etc/systemd/system/{units.socket}.d/listeners.conf:",
            "",
            "[Socket]",
            "ListenStream=",
            *(each.unit_line.partition(" with ")[0] for each in wanted),
            "ListenNetlink=route",
            *options,
            "",
            f"then run: systemctl daemon-reload && systemctl restart {units.socket} {units.service}",
        )
    )


def _mistake(document: Document, path: Path, message: str) -> Mistake:
    return mistake_at(document.places[path].key_spot if path in document.places else (1, 1), path, message)
