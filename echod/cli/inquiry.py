"""Whether a source would be replied to, by which rule, and how often: for `echod check --source`.

Owns the sentences. It decides nothing: that is done by the rules that a worker has. It knows only the config and
which addresses are this host's own, or broadcast: neither the sockets that systemd passes nor what is between here
and the source. Invariant: the text describes one datagram from there that is whole and unicast.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, TypeAlias

from echod.admission.rules import Access, Rules, Verdict
from echod.config.access import NAMES, AccessEntry
from echod.config.schema import Config
from echod.net.listener import MAX_PORT, Listener, Protocol
from echod.net.mode import Mode
from echod.net.networks import Network
from echod.stats.outcomes import Drop
from echod.worker.rules import declare_rules

_Address: TypeAlias = IPv4Address | IPv6Address

_WANTED: Final = "write ADDRESS:PORT, such as 192.0.2.1:40000 or [2001:db8::1]:40000"
_SOURCE_BITS: Final = 64
"""The prefix of IPv6 that is one source; see `peers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a datagram or a connection comes from."""

    address: _Address
    port: int

    def __str__(self) -> str:
        """Write it as `parse_source` reads it."""
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What would become of it over one protocol: whether there is a reply, and a sentence that says why."""

    replied: bool
    text: str


def parse_source(text: str) -> Source:
    """Read `192.0.2.1:40000` or `[2001:db8::1]:40000`; of a link-local address the interface may follow a `%`.

    Raises ValueError with one sentence for the operator that says what to write.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)(?:%[^]]+)?\]|([0-9.]+)):([0-9]{1,5})", text)
    try:
        if found is None or int(found[3]) > MAX_PORT:
            raise ValueError(text)  # noqa: TRY301 - one sentence for all
        return Source(address=IPv6Address(found[1]) if found[1] else IPv4Address(found[2]), port=int(found[3]))
    except (AddressValueError, ValueError):
        raise ValueError(f"{text!r} is not a source: {_WANTED}") from None


def inquire(config: Config, source: Source, own: Iterable[Network], *, broadcast: bool = False) -> tuple[Answer, ...]:
    """Say what becomes of a datagram and of a connection from this source.

    `own` are this host's own networks; `broadcast`: here the address of the source is a broadcast address.
    """
    declared = declare_rules(config, config.listeners, own)
    access, rules = Access(declared), Rules(declared)
    answers = []
    for protocol in Protocol:
        listeners = [each for each in config.listeners if each.protocol is protocol]
        if protocol is Protocol.UDP:
            drop = rules.judge_host(source.address, source.port, on_loopback=source.address.is_loopback)
        else:
            drop = None if access.admits(str(source.address)) else Drop.ACCESS
        reached = _reached(listeners, source.address)
        if broadcast and reached:
            text = f"{source.address} is a broadcast address of this host's networks, and not a valid source"
            answers.append(Answer(replied=False, text=f"{protocol.value} from {source}: refused: {text}"))
        elif listeners:
            answers.append(_answer(config, source, protocol, reached, drop))
    return tuple(answers)


def _reached(listeners: Iterable[Listener], address: _Address) -> list[Listener]:
    """Return the listeners that a source can reach, and get a reply from.

    That is those of its family; from this host those that serve lo, from other hosts those that do not serve it alone.
    """
    family = [each for each in listeners if each.address.version == address.version]
    if address.is_loopback:
        return [each for each in family if each.zone in ("", "lo")]
    return [each for each in family if not each.address.is_loopback and each.zone != "lo"]


def _answer(config: Config, source: Source, protocol: Protocol, reached: Sequence[Listener], drop: Verdict) -> Answer:
    begin = f"{protocol.value} from {source}"
    if not reached:
        family = f"{protocol.value}:// listener has an IPv{source.address.version} address"
        where = " and serves lo" if source.address.is_loopback else " that other hosts can reach"
        return Answer(replied=False, text=f"{begin}: reaches no listener: no {family}{where}")
    if drop is not None:
        counter = "closed_access" if protocol is Protocol.TCP else f"dropped_{drop.name.lower()}"
        return Answer(replied=False, text=f"{begin}: refused ({counter}): {_reason(config, source, drop)}")
    modes: dict[Mode, list[Listener]] = {}
    for each in reached:
        modes.setdefault(config.listeners[each].mode, []).append(each)
    silent = [
        f"mode {mode.value}, at {_and_more(modes.pop(mode))}, replies to {whom}"
        for mode, whom in ((Mode.DISCARD, "nobody"), (Mode.REVEAL, "loopback and private sources alone"))
        if mode in modes and (mode is Mode.DISCARD or not _is_near(source.address))
    ]
    if not modes:
        return Answer(replied=False, text=f"{begin}: gets no reply: {'; '.join(silent)}")
    limits = _udp_limits(config, source) if protocol is Protocol.UDP else _tcp_limits(config, source)
    entry = _find(config.access.allow, source.address)
    places = [f"{'' if mode is Mode.ECHO else f'in mode {mode.value} '}at {_and_more(modes[mode])}" for mode in modes]
    text = "; ".join([f"{begin}: replied to {', '.join(places)}: access.allow has {entry}", *limits, *silent])
    return Answer(replied=True, text=text)


def _and_more(listeners: Sequence[Listener]) -> str:
    """Name the first of several listeners, and their number."""
    return f"{listeners[0]} and {len(listeners) - 1:,} more" if len(listeners) > 1 else str(listeners[0])


def _is_near(address: _Address) -> bool:
    """Tell whether a source may be told what was seen of it, in the mode reveal."""
    return any(address in network for name in ("loopback", "private") for network in NAMES[name])


def _reason(config: Config, source: Source, drop: Drop) -> str:
    """Say which rule refuses a source."""
    address, guard = source.address, config.guard
    denied = _find(config.access.deny, address)
    access = f"access.deny has {denied}" if denied else f"access.allow has no entry with {address}"
    own = next((each for each in config.listeners if (each.protocol, each.port) == (Protocol.UDP, source.port)), None)
    reasons = {
        Drop.SOURCE_PORT_ZERO: "no reply can reach port 0",
        Drop.SOURCE_PORT_OWN: f"{own} has the same port, and another echod may be there",
        Drop.SOURCE_PORT_LOW: f"guard.min_source_port is {guard.min_source_port}",
        Drop.SOURCE_PORT_REFUSED: f"guard.refuse_source_ports has {source.port}",
        Drop.SOURCE_INVALID: f"{address} is not a valid source",
        Drop.SOURCE_IS_SELF: f"{address} is an address of this host; on this host, use 127.0.0.1 or ::1",
        Drop.ACCESS: access,
    }
    return reasons.get(drop, "echod(8) explains this counter")


def _find(entries: Iterable[AccessEntry], address: _Address) -> AccessEntry | None:
    """Return the first entry that contains an address."""
    return next((each for each in entries if any(address in network for network in each.networks)), None)


def _udp_limits(config: Config, source: Source) -> list[str]:
    limits, texts = config.limits, []
    if limits.datagrams_per_second is not None:
        texts.append(
            f"at most {limits.datagrams_per_second:,} a second from {_named(source)}, in bursts of {limits.burst:,}"
        )
    if limits.total_datagrams_per_second is not None:
        texts.append(f"at most {limits.total_datagrams_per_second:,} a second from all sources")
    if texts and limits.dry_run:
        texts.append("limits.dry_run: datagrams above a limit are counted and replied to")
    return texts


def _tcp_limits(config: Config, source: Source) -> list[str]:
    tcp = config.tcp
    one, total = tcp.max_connections_per_source, tcp.max_connections
    return [f"at most {one:,} connections from {_named(source)}, {total:,} in all"]


def _named(source: Source) -> str:
    """Name what counts as one source."""
    address = source.address
    shared = address.version == 4 or address.is_link_local or int(address) >> 120 == 0  # noqa: PLR2004 - as `peers`
    return str(address) if shared else f"the /{_SOURCE_BITS} of {address}"
