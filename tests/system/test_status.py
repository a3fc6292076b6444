"""`echod status` on a real host, in both ways that echod has its ports: for root, and for who is not."""

import json
from typing import Any

from support.system.host import AS_NOBODY
from support.system.installation import Mode
from support.system.operating import Host
from support.waiting import wait_until

LISTENERS = {"udp://0.0.0.0:7", "udp://[::]:7", "tcp://0.0.0.0:7", "tcp://[::]:7"}
STATUS = ["echod", "status"]


def reported(host: Host) -> dict[str, Any]:
    """Return what echod reports as JSON, asked as an ordinary user."""
    snapshot: dict[str, Any] = json.loads(host.run([*AS_NOBODY, *STATUS, "--json"]).stdout)
    return snapshot


def listeners(host: Host) -> dict[str, dict[str, Any]]:
    """Return what it reports of its listeners, by name."""
    activity = reported(host)["activity"]
    return {each["name"]: each for each in (*activity["udp"], *activity["tcp"])}


def test_root_and_anybody_else_read_the_same(standing: Host) -> None:
    """The unit's umask and its own user keep nobody from it; rich is not installed, and the text is plain."""
    for prefix in ((), AS_NOBODY):
        result = standing.run([*prefix, *STATUS])
        assert result.stdout.startswith("echod ")
        assert all(f"\n{name} " in result.stdout for name in LISTENERS)
        assert "\x1b" not in result.stdout


def test_it_tells_what_came_from_outside(standing: Host, mode: Mode) -> None:
    """A client on the network is counted, and is among the top sources; the processes are those of the unit."""
    before = listeners(standing)
    standing.ask()
    standing.converse()

    def counted() -> bool:
        now = listeners(standing)
        return all(
            now[name][number] > before[name][number]
            for name, number in (("udp://0.0.0.0:7", "replied"), ("tcp://0.0.0.0:7", "accepted"))
        )

    wait_until(counted, "the status counts it")
    sources = wait_until(lambda: reported(standing)["activity"]["top_sources"], "the top sources are reported")
    assert "10.77.0" in str(sources)
    snapshot = reported(standing)
    assert {each["adopted"] for each in listeners(standing).values()} == {mode is Mode.ACTIVATED}
    assert len(snapshot["activity"]["workers"]) == len(standing.workers())
    assert snapshot["config"] == "/etc/echod.yaml"
    assert snapshot["pid"] == standing.supervisor()


def test_a_check_passes_and_is_counted_apart(standing: Host) -> None:
    """Also where echod has no network of its own: the probes come from the host's. Again at once, the port is free."""
    before = listeners(standing)
    for _ in range(3):
        result = standing.run([*STATUS, "--check"])
        assert result.stdout.endswith("all 4 listeners replied\n")

    def self_tests(now: dict[str, dict[str, Any]], name: str) -> int:
        return int(now[name]["self_test"] if name.startswith("udp") else now[name]["closed"].get("self_test", 0))

    def counted() -> bool:
        now = listeners(standing)
        return all(self_tests(now, name) == self_tests(before, name) + 3 for name in LISTENERS)

    wait_until(counted, "three self tests are counted for each listener")


def test_a_check_of_an_ordinary_user_asks_as_a_client(standing: Host) -> None:
    """The secret is not for him; loopback is allowed by default, so he is answered, and a message names what he is."""
    for name, readable in (("status.json", True), ("self-test.json", False)):
        result = standing.run([*AS_NOBODY, "cat", f"/run/echod/{name}"], check=False)
        assert (result.returncode == 0) is readable
    result = standing.run([*AS_NOBODY, *STATUS, "--check"], check=False)
    assert result.returncode == 0
    assert result.stdout.endswith("all 4 listeners replied\n")
    assert "the probes were sent as those of any client" in result.stderr
