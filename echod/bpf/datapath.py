"""The datapath in the kernel, as one object: declare it, attach it to interfaces, forget its paths, read its counters.

Owns the maps, the programs and the links of this process; with the process they are gone, and the sockets reply. It
knows no config, log or clock. Invariants: a declaration that fails leaves everything as it was; the counters of an
account only grow.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from struct import Struct
from typing import Final, Self

from echod.bpf import layout, maps
from echod.bpf.layout import PATH_UNTIL, Hook
from echod.bpf.link import Attachment, Programs
from echod.bpf.maps import Account, Declaration, KernelTraffic, Rows
from echod.bpf.options import NANOSECONDS, Build, Options, Tables, power_of_two
from echod.linux.bpf import Map

_FIRST: Final = bytes(4)
"""The only key of an array of one value."""
_UNTIL: Final = Struct("<Q")
_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")


def possible_cpus() -> int:
    """Return one more than the highest number that a CPU of this host may ever have."""
    return 1 + int(_POSSIBLE.read_text(encoding="ascii").rstrip().replace(",", "-").rpartition("-")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """The counters of some declarations with the same accounts."""

    view: memoryview
    accounts: tuple[Account, ...]
    rows: int

    def read(self) -> Rows:
        """Add up its counters."""
        return maps.add_rows(bytes(self.view), self.accounts, self.rows)


class Datapath:
    """Maps, programs and links. Close it, or use it in a `with` statement."""

    def __init__(self, declared: Declaration) -> None:
        """Make the maps. No program is loaded before an interface needs it. OSError: not permitted, or no memory."""
        self._cpus = power_of_two(possible_cpus())
        self._seed = int.from_bytes(os.urandom(8), "little")
        self._attachments: dict[int, Attachment] = {}
        self._programs: dict[Hook, Programs] = {}
        self._folded: Rows = {}
        self.declared = declared
        self._maps = self._make_maps(declared, {})
        self._pages = [self._open_page()]

    def __enter__(self) -> Self:
        """Go on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach everything."""
        self.close()

    def close(self) -> None:
        """Detach from all interfaces, and forget everything."""
        for attachment in self._attachments.values():
            attachment.close()
        for programs in self._programs.values():
            programs.close()
        _close(self._maps)
        self._attachments, self._programs, self._maps = {}, {}, {}

    # -- interfaces

    def attach(self, ifindex: int, hook: Hook) -> None:
        """Attach to an interface by this hook, if it is not. OSError: see `bpf.link`.

        A failure to load the programs leaves everything as it was. What is attached by another hook is detached first:
        with two at once, what one leaves to the sockets would be counted by the other again.
        """
        if self.attached.get(ifindex) == hook:
            return
        if hook not in self._programs:
            self._programs[hook] = Programs(self._build(hook, self._maps, self.declared))
        self.detach(ifindex)
        self._attachments[ifindex] = Attachment(ifindex, hook, self._programs[hook])
        for unused in self._programs.keys() - {each.hook for each in self._attachments.values()}:
            self._programs.pop(unused).close()

    def detach(self, ifindex: int) -> None:
        """Detach from an interface, if attached."""
        attachment = self._attachments.pop(ifindex, None)
        if attachment is not None:
            attachment.close()

    @property
    def attached(self) -> dict[int, Hook]:
        """Return the interfaces that it is attached to and that are there, by index."""
        return {ifindex: each.hook for ifindex, each in self._attachments.items() if each.is_alive}

    # -- what is to be repeated

    def forget(self, now: float) -> None:
        """Forget every path that was noted before `now`, of the monotonic clock: the sockets decide anew, at once."""
        until = int(NANOSECONDS * (now + self.declared.stale_seconds))
        self._maps["forgotten"].update(_FIRST, maps.pack_number(until))

    def declare(self, declared: Declaration) -> None:
        """Go over to another declaration, on all interfaces, without a loss; paths are forgotten.

        Accounts of sources and samples are kept where their limits are. OSError: it was not possible, and the previous
        declaration stays in force.
        """
        for ifindex in self._attachments.keys() - self.attached.keys():
            self.detach(ifindex)
        with ExitStack() as stack:
            made = self._make_maps(declared, self._kept(declared))
            stack.callback(_close, _without(made, self._maps))
            programs: dict[Hook, Programs] = {}
            for hook in {each.hook for each in self._attachments.values()}:
                programs[hook] = Programs(self._build(hook, made, declared))
                stack.callback(programs[hook].close)
            # First no datagram finds an old path any more, then new ones are noted.
            for attachment in self._attachments.values():
                stack.callback(attachment.replace_ingress, self._programs[attachment.hook])
                attachment.replace_ingress(programs[attachment.hook])
            for attachment in self._attachments.values():
                stack.callback(attachment.replace_egress, self._programs[attachment.hook])
                attachment.replace_egress(programs[attachment.hook])
            stack.pop_all()
        old_maps, old_programs = _without(self._maps, made), self._programs
        self.declared, self._maps, self._programs = declared, made, programs
        if "counts" in old_maps:
            self._pages.append(self._open_page())
        for each in old_programs.values():
            each.close()
        _close(old_maps)

    # -- what it has done

    def traffic(self) -> dict[Account, KernelTraffic]:
        """Return what became of the datagrams of each account that there is, or was, since the start."""
        while len(self._pages) > 2:  # noqa: PLR2004 - that before the last may still be written to by a running program
            self._folded = maps.join_rows([self._folded, self._pages.pop(0).read()])
        rows = maps.join_rows([self._folded, *(page.read() for page in self._pages)])
        return {account: maps.describe(row) for account, row in rows.items()}

    def count_paths(self, now: float) -> int:
        """Return how many paths there are at this time of the monotonic clock. It reads them all: 10 ms for 65,536."""
        forgotten = self._maps["forgotten"].lookup(_FIRST) or bytes(layout.NUMBER_BYTES)
        ended = max(int(NANOSECONDS * now), int.from_bytes(forgotten, "little"))
        return sum(_UNTIL.unpack_from(path, PATH_UNTIL)[0] > ended for _, path in self._maps["paths"].items())

    # -- making

    def _make_maps(self, declared: Declaration, kept: Mapping[str, Map]) -> dict[str, Map]:
        """Return all maps, filled; those that are not kept are new."""
        refused, local = maps.refused_entries(declared.rules), maps.local_entries(declared)
        wanted = maps.shapes(declared, cpus=self._cpus, refused=len(refused), local=len(local))
        with ExitStack() as stack:
            made = dict(kept)
            for name, shape in wanted.items():
                if name not in made:
                    made[name] = _make(shape, name)
                    stack.callback(made[name].close)
            made["ports"].update(_FIRST, maps.pack_ports(declared))
            made["local"].update_all(local)
            made["refuse"].update_all(refused)
            stack.pop_all()
        return made

    def _kept(self, declared: Declaration) -> dict[str, Map]:
        """Return the maps that go on being used: they hold what must not be forgotten."""
        before = self.declared
        names: set[str] = set()
        if (declared.sources, declared.loop_breaker) == (before.sources, before.loop_breaker):
            names |= {"peers", "samples"}
        if (declared.sources, declared.limits) == (before.sources, before.limits):
            names |= {"rates", "total"}
        if declared.accounts == before.accounts:
            names.add("counts")
        return {name: self._maps[name] for name in names}

    def _build(self, hook: Hook, made: Mapping[str, Map], declared: Declaration) -> Build:
        options = Options(
            cpus=self._cpus,
            rows=declared.rows,
            limits=declared.bounded,
            seed=self._seed,
            loop_breaker=declared.loop_breaker,
            newcomers=maps.newcomers(declared),
            fresh_ns=int(NANOSECONDS * declared.fresh_seconds),
            stale_ns=int(NANOSECONDS * declared.stale_seconds),
        )
        tables = Tables(**{each.name: made[each.name].descriptor for each in fields(Tables)})
        return Build(hook=hook, tables=tables, options=options)

    def _open_page(self) -> _Page:
        return _Page(view=self._maps["counts"].view(), accounts=self.declared.accounts, rows=self.declared.rows)


def _make(shape: maps.Shape, name: str) -> Map:
    return Map(
        shape.kind,
        key_bytes=shape.key_bytes,
        value_bytes=shape.value_bytes,
        entries=shape.entries,
        flags=shape.flags,
        name=f"echod_{name}",
    )


def _without(some: Mapping[str, Map], others: Mapping[str, Map]) -> dict[str, Map]:
    """Return the maps that are not among the others."""
    return {name: each for name, each in some.items() if others.get(name) is not each}


def _close(some: Mapping[str, Map]) -> None:
    for each in some.values():
        each.close()
