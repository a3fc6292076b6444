"""echod.probes.flood: when the trains go."""

from contextlib import ExitStack
from time import monotonic_ns

from support.loopback import at, udp_server
from support.probing import MILLISECOND, settings, target_at

from echod.probes.flood import FloodSession
from echod.probes.loop import Loop


def test_a_flood_with_a_rate_does_not_catch_up_on_seconds(loop: Loop) -> None:
    """It was stopped for ten: it goes on with one train, and the next one when its time has come."""
    with udp_server() as server, ExitStack() as stack:
        target = target_at(f"127.0.0.1:{at(server)[1]}")
        flood = FloodSession(target, settings(interval=MILLISECOND, window=1024), loop, [], stack)
        begun = monotonic_ns()
        flood.start(begun)
        for milliseconds, sent in ((0, 64), (10_000, 128), (10_063, 128), (10_064, 192)):
            flood.run_due(begun + milliseconds * MILLISECOND)
            assert flood.statistics.sent == sent
