"""`echod ping` in each encoding of stdout: the output is in that encoding, and JSON is ASCII."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.loopback import ip, needs_root
from support.ping.pinging import ping
from support.ports import free_port
from support.system.network import entered, namespaces

ENCODINGS = [
    ({"LC_ALL": "C"}, "utf-8"),  # PEP 540
    ({"LC_ALL": "POSIX"}, "utf-8"),
    ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
]

encodings = pytest.mark.parametrize(("variables", "encoding"), ENCODINGS)


def encoded(variables: dict[str, str], encoding: str, *words: object) -> str:
    """Run it with these variables; return its output, which has this encoding, as stderr has."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LC_ALL", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        found = ping(*words, encoding=encoding)
    assert (found.code in (0, 1), found.err) == (True, "")
    return found.out


@pytest.fixture(scope="module")
def interfaces() -> Iterator[tuple[str, bytes, bytes]]:
    """Make a namespace with two interfaces: the name of one is UTF-8, that of the other is not. Return the names."""
    names = ("übér0".encode(), b"\xfcber1")
    with namespaces("names") as (space,):
        pair = [os.fsdecode(name) for name in names]
        ip("-n", space, "link", "add", pair[0], "type", "veth", "peer", "name", pair[1])
        for number, name in enumerate(names, start=1):
            ip("-n", space, "link", "set", os.fsdecode(name), "up")
            ip("-n", space, "address", "add", f"fe80::{number}/64", "dev", os.fsdecode(name), "nodad")
        yield space, *names


@needs_root
@encodings
@pytest.mark.parametrize("number", [1, 2])
def test_json_is_ascii_and_csv_is_utf_8_whatever_the_name_of_an_interface(
    interfaces: tuple[str, bytes, bytes], variables: dict[str, str], encoding: str, number: int, tmp_path: Path
) -> None:
    """Nothing listens there: each probe has an error, and the row and the object have the same target."""
    rows, name = tmp_path / "rows.csv", os.fsdecode(interfaces[number])
    with entered(interfaces[0]):
        out = encoded(variables, encoding, "-n", "--json", "--csv", rows, "-c", 1, f"fe80::{number}%{name}")
    assert out.isascii()
    event, summary = map(json.loads, out.splitlines())
    with rows.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["target"] == event["target"] == summary["targets"][0]["target"]
    assert event["target"] == f"udp://{summary['targets'][0]['address']}"
    assert (event["event"], event["target"].startswith(f"udp://[fe80::{number}%")) == ("error", True)
    if "PYTHONUTF8" not in variables:
        shown = os.fsencode(name).decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()
        assert event["target"] == f"udp://[fe80::{number}%{shown}]:7"


@needs_root
@encodings
def test_lines_have_the_name_of_an_interface_in_the_encoding_of_the_stream(
    interfaces: tuple[str, bytes, bytes], variables: dict[str, str], encoding: str
) -> None:
    """Characters that it does not have are escaped. The interface can be the source of probes."""
    name = os.fsdecode(interfaces[1])
    with entered(interfaces[0]):
        out = encoded(variables, encoding, "-n", "-c", 1, "-I", name, f"fe80::1%{name}")
    assert "From fe80::1: seq=1 port unreachable\n" in out
    shown = out.partition(" ")[2].partition("%")[2].partition("]")[0]
    assert shown in ("übér0", r"\xfcb\xe9r0", r"\udcc3\udcbcb\udcc3\udca9r0")


@encodings
def test_bars_are_drawn_with_characters_of_the_encoding(port: int, variables: dict[str, str], encoding: str) -> None:
    """Blocks in UTF-8, else ASCII, in the same width."""
    out = encoded(variables, encoding, "-q", "--histogram", "-i", 0, "-c", 20, f"127.0.0.1:{port}")
    bars = out.partition("replies\n")[2].splitlines()
    assert max(map(len, bars)) == 80
    assert "".join(bars).isascii() is (encoding != "utf-8")
    assert ("█" if encoding == "utf-8" else "#") * 49 in out


def test_a_name_of_a_router_may_have_any_bytes(tmp_path: Path) -> None:
    """Bytes of /etc/hosts that are not UTF-8 are escaped, and do not end the run."""
    hosts = tmp_path / "getent"
    hosts.write_bytes(b"#!/bin/sh\nprintf '127.0.0.1 r\\374ter\\n'\n")
    hosts.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        found = ping("-c", 1, f"127.0.0.1:{free_port()}")
    assert (found.code, found.err) == (1, "")
    assert "port unreachable: 1 error from 127.0.0.1 (r\\xfcter)\n" in found.out
