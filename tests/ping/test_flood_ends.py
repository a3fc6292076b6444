"""`echod ping -f` at its end: it waits for replies that may still come, and counts each lost probe."""

import signal

import pytest
from support.ping.pinging import Pinged, ended, impaired, impairing, ping, read_lines, start


def balanced(found: Pinged) -> bool:
    """Return whether each probe is in exactly one number of the summary, and the loss is the share of these numbers."""
    figures = found.summary
    names = ("corrupt", "truncated", "extended", "different_address", "errors")
    assert not any(figures[name] for name in names)
    settled = figures["received"] + figures["lost"]
    share = round(figures["lost"] / settled, 12) if settled else None
    return bool(figures["sent"] == settled + figures["in_flight"] and figures.get("loss") == share)


def test_a_flood_waits_for_probes_that_were_overtaken() -> None:
    """Thirty-two probes are dropped and thousands of later ones have replies: the flood ends when they are lost."""
    plan = ["answer"] * 64 + ["drop"] * 32 + ["answer"] * 6304
    found, done = impaired(plan, "--json", "-q", "-f", "--window", 256, "-c", 6400, "-W", 2)
    assert done == {"answer": 6368, "drop": 32}
    assert (found.summary["lost"], found.summary["in_flight"], balanced(found)) == (32, 0, True)


def test_a_reply_that_comes_within_the_timeout_is_waited_for() -> None:
    """Also to probes that were overtaken long ago: none is lost."""
    plan = ["answer"] * 64 + ["late"] * 32 + ["answer"] * 6304
    found, _ = impaired(plan, "--json", "-q", "-f", "--window", 1024, "-c", 6400, "-W", 5)
    assert (found.summary["received"], found.summary["lost"], balanced(found)) == (6400, 0, True)
    assert found.summary["rtt_ms"]["max"] > 500


@pytest.mark.parametrize("ends", ["deadline", "signal"])
def test_a_flood_that_is_cut_short_counts_its_losses(ends: str) -> None:
    """A probe in flight for longer than replies take is lost."""
    with impairing(["foreign"] + ["answer"] * 48 + ["drop"]) as server:
        words = ("--json", "-f", "--window", 256, "-W", 30, "-w", 1 if ends == "deadline" else 30)
        with start(*words, f"127.0.0.1:{server.port}") as process:
            read_lines(process, 64)  # a line for every 50 probes
            if ends == "signal":
                process.send_signal(signal.SIGINT)
            out, _ = ended(process)
        done = server.account()
    found = Pinged(process.returncode, out, "")
    assert balanced(found)
    assert done["drop"] - 256 <= found.summary["lost"] <= done["drop"]
    assert found.summary["in_flight"] <= 256 + done["drop"] - found.summary["lost"]


def test_a_flood_settles_the_probe_that_an_error_quotes() -> None:
    """Where nothing listens each error settles one probe; the rest is lost."""
    found = ping("--json", "-q", "-f", "-c", 640, "-W", 1, "127.0.0.1:9")
    figures = found.summary
    assert figures["errors"] == sum(error["count"] for error in figures["error_reasons"]) > 0
    assert figures["sent"] == figures["lost"] + figures["errors"] == 640
    assert figures["loss"] == 1
