"""`--reveal`: a line for each source port with what the server saw of it, and whether NAT is on the way.

Owns the wording and the fields. Invariant: what a server sends is shown only as `wire.reveal.decode` has read it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

from echod.errors import plural
from echod.ping.options import Options
from echod.ping.values import dscp_name
from echod.probes.loop import interrupt_at_signals
from echod.probes.reveal import Revealed, reveal
from echod.probes.target import Target


def reveal_sources(options: Options, targets: Sequence[Target], out: TextIO) -> bool:
    """Write what the server of each target saw; return whether any replied."""
    found = False
    interrupt_at_signals()
    for target in targets:
        revealed = reveal(target, options.probes)
        found = found or any(each.seen for each in revealed)
        if options.json:
            out.write(json.dumps(fields(target, revealed)) + "\n")
        else:
            out.write(f"REVEAL {target} ({target.ip})\n" + "".join(f"{line}\n" for line in lines(revealed)))
        out.flush()
    return found


def lines(revealed: Sequence[Revealed]) -> list[str]:
    """Return a line for each source port, and a sentence about NAT."""
    here = [_endpoint(each.address, each.port) for each in revealed]
    there = [_endpoint(each.seen.peer, each.seen.peer_port) if each.seen else each.reason for each in revealed]
    width, next_width = max(map(len, here)), max(map(len, there))
    table = [
        f"{ours:<{width}} -> {theirs:<{next_width}}{_details(each)}".rstrip()
        for ours, theirs, each in zip(here, there, revealed, strict=True)
    ]
    return [*table, *_verdict(revealed)]


def fields(target: Target, revealed: Sequence[Revealed]) -> dict[str, Any]:
    """Return the fields of the object for a target."""
    return {
        "event": "reveal",
        "target": str(target),
        "sources": [
            {
                "source_address": each.address,
                "source_port": each.port,
                **(
                    {"seen": asdict(each.seen), "translated": each.translated} if each.seen else {"reason": each.reason}
                ),
            }
            for each in revealed
        ],
    }


def _details(each: Revealed) -> str:
    if each.seen is None:
        return ""
    interface = f" on {each.seen.interface}" if each.seen.interface else ""
    at = _endpoint(each.seen.local, each.seen.local_port)
    return f"  at {at}{interface}, ttl={each.seen.ttl} dscp={dscp_name(each.seen.dscp)}"


def _verdict(revealed: Sequence[Revealed]) -> list[str]:
    """Return a sentence about address and port translation, if there was a reply."""
    seen = [each for each in revealed if each.seen]
    if not seen:
        return []
    if not any(each.translated for each in seen):
        return ["no NAT: the server saw the addresses and ports of this host"]
    addresses = sum(each.seen is not None and each.seen.peer != each.address for each in seen)
    ports = sum(each.seen is not None and each.seen.peer_port != each.port for each in seen)
    of = f"of {len(seen)} {plural(len(seen), 'source port')}"
    return [f"NAT: {of} {addresses} are seen with another address, {ports} with another port"]


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
