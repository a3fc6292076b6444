"""`echod check` answers what is asked about a config: what becomes of a source."""

from pathlib import Path

import pytest
from support.daemon import run_echod
from support.loopback import ip, needs_root

TEXT = "listeners: ['udp://0.0.0.0:7', 'tcp://0.0.0.0:7']\nlimits: {datagrams_per_second: 1000}\nworkers: 3\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a config."""
    path = tmp_path / "echod.yaml"
    path.write_text(TEXT)
    return path


def check(path: Path, *words: str) -> tuple[int, str, str]:
    """Run `echod check` in the network namespace that we are in; return exit code, stdout and stderr."""
    done = run_echod("check", "--config", path, *words)
    return done.returncode, done.stdout, done.stderr


def test_a_source_that_gets_replies_is_exit_code_0(path: Path) -> None:
    """One line for each protocol, with the entry that allows it and the limits."""
    assert check(path, "--source", "10.0.0.9:40000") == (
        0,
        (
            "udp from 10.0.0.9:40000: replied to at udp://0.0.0.0:7: access.allow has private; at most 1,000 a second "
            "from 10.0.0.9, in bursts of 256\n"
            "tcp from 10.0.0.9:40000: replied to at tcp://0.0.0.0:7: access.allow has private; at most 64 connections "
            "from 10.0.0.9, 1,024 in all\n"
        ),
        "",
    )


def test_a_source_that_is_refused_is_exit_code_1(path: Path) -> None:
    """The rule is named, with its counter."""
    code, stdout, _ = check(path, "--source", "10.0.0.9:53")
    assert code == 1
    assert stdout.startswith(
        "udp from 10.0.0.9:53: refused (dropped_source_port_low): guard.min_source_port is 1024\ntcp from 10.0.0.9:53: "
    )


@needs_root
def test_an_address_of_this_host_is_known_as_such(network: None, path: Path) -> None:
    """The kernel is asked which they are."""
    ip("address", "add", "10.0.0.9/32", "dev", "lo")
    code, stdout, _ = check(path, "--source", "10.0.0.9:40000")
    assert code == 1
    assert stdout.startswith(
        "udp from 10.0.0.9:40000: refused (dropped_source_is_self): 10.0.0.9 is an address of this host;"
    )


@needs_root
def test_a_broadcast_address_of_this_host_is_no_source(network: None, path: Path) -> None:
    """The kernel is asked, which drops what comes from there; its neighbour is a host like any other.

    One that routes prohibit is none, though connect(2) says the same of it.
    """
    ip("address", "add", "10.9.0.1/24", "broadcast", "10.9.0.255", "dev", "lo")
    ip("route", "add", "prohibit", "10.8.0.0/24")
    code, stdout, _ = check(path, "--source", "10.9.0.255:40000")
    assert code == 1
    assert (
        stdout.count("10.9.0.255 is a broadcast address of this host's networks, and not a valid source\n") == 2
    )  # each
    for source in ("10.9.0.7:40000", "10.8.0.255:40000"):
        assert "broadcast" not in check(path, "--source", source)[1]


def test_what_is_no_source_is_misuse(path: Path) -> None:
    """Exit code 2, and what to write."""
    assert check(path, "--source", "lan") == (
        2,
        "",
        "echod: --source 'lan' is not a source: write ADDRESS:PORT, such as 192.0.2.1:40000 or [2001:db8::1]:40000\n",
    )
    assert check(path, "--source", "10.0.0.1:4000", "--socket")[0] == 2


@pytest.mark.parametrize("words", [(), ("--source", "10.0.0.1:4000")])
def test_of_a_wrong_file_the_mistakes_are_said_whatever_was_asked(path: Path, words: tuple[str, ...]) -> None:
    """Exit code 78."""
    path.write_text("workers: many\n")
    code, stdout, _ = check(path, *words)
    assert code == 78
    assert stdout.startswith(f"{path}:1:10: error: workers: ")


def test_each_listener_is_listed_with_its_mode(path: Path) -> None:
    """That of an echo is not named."""
    entries = ("tcp://127.0.0.1:7009", "{address: udp://127.0.0.1:7001-7002, mode: stamp}")
    impaired = "{address: udp://127.0.0.1:7003, impair: {loss: 2%}}"
    path.write_text("listeners:\n" + "".join(f"- {each}\n" for each in (*entries, impaired)))
    listed = "tcp://127.0.0.1:7009, udp://127.0.0.1:7001-7002 (stamp), udp://127.0.0.1:7003 (impaired echo)"
    assert check(path) == (0, f"{path}: ok; listeners: {listed}\n", "")
