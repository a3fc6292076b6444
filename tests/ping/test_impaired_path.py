"""`echod ping` over a path that does harm: its report is the account of what was done."""

from pathlib import Path as File

import pytest
from support.loopback import needs_root
from support.ping.impairments import shuffled
from support.ping.path import SERVER, laid
from support.ping.pinging import impairing
from support.system.network import entered

pytestmark = needs_root

SENT_AGAIN_MS = 150
"""TCP waits at least 200 ms before it sends a lone segment again (TCP_RTO_MIN)."""

HARM = ["drop", "duplicate", "corrupt", "drop out", "duplicate out", "corrupt out", "overtaken", "delay", "late"]
NAMED = [
    *("sent", "received", "in_flight", "lost", "duplicates", "corrupt", "late", "reordered"),
    *("truncated", "extended", "different_address", "unmatched", "errors", "error_reasons"),
]


@pytest.mark.parametrize(("family", "seed"), [(4, 0), (6, 1)])
def test_the_report_of_a_path_is_its_account(tmp_path: File, family: int, seed: int) -> None:
    """Probes and replies dropped, doubled, damaged, delayed and overtaken by seed: each is counted as often as done."""
    calm = ["answer"] * 1200  # at its end everything late has come
    plan = shuffled([*["answer"] * 200, *HARM * 12], seed) + calm
    with laid(tmp_path, routed=False) as path, entered(path.node), impairing(plan, "impairing_bridge.py") as bridge:
        path.wait()
        words = ("--json", "-q", "-c", len(plan), "-i", "1ms", "-W", "400ms")
        found = path.ping(*words, SERVER[family]).summary
        done = bridge.account()
    assert done == {"answer": len(plan) - len(HARM) * 12, **dict.fromkeys(HARM, 12)}
    assert {name: found[name] for name in NAMED} == {
        "sent": len(plan),
        "received": len(plan) - done["drop"] - done["drop out"] - done["corrupt"] - done["corrupt out"],
        "in_flight": 0,
        "lost": done["drop"] + done["drop out"],
        "duplicates": done["duplicate"] + done["duplicate out"],
        "corrupt": done["corrupt"] + done["corrupt out"],
        "late": done["late"],
        "reordered": done["overtaken"] + done["delay"] + done["late"],
        "truncated": 0,
        "extended": 0,
        "different_address": 0,
        "unmatched": 0,
        "errors": 0,
        "error_reasons": [],
    }
    assert 50 <= found["rtt_ms"]["max"] < 5000


@pytest.mark.parametrize(("family", "seed"), [(4, 2), (6, 3)])
def test_tcp_hides_what_it_mends_and_the_rest_is_named(tmp_path: File, family: int, seed: int) -> None:
    """What is dropped comes late, what is doubled comes once; a bit that no checksum has caught is found."""
    impairments = ["drop", "duplicate", "corrupt", "drop out", "duplicate out", "corrupt out"]
    plan = shuffled([*["answer"] * 60, *impairments * 4], seed)
    with (
        laid(tmp_path, routed=False) as path,
        entered(path.node),
        impairing(plan, "impairing_bridge.py", "tcp") as bridge,
    ):
        path.wait("udp")
        found = path.ping("--json", "-c", len(plan), "-i", 0, "-W", 20, f"tcp://[{SERVER[family]}]")
        done = bridge.account()
    assert done == {"answer": len(plan) - 24, **dict.fromkeys(impairments, 4)}
    summary = found.summary
    assert (summary["sent"], summary["corrupt"], summary["received"]) == (len(plan), 8, len(plan) - 8)
    assert not any(summary[name] for name in ("lost", "duplicates", "late", "reordered", "errors", "unmatched"))
    assert sum(each.get("rtt_ms", 0) > SENT_AGAIN_MS for each in found.objects) >= 8
