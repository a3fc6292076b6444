"""`echod ping` over TCP to a peer that takes probes, answers none and hangs up: each probe has one end."""

import json
import socket

from support.ping.pinging import ended, start


def test_the_end_of_a_connection_is_that_of_the_probes_on_it_and_of_no_others() -> None:
    """Those that were given up and those in flight, each once: what was lost until then is known to be refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with start("--json", "-i", "50ms", "-c", 12, "-W", "0.2", target) as process:
            assert process.stdout
            peer, _ = server.accept()
            with peer:
                for _ in range(3):
                    assert json.loads(process.stdout.readline())["event"] == "lost"
            server.close()  # and nobody takes the next connection
            out, _ = ended(process)
    events = [json.loads(line) for line in out.splitlines()]
    figures = events[-1]["targets"][0]
    errors = [event.get("sequence") for event in events if event["event"] == "error"]
    assert len(errors) == len(set(errors)) == figures["errors"]
    assert {1, 2, 3} < set(errors)
    assert figures["sent"] == figures["received"] + figures["lost"] + figures["errors"] + figures["in_flight"] == 12
