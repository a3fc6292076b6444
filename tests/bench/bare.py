"""echod without its rules: admits everyone without a look, and is otherwise echod to the last line.

Takes the arguments of `echod`. Owns the exchange of one class, before any worker is forked; processes, sockets, batch
and counters are echod's own. It is measured beside echod, under plain datagrams alone, and serves for nothing else.
Invariant: a datagram costs here what it costs echod, less the decision.
"""

import sys
from collections.abc import Iterable

from echod.cli import main
from echod.net.networks import Network
from echod.worker import worker


class Everyone:
    """What `Admission` is to a worker whose traffic is plain datagrams, and no rule behind it."""

    slipped = 0
    limited = False
    loop_detector = None
    """Nothing is looked at."""

    def __init__(self, *_arguments: object, **_settings: object) -> None:
        """Take what `Admission` takes, and keep nothing of it."""

    def set_own_addresses(self, own: Iterable[Network]) -> None:
        """Forget them: nobody is refused for his address."""

    def clears_all(self, *_batch: object, **_arrival: object) -> bool:
        """Let all pass."""
        return True


if __name__ == "__main__":
    vars(worker)["Admission"] = Everyone  # not by assignment: to a type checker it is no Admission
    main.main(main.load(sys.argv[1:]))
