"""A name server that does not answer: Ctrl-C ends the wait for it at once, for any lookup."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import ECHOD, environment
from support.loopback import add_link, ip, namespace, needs_root
from support.ping.pinging import ended, read_lines, watched
from support.waiting import wait_until

from echod.ping import reverse_dns
from echod.ping.reverse_dns import ReverseDns

pytestmark = needs_root

SILENT = "10.0.0.2"
RESOLVER = f"nameserver {SILENT}\noptions timeout:30 attempts:5\n"
"""Minutes, which no test waits for."""

DNS_PORT = f":{53:04X}"
OWN_MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
PATIENT = "import echod.ping.reverse_dns\nechod.ping.reverse_dns.TIMEOUT = 1000.0\n"


@contextmanager
def unanswered(folder: Path, *words: object) -> Iterator["subprocess.Popen[str]"]:
    """Start `echod ping` in a network of its own, where a name server receives queries and never answers.

    It waits longer for the names of routers than a test does.
    """
    (folder / "resolv.conf").write_text(RESOLVER)
    (folder / "sitecustomize.py").write_text(PATIENT)
    with namespace():
        add_link("10.0.0.1/24")
        ip("neighbour", "add", SILENT, "lladdr", "02:00:00:00:00:02", "dev", "near")
        own_mount = ("unshare", "--mount", "sh", "-c", OWN_MOUNT, folder / "resolv.conf")
        command = [*own_mount, *ECHOD, "ping", *map(str, words)]
        variables = environment(PYTHONPATH=str(folder), PYTHONFAULTHANDLER="1")
        with watched(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            yield process


def interrupted(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Interrupt a process once its network has a query to a name server under way; return its output."""

    def queries() -> bool:
        lines = Path(f"/proc/{process.pid}/net/udp").read_text().splitlines()[1:]
        return any(line.split()[2].endswith(DNS_PORT) for line in lines)

    wait_until(queries, "the name server has a query")
    process.send_signal(signal.SIGINT)
    return ended(process)


def test_ctrl_c_while_a_name_is_looked_up_ends_it(tmp_path: Path) -> None:
    """At once, as it ends a program in C: nothing was measured, so nothing is printed."""
    with unanswered(tmp_path, "nowhere.example") as process:
        out, err = interrupted(process)
    assert (process.returncode, out, err) == (-signal.SIGINT, "", "")


def test_ctrl_c_does_not_wait_for_the_names_of_routers(tmp_path: Path) -> None:
    """The statistics are printed at once, with the address of the sender of the error."""
    with unanswered(tmp_path, "--json", "-i", "20ms", "10.0.0.1:9") as process:
        read_lines(process)
        out, _ = interrupted(process)
    (error,) = json.loads(out.splitlines()[-1])["targets"][0]["error_reasons"]
    assert (error["address"], "name" in error) == ("10.0.0.1", False)


def test_ctrl_c_ends_the_wait_for_names_at_the_end_of_a_run_too(tmp_path: Path) -> None:
    """The statistics are printed all the same."""
    with unanswered(tmp_path, "-q", "-c", 1, "10.0.0.1:9") as process:
        out, err = interrupted(process)
    assert "port unreachable: 1 error from 10.0.0.1\n" in out
    assert (process.returncode, err) == (1, "")


def test_a_name_that_is_known_is_shown_though_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for the second one ends when the descriptor is readable."""
    script = '#!/bin/sh\n[ "$2" = 192.0.2.1 ] && { echo "$2 router.example"; exit; }\nexec sleep 1000\n'
    (tmp_path / "getent").write_text(script)
    (tmp_path / "getent").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(reverse_dns, "TIMEOUT", 1000.0)
    looked_up = ReverseDns(numeric=False)
    for address in ("192.0.2.1", "192.0.2.2"):
        looked_up.look_up(address)
    first = looked_up._lookups["192.0.2.1"]
    wait_until(lambda: first.poll() is not None, "the first has its answer")
    read, write = os.pipe()
    os.write(write, b"x")
    assert looked_up.results(["192.0.2.1", "192.0.2.2"], until=read) == {"192.0.2.1": "router.example"}
    os.close(read)
    os.close(write)
