"""`echod ping` over TCP to a peer that replies to no probe and closes the connection: each probe is settled once."""

import json
import socket

from support.ping.pinging import ended, read_lines, start


def test_the_end_of_a_connection_settles_the_probes_on_it_and_no_others() -> None:
    """Lost ones and those in flight, each once: a lost probe becomes an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with start("--json", "-i", "50ms", "-c", 12, "-W", "0.2", target) as process:
            peer, _ = server.accept()
            with peer:
                assert [json.loads(line)["event"] for line in read_lines(process, 3)] == ["lost"] * 3
            server.close()  # and nobody takes the next connection
            out, _ = ended(process)
    events = [json.loads(line) for line in out.splitlines()]
    figures = events[-1]["targets"][0]
    errors = [event.get("sequence") for event in events if event["event"] == "error"]
    assert len(errors) == len(set(errors)) == figures["errors"]
    assert {1, 2, 3} < set(errors)
    assert figures["sent"] == figures["received"] + figures["lost"] + figures["errors"] + figures["in_flight"] == 12
