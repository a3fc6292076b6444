"""`echod ping` reports exactly the impairments of a server that keeps an account of them."""

import pytest
from support.ping.impairments import shuffled
from support.ping.pinging import impaired, impairing, ping

PLAN = [
    *["answer"] * 25,
    *("drop", "duplicate", "corrupt", "corrupt the number", "truncate", "extend", "elsewhere", "foreign", "overtaken"),
]


@pytest.mark.parametrize("seed", range(3))
def test_the_report_is_the_account(seed: int) -> None:
    """Of many hundred probes, shuffled by seed, each impairment is counted as often as applied, and nothing else."""
    plan = shuffled(PLAN * 3, seed)
    pinged, did = impaired(plan, "--json", "-c", 5 * len(plan), "-i", "300us", "-W", 3)
    found = pinged.summary
    done = {name: did.get(name, 0) for name in {*PLAN}}
    corrupt = done["corrupt"] + done["corrupt the number"]
    bad = corrupt + done["truncate"] + done["extend"] + done["elsewhere"] + done["drop"]
    assert found["sent"] == sum(did.values())
    assert found["received"] == found["sent"] - bad
    assert found["in_flight"] == 0
    expected = {
        "lost": done["drop"],
        "duplicates": done["duplicate"],
        "corrupt": corrupt,
        "truncated": done["truncate"],
        "extended": done["extend"],
        "different_address": done["elsewhere"],
        "unmatched": done["foreign"],
        "late": 0,
        "errors": 0,
    }
    assert {name: found[name] for name in expected} == expected


def test_an_outage_is_reported_with_its_length() -> None:
    """Thirty consecutive probes, 10 ms apart, had no reply; probes of one source port alone are not consecutive."""
    plan = ["answer"] * 20 + ["drop"] * 30 + ["answer"] * 20
    pinged, _ = impaired(plan, "--json", "-c", 70, "-i", "10ms", "-W", 2, "--sources", 2)
    found = pinged.summary
    outage = found["longest_gap"]
    assert (outage["probes"], outage["first"], outage["last"], outage["open"]) == (30, 21, 50, False)
    sent = {each["sequence"]: each["sent_ns"] for each in pinged.objects[:-1]}
    assert outage["seconds"] == pytest.approx((sent[51] - sent[21]) / 1e9, abs=0.05)  # 0.3 s, unless this host is slow
    assert [(each["lost"], "longest_gap" in each) for each in found["sources"]] == [(15, False)] * 2


def test_a_flood_over_a_long_way_loses_nothing() -> None:
    """Replies that take 600 ms: a window goes, then a train each 10 ms, and every reply is known when it comes."""
    pinged, _ = impaired(["late"], "--json", "-q", "-f", "--window", 128, "-c", 3008, "-W", 10)
    found = pinged.summary
    assert [found[name] for name in ("sent", "received", "lost", "stale", "late")] == [3008, 3008, 0, 0, 0]


def test_a_flood_looks_at_every_byte_of_a_train() -> None:
    """One bit of one datagram in every tenth train is wrong: so many replies are corrupt, and the rest of it counts."""
    with impairing(["answer"] * 9 + ["corrupt"], "impairing_server.py", "127.0.0.1", "trains") as server:
        found = ping("--json", "-f", "-c", 64_000, "-W", 3, f"127.0.0.1:{server.port}")
        did = server.account()
    assert sum(did.values()) <= 64_000 / 8  # they did come as trains
    summary = found.summary
    assert (summary["sent"], summary["lost"], summary["duplicates"]) == (64_000, 0, 0)
    assert (summary["corrupt"], summary["received"]) == (did["corrupt"], 64_000 - did["corrupt"])
    assert {(each["event"], each["wrong_bytes"]) for each in found.objects[:-1]} == {("corrupt", 1)}


def test_a_flood_finds_harm_too() -> None:
    """Trains or not, every reply is verified."""
    plan = ["answer"] * 60 + ["drop", "duplicate", "corrupt", "truncate"]
    pinged, did = impaired(plan, "--json", "-q", "-f", "--window", 64, "-c", 6400, "-W", 2)
    found = pinged.summary
    assert found["sent"] == sum(did.values()) == 6400
    assert [found[name] for name in ("lost", "duplicates", "corrupt", "truncated")] == [100, 100, 100, 100]
    assert found["received"] == 6400 - 300
