"""`echod ping` over an impaired path: its report is the account of the impairments."""

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

IMPAIRMENTS = ["drop", "duplicate", "corrupt", "drop out", "duplicate out", "corrupt out", "overtaken", "delay", "late"]


@pytest.mark.parametrize(("family", "seed"), [(4, 0), (6, 1)])
def test_the_report_of_a_path_is_its_account(tmp_path: File, family: int, seed: int) -> None:
    """Probes and replies dropped, duplicated, corrupted, delayed and overtaken by seed: each one is counted."""
    calm = ["answer"] * 3000  # at its end everything late has come
    plan = shuffled([*["answer"] * 200, *IMPAIRMENTS * 12], seed) + calm
    with laid(tmp_path, routed=False) as path, entered(path.node), impairing(plan, "impairing_bridge.py") as bridge:
        path.wait()
        words = ("--json", "-q", "-c", len(plan), "-i", "1ms", "-W", 1)
        found = path.ping(*words, SERVER[family]).summary
        done = bridge.account()
    assert done == {"answer": len(plan) - len(IMPAIRMENTS) * 12, **dict.fromkeys(IMPAIRMENTS, 12)}
    expected = {
        "sent": len(plan),
        "received": len(plan) - done["drop"] - done["drop out"] - done["corrupt"] - done["corrupt out"],
        "in_flight": 0,
        "lost": done["drop"] + done["drop out"],
        "duplicates": done["duplicate"] + done["duplicate out"],
        "corrupt": done["corrupt"] + done["corrupt out"],
        "late": done["late"],
        "reordered": done["overtaken"] + done["delay"] + done["late"],
        **dict.fromkeys(("truncated", "extended", "different_address", "unmatched", "errors"), 0),
    }
    assert {name: found[name] for name in expected} == expected
    assert 50 <= found["rtt_ms"]["max"] < 5000


@pytest.mark.parametrize(("family", "seed"), [(4, 2), (6, 3)])
def test_over_tcp_corruption_alone_is_left(tmp_path: File, family: int, seed: int) -> None:
    """A dropped segment comes late, a duplicated one once; a wrong bit that no checksum has detected is found."""
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
