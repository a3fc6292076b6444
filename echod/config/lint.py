"""What is wrong or unreasonable in a config whose values are valid one by one.

Owns the comparison of keys with each other, and its sentences. It knows no host. Invariant: a warning points at a key
that the file has.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from echod.config.access import find_covered, is_public, parse_entry
from echod.config.document import Document, Path, mistake_at
from echod.config.schema import Config, GuardConfig, LimitsConfig, TcpConfig
from echod.errors import Mistake
from echod.net.listener import Endpoint, ListenerRange, Protocol, overlap, parse_listener
from echod.net.mode import Mode

_Warning: TypeAlias = tuple[tuple[Path, ...], str]  # the keys concerned, and the text

_SMALL_BUFFER = 128 * 1024
_LONG_DRAIN_SECONDS = 60
_FIRST_CLIENT_PORT = 1024  # lower ports belong to services (RFC 6335)
_MUCH_PER_SECOND = 10_000
_SERVICES = {7: (Mode.ECHO, "RFC 862"), 9: (Mode.DISCARD, "RFC 863"), 862: (Mode.STAMP, "RFC 8762")}
"""The mode that is the standard of a port, and where that is written."""
_OPEN = (
    "includes public addresses: the source of a datagram can be forged, so that replies hit anybody: write "
    "limits.datagrams_per_second too, such as 1000, or unlimited if that is meant"
)


def find_open(document: Document) -> Iterator[Mistake]:
    """Find an entry that allows public addresses without a rate limit, in a file that may have mistakes."""
    access, limits = document.value.get("access"), document.value.get("limits")
    allow = access.get("allow") if isinstance(access, dict) else None
    if not isinstance(allow, list) or (isinstance(limits, dict) and "datagrams_per_second" in limits):
        return
    for index, text in enumerate(allow):
        if isinstance(text, str) and _is_public(text):
            path = ("access", "allow", index)
            yield mistake_at(document.places[path].spot, path, _OPEN)
            return


def _is_public(text: str) -> bool:
    try:
        return is_public(parse_entry(text))
    except ValueError:
        return False  # a mistake of its own


def listener_ranges(document: Document) -> dict[Path, ListenerRange]:
    """Return the entries of `listeners` by their places in the file; none if it leaves out the key."""
    places, entries = document.places, document.value.get("listeners")
    paths: list[Path] = [("listeners", index) for index in range(len(entries) if isinstance(entries, list) else 0)]
    return {path: parse_listener(places.get((*path, "address"), places[path]).text) for path in paths}


def places(endpoints: Sequence[Endpoint], document: Document) -> dict[Path, Endpoint]:
    """Return these values of `metrics.listen` by their places in the file, which may have one or a list."""
    path: Path = ("metrics", "listen")
    return {
        (*path, index) if (*path, index) in document.places else path: endpoint
        for index, endpoint in enumerate(endpoints)
    }


def find_clash(config: Config, document: Document) -> Iterator[Mistake]:
    """Find echo listeners on a metrics port: binding it would fail with a report of another process there."""
    by_place = places(config.metrics.listen, document)
    for listener in config.listeners:
        for path, endpoint in by_place.items():
            if overlap(listener, endpoint.listener):
                yield mistake_at(document.places[path].spot, path, f"{listener} uses this port: write another")


def find_unreasonable(config: Config, document: Document) -> Iterator[Mistake]:
    """Find what is valid but unreasonable."""
    for paths, message in (*_find_all(config), *_find_modes(config, document)):
        # The defaults are reasonable together, so the file sets at least one of the keys.
        path = next(path for path in paths if path in document.places)
        yield mistake_at(document.places[path].key_spot, path, message)


def _find_all(config: Config) -> Iterator[_Warning]:
    """Yield each warning with the keys concerned, first the one to point at."""
    yield from _find_access(config)
    yield from _find_guard(config.guard)
    yield from _find_limits(config.limits)
    yield from _find_sockets(config)
    if config.kernel.interfaces and not any(
        one.protocol is Protocol.UDP and options.plain for one, options in config.listeners.items()
    ):
        message = "no udp:// listener is a plain echo: there is nothing for the kernel to repeat"
        yield (("kernel", "interfaces"),), message
    if (fresh := config.kernel.fresh_seconds) >= (stale := config.kernel.stale_seconds):
        message = (
            f"fresh_seconds ({fresh:,}) is not less than stale_seconds ({stale:,}): no reply of the daemon is renewed "
            "in time, so that each ends after stale_seconds"
        )
        yield (("kernel", "fresh_seconds"), ("kernel", "stale_seconds")), message
    if (seconds := config.drain_timeout_seconds) > _LONG_DRAIN_SECONDS:
        yield (("drain_timeout_seconds",),), f"systemctl stop can take this long: {seconds:,} seconds"
    if any(not each.listener.address.is_loopback for each in config.metrics.listen):
        message = (
            "everybody who can reach this port can read the metrics and the top sources, because there is no "
            "password: write http://127.0.0.1:9007, or put a firewall or a proxy in front of it"
        )
        yield (("metrics", "listen"),), message


def _find_modes(config: Config, document: Document) -> Iterator[_Warning]:
    """Find listeners that a client takes for something else, or that harm others than who made them."""
    for path, listeners in listener_ranges(document).items():
        first, options = listeners.first, config.listeners[listeners.first]
        for port, (standard, source) in _SERVICES.items():
            there = first.port <= port <= listeners.last_port
            if (
                there
                and options.mode is not standard
                and (first.protocol is Protocol.UDP or standard is not Mode.STAMP)
            ):
                message = (
                    f"port {port} is that of {standard.value} ({source}), and its clients take the replies of "
                    f"{options.mode.value} for errors: write another port, or mode: {standard.value}"
                )
                yield ((*path, "mode"), path), message
        if options.impair is not None and not first.address.is_loopback:
            where = "this host" if first.address.is_unspecified else str(first.address)
            message = (
                f"whoever can reach {where} gets these errors and delays, and may take them for those of the "
                f"network: write {'127.0.0.1' if first.address.version == 4 else '[::1]'}, unless that is meant"  # noqa: PLR2004
            )
            yield ((*path, "impair"), path), message


def _find_access(config: Config) -> Iterator[_Warning]:
    access, limits = config.access, config.limits
    if not access.allow:
        yield (("access", "allow"),), "the list is empty: nobody gets a reply"
    for index in find_covered(access.allow, access.deny):
        paths: tuple[Path, ...] = (("access", "allow", index), ("access", "deny"))
        message = f"access.deny covers all of {access.allow[index]} and takes precedence: none of it gets a reply"
        yield paths, message
    # If the total is the smaller one, it is the limit of a single source.
    rates = [rate for rate in (limits.datagrams_per_second, limits.total_datagrams_per_second) if rate is not None]
    if any(map(is_public, access.allow)) and min(rates, default=_MUCH_PER_SECOND + 1) > _MUCH_PER_SECOND:
        message = (
            "access.allow includes public addresses: above 10,000 a second, replies to a forged source flood the "
            "host that has that address"
        )
        yield (("limits", "datagrams_per_second"),), message


def _find_guard(guard: GuardConfig) -> Iterator[_Warning]:
    if guard.min_source_port < _FIRST_CLIENT_PORT:
        message = (
            "ports below 1024 belong to services such as DNS and NTP: after one forged datagram echod and such a "
            "service reply to each other for ever"
        )
        yield (("guard", "min_source_port"),), message
    if not guard.loop_breaker:
        yield (("guard", "loop_breaker"),), "without it, a datagram that circulates between two servers never stops"


def _find_limits(limits: LimitsConfig) -> Iterator[_Warning]:
    one, total = limits.datagrams_per_second, limits.total_datagrams_per_second
    if one is None and total is None:
        for key in ("burst", "slip", "dry_run"):
            if getattr(limits, key) != LimitsConfig.model_fields[key].default:
                yield (("limits", key),), "no limit is set, so this has no effect"
    elif one is None and limits.slip != LimitsConfig.model_fields["slip"].default:
        message = "limits.datagrams_per_second is not set, so this has no effect: it does not apply to the total limit"
        yield (("limits", "slip"),), message
    if (one is not None or total is not None) and limits.dry_run:
        yield (("limits", "dry_run"),), "nothing is refused: datagrams above a limit are counted and replied to"
    if one is not None and total is not None and total < one:
        message = (
            f"total_datagrams_per_second ({total:,}) is less than datagrams_per_second ({one:,}): "
            "a single source can use all of it"
        )
        yield (("limits", "total_datagrams_per_second"),), message


def _find_sockets(config: Config) -> Iterator[_Warning]:
    udp, tcp = config.udp, config.tcp
    for key in ("receive_buffer", "send_buffer"):
        if getattr(udp, key) < _SMALL_BUFFER:
            yield (("udp", key),), "below 128 KiB it has no room for two full datagrams: bursts will be lost"
    if tcp != TcpConfig() and not any(one.protocol is Protocol.TCP for one in config.listeners):
        message = "no tcp:// listener is configured, so these settings apply only to those of a .socket unit"
        yield (("tcp",),), message
    for key, most, consequence in (
        ("max_connections_per_source", "max_connections", "a single source can take every connection"),
        ("stall_timeout_seconds", "idle_timeout_seconds", "a stalled connection is closed as idle first"),
    ):
        if (one := getattr(tcp, key)) > (bound := getattr(tcp, most)):
            yield (("tcp", key), ("tcp", most)), f"{key} ({one:,}) is more than {most} ({bound:,}): {consequence}"
