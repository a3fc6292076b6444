"""`echod ping --plus`, `--stamp` and `--mode auto` against a server that keeps an account of both directions."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.ping.impairments import shuffled
from support.ping.pinging import Pinged, measuring, ping, shape
from support.ports import free_port

IMPAIRMENTS = ["drop", "drop out", "duplicate", "duplicate out", "overtaken", "overtaken out", "corrupt", "corrupt out"]
CALM = ["answer"] * 400
SERVERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plus": ({"mode": "plus"}, ["--plus"]),
    "stamp": ({"mode": "stamp", "stateful": True, "dscp": 46}, ["--stamp", "-Q", "EF", "--ssid", "7"]),
    "authenticated": ({"mode": "stamp", "stateful": True, "key": "secret"}, ["--stamp", "--key"]),
}


def probed(plan: Sequence[str], server: str, folder: Path, *words: object) -> tuple[Pinged, dict[str, int]]:
    """Probe a server of these, which impairs by plan; return the report, and its account."""
    options, mode = SERVERS[server]
    if mode[-1] == "--key":
        (folder / "key").write_bytes(b"secret\n")
        mode = [*mode, str(folder / "key")]
    with measuring(plan, **options) as found:
        return ping("--json", *mode, *words, f"127.0.0.1:{found.port}"), found.account()


@pytest.mark.parametrize("server", ["plus", "authenticated"])
def test_the_report_of_each_direction_is_the_account(tmp_path: Path, server: str) -> None:
    """Lost, duplicated, overtaken: each is counted in its direction, as often as it was done, and nothing else."""
    impairments = [*IMPAIRMENTS, *["fail"] * (server == "plus")]
    plan = shuffled([*["answer"] * 200, *impairments * 10], 4) + CALM
    pinged, did = probed(plan, server, tmp_path, "-q", "-c", len(plan), "-i", "1ms", "-W", 3)
    found = pinged.summary
    assert did == {"answer": len(plan) - 10 * len(impairments), **dict.fromkeys(impairments, 10)}
    assert (found["sent"], found["corrupt"], found["responder_changes"]) == (len(plan), 20, 0)
    for direction, way in (("out", " out"), ("back", "")):
        told = {name: found[direction][name] for name in ("lost", "duplicates", "reordered")}
        assert told == {
            "lost": did[f"drop{way}"],
            "duplicates": did[f"duplicate{way}"],
            "reordered": did[f"overtaken{way}"],
        }, direction
    assert (found["responder_failures"], found["lost_unknown"]) == (did.get("fail", 0), 0)
    assert found["lost"] == did["drop"] + did["drop out"] + did.get("fail", 0)


def test_losses_before_the_first_reply_have_no_direction_from_a_port_that_was_used_before() -> None:
    """The server has counted three requests of an earlier run; then four are lost on the way out."""
    plan = [*["answer"] * 3, *["drop out"] * 4, *["answer"] * 6]
    with measuring(plan, mode="plus") as server:
        words = ("--json", "-q", "--plus", "-i", "1ms", "-W", 1, "--source-port", free_port())
        assert ping(*words, "-c", 3, f"127.0.0.1:{server.port}").summary["lost"] == 0
        found = ping(*words, "-c", 10, f"127.0.0.1:{server.port}").summary
    assert (found["out"]["lost"], found["back"]["lost"], found["lost_unknown"]) == (0, 0, 4)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_reflector_that_counts_is_no_stateless_one_wherever_it_begins(before: int) -> None:
    """Its number may begin with 1, or have counted one request before: it is that of a probe all the same."""
    plan = ["answer", "drop out", "answer", "drop", "answer"]
    with measuring(plan, mode="stamp", stateful=True, before=before) as server:
        words = ("--json", "-q", "--stamp", "-c", 5, "-i", "20ms", "-W", 1)
        found = ping(*words, f"127.0.0.1:{server.port}").summary
    assert (found["out"]["lost"], found["back"]["lost"], found["lost_unknown"]) == (1, 1, 0)


@pytest.mark.parametrize(("mode", "word"), [("plus", "--plus"), ("stamp", "--stamp")])
def test_a_count_may_begin_at_zero_again(mode: str, word: str) -> None:
    """After 2**32: the server is the same, and losses have their direction."""
    plan = ["answer", "drop out", "answer", "drop", "answer"]
    with measuring(plan, mode=mode, stateful=True, before=4_294_967_294) as server:
        target = f"127.0.0.1:{server.port}"
        found = ping("--json", "-q", word, "-c", 5, "-i", "20ms", "-W", 1, target).summary
    assert (found["responder_changes"], found["lost_unknown"]) == (0, 0)
    assert (found["out"]["lost"], found["back"]["lost"]) == (1, 1)


def test_a_stateless_reflector_tells_no_direction(tmp_path: Path) -> None:
    """The text says why; delay variation, TTL and DSCP of requests are known all the same."""
    with measuring(["answer", "drop", "answer"], mode="stamp") as server:
        found = ping("--stamp", "-c", 3, "-i", "20ms", "-W", "1", "-Q", "EF", f"127.0.0.1:{server.port}")
    statistics = found.out.partition("statistics ---\n")[2]
    assert "lost in an unknown direction: 1 probe: the reflector is stateless: it does not count\n" in statistics
    assert "far end, ttl of requests: 64 (2 requests)\n" in statistics
    assert "far end, dscp of requests: EF (2 requests); changed on the way: 0 requests out\n" in statistics
    assert "\nout: 99.9% of delays within " in statistics
    assert " bytes of data to a STAMP reflector.\n" in found.out
    assert str(tmp_path) not in found.out


def test_lines_have_the_time_in_the_network(tmp_path: Path) -> None:
    """It is in the line of each reply, and in the fields of an event."""
    with measuring(["answer"], mode="plus") as server:
        found = ping("-c", 1, "--plus", f"127.0.0.1:{server.port}")
    target = f"127.0.0.1:{server.port}"
    (line,) = [shape(line) for line in found.out.splitlines() if " bytes from " in line]
    assert line.partition(" network=")[0] == f"56 bytes from {target}: seq=1 ttl=64 time=T ms"
    pinged, _ = probed(["answer"], "stamp", tmp_path, "-c", 2, "-i", 0)
    for event in pinged.objects[:-1]:
        assert event["rtt_ms"] == pytest.approx(event["network_ms"] + event["responder_ms"], abs=1e-5)
        assert (event["far_ttl"], event["far_dscp"], event["size"], "new_responder" in event) == (64, 46, 80, False)


@pytest.mark.parametrize(
    ("mode", "found", "sentence"),
    [
        ("echo", "echo", "is a plain echo server"),
        ("plus", "udpecho_plus", "is a UDPEchoPlus server"),
        ("stamp", "stamp", "is a STAMP reflector"),
        ("silent", "echo", "did not reply to the first probes: a plain echo server is assumed"),
    ],
)
def test_the_first_packets_find_out_what_the_server_is(mode: str, found: str, sentence: str) -> None:
    """A line on stderr says it, and the probes are those of that server."""
    with measuring(["drop out" if mode == "silent" else "answer"], mode=mode) as server:
        target = f"127.0.0.1:{server.port}"
        pinged = ping("--json", "-q", "--mode", "auto", "-c", 2, "-i", 0, "-W", "300ms", target)
    assert pinged.err == f"echod: ping: udp://{target} {sentence}\n"
    assert (pinged.summary["mode"], "network_ms" in pinged.summary) == (found, found != "echo")
    assert pinged.summary["received"] == (0 if mode == "silent" else 2)


@pytest.mark.parametrize(
    ("mode", "word", "what"),
    [("plus", "--stamp", "STAMP reflector"), ("stamp", "--plus", "UDPEchoPlus server")],
)
def test_a_server_of_the_other_mode_is_not_taken_for_a_damaging_path(mode: str, word: str, what: str) -> None:
    """The end of the run says how to find out what it is."""
    with measuring(["answer"], mode=mode) as server:
        found = ping("-q", word, "-c", 2, "-i", "10ms", "-W", "0.3", f"127.0.0.1:{server.port}")
    assert f"\nno reply is whole, as if this were no {what}: --mode auto finds out what it is\n" in found.out


def test_nat_is_shown_for_each_source_port() -> None:
    """On loopback there is none; a port without a reply has its reason."""
    with measuring(["answer"], mode="reveal") as server:
        found = ping("--reveal", "--sources", 2, "-Q", "EF", f"127.0.0.1:{server.port}")
    head, *ports, verdict = found.out.splitlines()
    assert (found.code, head) == (0, f"REVEAL udp://127.0.0.1:{server.port} (127.0.0.1)")
    for line in ports:
        here, there = line.partition("  at ")[0].split(" -> ")
        assert (here, line.partition("  at ")[2]) == (there.strip(), f"127.0.0.1:{server.port} on lo, ttl=64 dscp=EF")
    assert verdict == "no NAT: the server saw the addresses and ports of this host"
    silent = ping("--reveal", f"127.0.0.1:{server.port}")
    assert (silent.code, silent.out.splitlines()[1].partition(" -> ")[2]) == (1, "port unreachable")


def test_a_server_of_another_mode_reveals_nothing() -> None:
    """It replied all the same: that is the reason, in the text and in JSON."""
    with measuring(["answer"], mode="echo") as server:
        words = ("--reveal", "-W", "0.3", f"127.0.0.1:{server.port}")
        text, told = ping(*words), ping("--json", *words)
    reason = "replied, but not as a reveal listener"
    assert (text.code, text.out.splitlines()[1].partition(" -> ")[2]) == (1, reason)
    assert [each["reason"] for each in told.objects[0]["sources"]] == [reason]


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    """With the modes too: no package that is installed beside it is loaded."""
    program = (
        "import sys\n"
        "from echod.ping.command import ping\n"
        "try:\n    ping(['--stamp', '-c', '1', '-W', '0.1', '127.0.0.1:9'], sys.stderr, sys.stderr)\n"
        "finally:\n    print(*{each.partition('.')[0] for each in sys.modules} & {'yaml', 'pydantic', 'structlog'})\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout == "\n"
