"""Where the kernel replies: the datapath at the interfaces of a config.

Owns which programs an interface gets, or why it gets none, and the probe of those in the driver of a network card.
Invariants: the sockets alone reply where something is in the way, and the log says so once; a card that has lost its
link by being attached is detached.
"""

import errno
from typing import Final

import structlog

from echod.bpf.datapath import Datapath
from echod.bpf.layout import Driver, Hook, LinkKind
from echod.bpf.link import DriverRefusedError
from echod.linux import links
from echod.linux.links import Link

PROBE_SECONDS: Final = 10.0
"""So long a card may be without a link after it was attached: many are started anew by that, which takes seconds."""

_KINDS: Final = {
    links.ETHERNET: LinkKind.ETHERNET,
    links.LOOPBACK: LinkKind.LOOPBACK,
    links.NONE: LinkKind.BARE,
}
_ABSENT: Final = "is not there yet"
_UNFIT: Final = "is of a kind that it cannot use"
_NO_CARD: Final = "is no network card, which kernel.driver: xdp needs"
_STRIPS: Final = (
    "takes the tags of VLANs off, so that kernel.driver: xdp could not tell what is of a VLAN; run "
    "ethtool -K {name} rxvlan off, and reload"
)
_REFUSALS: Final = {
    errno.EOPNOTSUPP: "has a driver without XDP, which kernel.driver: xdp needs",
    errno.EBUSY: "has an XDP program already; detach that, and reload",
}
_REFUSED: Final = "has a driver that refuses XDP programs in its present state ({reason}): see echod-accelerate(8)"
_LINK_LOST: Final = f"had no link {PROBE_SECONDS:.0f} seconds after its driver got the program of kernel.driver: xdp"

_log = structlog.get_logger()


class Interfaces:
    """The interfaces of one process."""

    def __init__(self, datapath: Datapath) -> None:
        """Take the datapath; nothing is attached before `configure`."""
        self._datapath = datapath
        self._names: tuple[str, ...] = ()
        self.driver = Driver.TCX
        self.found: dict[str, int] = {}
        """Each of the config, with its index; 0 for one that is not there."""
        self._obstacles: dict[str, str] = {}
        self._refused: dict[int, str] = {}
        """What has failed is not tried again before the next config: a trial disturbs the card."""
        self._probed: dict[int, float] = {}

    @property
    def serving(self) -> list[str]:
        """Return the names of those where the kernel replies."""
        attached = self._datapath.attached
        return [name for name, ifindex in self.found.items() if ifindex in attached]

    def configure(self, names: tuple[str, ...], driver: Driver) -> None:
        """Go over to those of another config; `attach` is due."""
        self._names, self.driver = names, driver
        self._refused.clear()

    def attach(self, now: float) -> None:
        """Attach to those of the config that are there, and to no other. OSError: perhaps to some of them."""
        before, found = self.found, {name: links.find_link(name) for name in self._names}
        self.found = {name: link.ifindex if link is not None else 0 for name, link in found.items()}
        for name, ifindex in before.items():
            if ifindex and ifindex not in self.found.values():
                self._detach(name, ifindex)
        obstacles = {name: self._attach_to(name, link, now) if link else _ABSENT for name, link in found.items()}
        for name, obstacle in obstacles.items():
            if obstacle and obstacle != self._obstacles.get(name):
                message = f"kernel.interfaces: {name} {obstacle}: the sockets alone reply there"
                _log.warning("kernel_not_attached", message=message, interface=name)
        self._obstacles = obstacles

    def check(self, now: float) -> None:
        """Detach from cards that have no link when their time for it is over. Raises as `attach` does."""
        over = {ifindex for ifindex, until in self._probed.items() if until <= now}
        for ifindex in over:
            del self._probed[ifindex]
        probed = [link for name, ifindex in self.found.items() if ifindex in over and (link := links.find_link(name))]
        lost = [link.ifindex for link in probed if not link.has_carrier]
        if lost:
            self._refused |= dict.fromkeys(lost, _LINK_LOST)
            self.attach(now)

    def _attach_to(self, name: str, link: Link, now: float) -> str:
        """Attach to an interface, if it is not; return what is in the way."""
        chosen = self._choose(name, link)
        attached = self._datapath.attached.get(link.ifindex)
        if isinstance(chosen, Hook) and chosen != attached:
            try:
                self._datapath.attach(link.ifindex, chosen)
            except DriverRefusedError as error:
                refused = _REFUSALS.get(error.errno or 0) or _REFUSED.format(reason=error.strerror)
                return self._refused.setdefault(link.ifindex, refused)
            if chosen.driver is Driver.XDP and link.has_carrier:
                self._probed[link.ifindex] = now + PROBE_SECONDS
            _log.info("kernel_attached", interface=name, kind=chosen.kind.value, driver=chosen.driver.value)
        elif isinstance(chosen, str) and attached:
            self._detach(name, link.ifindex)
        return chosen if isinstance(chosen, str) else ""

    def _choose(self, name: str, link: Link) -> Hook | str:
        """Return the hook for an interface, or why there is none, as far as that is known before it is tried."""
        kind = _KINDS.get(link.hardware)
        if kind is None:
            return _UNFIT
        if self.driver is Driver.TCX:
            return Hook(kind)
        if not link.is_device or kind is not LinkKind.ETHERNET:
            return _NO_CARD
        if links.strips_vlan_tags(name):
            return _STRIPS.format(name=name)
        return self._refused.get(link.ifindex) or Hook(kind, link.station)

    def _detach(self, name: str, ifindex: int) -> None:
        self._datapath.detach(ifindex)
        _log.info("kernel_detached", interface=name)
