"""The reply of each mode: what a worker gives a UDP service to answer with.

Owns the choice, and loads the module of a mode only for a listener that has it: what measures costs memory.
"""

from echod.net.mode import Mode
from echod.stats.refusals import Tally
from echod.udp.reply import send
from echod.udp.service import Reply
from echod.worker.channel import Birth, ServedSocket


def make_reply(birth: Birth, served: ServedSocket, row: memoryview, tally: Tally) -> Reply:  # noqa: ARG001
    """Return what replies for one socket of a listener, which has this row of counters and this tally of refusals."""
    options = served.options
    if options.mode is Mode.ECHO and options.impair is None:
        return send
    raise NotImplementedError(options.mode)
