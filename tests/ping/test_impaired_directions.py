"""`echod ping --plus` and `--stamp` over an impaired path to echod: its report of each direction is the account."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path as File
from typing import Any

import pytest
from support.loopback import needs_root
from support.ping.impairments import shuffled
from support.ping.path import SERVER, Path, laid
from support.ping.pinging import ended, impairing, start
from support.system.network import entered

pytestmark = needs_root

OUT = ["drop out", "duplicate out", "corrupt out", "overtaken out", "delay out", "remarked out"]
BACK = ["drop", "duplicate", "corrupt", "overtaken", "delay", "remarked"]
FIRST = ["answer"]
"""From a source port that is chosen, nothing is known of what is lost before the first reply."""
CALM = ["answer"] * 40
"""They overtake what is held back at the end, and show what was lost before them."""
PATIENCE = 5
"""Seconds that a reply is waited for: the bridge may have to wait for a CPU."""
MODES: dict[str, tuple[dict[str, object], list[str]]] = {
    "udpecho_plus": ({"mode": "udpecho_plus", "dscp": "reflect"}, ["--plus"]),
    "stamp": ({"mode": "stamp", "stateful": True, "dscp": "reflect"}, ["--stamp", "--ssid", "7"]),
}


def reports(
    path: Path, plan: Sequence[str], words: Sequence[str], *, clients: int = 1, interval: int
) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Probe from so many clients at once, at an interval in ms; return the report and the account of each."""
    common = ("--json", "-q", "-Q", "EF", "-c", len(plan), "-i", f"{interval}ms", "-W", PATIENCE, *words)
    with entered(path.node), impairing(plan, "impairing_bridge.py", "measured") as bridge:
        path.wait()
        with ExitStack() as stack:
            with entered(path.client):
                ports = range(40_000, 40_000 + clients)
                running = [stack.enter_context(start(*common, "--source-port", port)) for port in ports]
            found = [json.loads(ended(process)[0])["targets"][0] for process in running]
        accounts: Any = bridge.account()
    return list(zip(found, (accounts[str(port)] for port in ports), strict=True))


@pytest.mark.parametrize(("mode", "family"), [("udpecho_plus", 4), ("stamp", 6)])
def test_the_report_of_each_direction_is_the_account_of_the_path(tmp_path: File, mode: str, family: int) -> None:
    """Lost, duplicated, overtaken, re-marked: each is counted in its direction as often as it was done."""
    options, words = MODES[mode]
    plan = [*FIRST, *shuffled([*["answer"] * 150, *[*OUT, *BACK] * 5], family), *CALM]
    with laid(tmp_path, routed=False, options=options) as path:
        [(found, did)] = reports(path, plan, [*words, f"[{SERVER[family]}]:7"], interval=4)
    assert did == {"answer": len(plan) - 5 * 12, **dict.fromkeys([*OUT, *BACK], 5)}
    check(found, did, mode)


@pytest.mark.parametrize(("mode", "family"), [("udpecho_plus", 6), ("stamp", 4)])
def test_clients_of_one_listener_keep_their_numbers_apart(tmp_path: File, mode: str, family: int) -> None:
    """Five at once, each with the whole plan: each report is the account of its own source port."""
    options, words = MODES[mode]
    plan = [*FIRST, *shuffled([*["answer"] * 60, *[*OUT, *BACK] * 2], 9), *CALM]
    with laid(tmp_path, routed=False, options=options) as path:
        for found, did in reports(path, plan, [*words, f"[{SERVER[family]}]:7"], clients=5, interval=20):
            assert did == {"answer": len(plan) - 2 * 12, **dict.fromkeys([*OUT, *BACK], 2)}
            check(found, did, mode)


def check(found: dict[str, Any], did: dict[str, int], mode: str) -> None:
    """Compare a report with an account."""
    assert (found["responder_changes"], found["lost_unknown"], found["in_flight"]) == (0, 0, 0)
    assert found["corrupt"] == did["corrupt"] + did["corrupt out"]
    out = {name: found["out"][name] for name in ("lost", "duplicates", "reordered")}
    back = {name: found["back"][name] for name in ("lost", "duplicates", "reordered")}
    held_out, held = did["overtaken out"] + did["delay out"], did["overtaken"] + did["delay"]
    assert out == {"lost": did["drop out"], "duplicates": did["duplicate out"], "reordered": held_out}
    assert back == {"lost": did["drop"], "duplicates": did["duplicate"], "reordered": held}
    remarked = did["remarked"] + (did["remarked out"] if mode == "udpecho_plus" else 0)  # `dscp: reflect`
    assert {each["dscp"]: each["replies"] for each in found["dscps"]} == {
        46: found["received"] - remarked,
        10: remarked,
    }
    if mode == "stamp":
        assert (found["out"]["remarked"], found["back"]["remarked"]) == (did["remarked out"], did["remarked"])
