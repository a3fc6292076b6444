"""`echod ping` and the operator: its help, the mistakes that it refuses, and where its output goes."""

import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from support.ping.pinging import ended, ping, start
from support.ports import free_port

from echod.errors import UsageError
from echod.measurement.payload import MAX_PROBES
from echod.ping.command import ping as run_ping
from echod.ping.options import help_text, parse_options


@pytest.mark.parametrize(("rate", "interval"), [(1000, 1_000_000), (3, 333_333_334), (7_000_000, 143)])
def test_a_rate_is_never_exceeded(rate: int, interval: int) -> None:
    """The time between two probes is a whole number of ns, rounded up."""
    assert parse_options(["--rate", f"{rate}", "h"]).probes.interval == interval


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ftp://h"], '"ftp://h": the protocol "ftp" is not known: write udp:// or tcp://'),
        (["-c", "abc", "h"], '"abc" is not a number: write a whole number from 1 to 4294967295'),
        (["h:0"], '"h:0": the port 0 is out of bounds: write 1 to 65535'),
        (["127.0.0.1", "7007"], '"7007" is a number, not a host: for this port write 127.0.0.1:7007'),
        (["[::1"], '"[::1" is not a target: write [udp://|tcp://]HOST[:PORT]'),
        (["-i", "1", "--rate", "5", "h"], "--rate and -i both set the interval"),
        (["-s", "0", "tcp://h"], "TCP cannot carry a probe of 0 bytes: leave size 0 out"),
        (["-f", "tcp://h"], "-f is for UDP: leave tcp:// out"),
        (["--mtu", "--histogram", "h"], "--mtu measures no latency: leave --histogram out"),
        (["--plot", "x.gif", "h"], "--plot x.gif: write a name that ends in .svg or .png"),
        (["-4", "-6", "h"], "argument -6: not allowed with argument -4"),
        (["--mtu", "-c", "1", "h"], "--mtu sends as many probes as it needs: leave -c out"),
        (["--json", "--histogram", "h"], "--json prints no histogram: leave --histogram out"),
        (["--json", "--csv", "-", "h"], "--json and --csv - both write to stdout: write --csv FILE"),
        (["-W", "0", "h"], "-W 0 leaves no time for a reply: write a longer time"),
        (["-w", "0", "h"], "-w 0 ends before the first probe: write a longer time"),
        (["::1", "7007"], '"7007" is a number, not a host: for this port write [::1]:7007'),
        (["tcp://[::1]", "7007"], '"7007" is a number, not a host: for this port write tcp://[::1]:7007'),
        (["h:7", "7007"], '"7007" is a number, not a host: write HOST or HOST:PORT'),
        (["7007"], '"7007" is a number, not a host: write HOST or HOST:PORT'),
        (["h", "70000"], '"70000" is a number, not a host: write HOST or HOST:PORT'),
        (["udp://0x7f000001:7"], '"udp://0x7f000001:7" is a number, not a host: write HOST or HOST:PORT'),
        (["127.0.0.010"], '"127.0.0.010": a part with a leading zero is octal to some programs: write it without'),
        (["-p", "707", "h"], '"707" is not a pattern: write 1 to 16 bytes as hexadecimal digits, such as ff00; to'),
        (["-i", "-0.5", "h"], 'argument -i: "-0.5" is negative: write seconds, such as 0.2, or 50us, 200ms, 2m'),
        (["-qi", "-.5", "h"], 'argument -i: "-.5" is negative: write seconds'),
        (["--rate=-5", "h"], 'argument --rate: "-5" is negative: write a whole number from 1 to 10000000'),
        (["--source-port", "5000", "127.0.0.1", "127.0.0.2"], "--source-port is for one TARGET: leave the others out"),
        (["--source-port", "65535", "--sources", "2", "h"], "--source-port 65535 --sources 2: the last port is 65535"),
        (["--plus", "--stamp", "h"], "--plus and --stamp are two modes: write one of them"),
        (["--mtu", "--reveal", "h"], "--mtu and --reveal are two modes: write one of them"),
        (["--mtu", "--compare", "tcp", "h"], "--mtu and --compare are two modes: write one of them"),
        (["--compare", "tcp", "--mode", "auto", "h"], "--compare and --mode are two modes: write one of them"),
        (["-f", "--stamp", "h"], "-f sends probes of a plain echo: leave --stamp out"),
        (["--reveal", "-c", "3", "h"], "--reveal sends one probe from each source port: leave -c out"),
        (["--reveal", "-f", "h"], "--reveal sends one probe from each source port: leave -f out"),
        (["--key", "k", "h"], "--key is of a STAMP session: write --stamp too"),
        (["--plus", "--ssid", "7", "h"], "--ssid is of a STAMP session: write --stamp too"),
        (["--stamp", "--key", "/nowhere/k", "h"], "--key /nowhere/k: No such file or directory"),
        (["--stamp", "--key", "/dev/null", "h"], "--key /dev/null: a key has 1 to 1024 bytes: this file has none, or"),
        (["--stamp", "tcp://h"], "--stamp is for UDP: leave tcp:// out"),
        (["--mode", "auto", "tcp://h"], "--mode auto is for UDP: leave tcp:// out"),
        (["--reveal", "tcp://h"], "--reveal is for UDP: leave tcp:// out"),
        (["--plus", "-s", "20", "h"], "-s 20: a packet of UDPEchoPlus has 24 bytes or more"),
        (["--stamp", "-s", "50", "h"], "-s 50: a packet of STAMP has 44 bytes, or 56 or more with its TLVs"),
        (["--stamp", "-s", "65508", "127.0.0.1"], "65508 bytes are too many: udp://127.0.0.1:862 takes at most 65507"),
        (["--ssid", "0", "--stamp", "h"], '"0" is out of bounds: write a whole number from 1 to 65535'),
        (["--mode", "stamp", "h"], "argument --mode: invalid choice: 'stamp' (choose from "),
        (["--source-port", "0", "h"], '"0" is out of bounds: write a whole number from 1 to 65535'),
        ([], "the following arguments are required: TARGET"),
        (["nowhere.invalid"], "nowhere.invalid: "),
        (["-4", "::1"], "::1: has no IPv4 address"),
        (["-c", "1", "127.255.255.255"], "127.255.255.255: is a broadcast address, echod does not reply to it: write "),
        (["0.0.0.0"], "0.0.0.0: is not the address of a host: write one"),  # noqa: S104 - nothing binds
        (["::"], "::: is not the address of a host: write one"),
        (["--csv", "/nowhere/x", "127.0.0.1"], "--csv /nowhere/x: No such file or directory"),
        (["-I", "192.0.2.77", "127.0.0.1"], "-I 192.0.2.77: is not an address of this host"),
        (["-I", "nosuch0", "127.0.0.1"], "-I nosuch0: is not an interface of this host"),
        (["-I", "nosuch0", "tcp://127.0.0.1"], "-I nosuch0: is not an interface of this host"),
        (["-I", "::1", "127.0.0.1"], "-I ::1: is of a different IP version than 127.0.0.1"),
        (["-f", "-s", "65507", "--window", "9999", "127.0.0.1"], "with -s 65507 write --window 2048 or less"),
        (["-f", "-s", "1", "127.0.0.1"], "-f sends probes of one size, 4 bytes or more"),
        (["-s", "64,65508", "127.0.0.1"], "65508 bytes are too many: udp://127.0.0.1:7 takes at most 65507"),
        (["-s", "65528", "::1"], "65528 bytes are too many: udp://[::1]:7 takes at most 65527"),
        (["fe80::1"], "fe80::1: is link-local, without an interface: write fe80::1%INTERFACE, or -I INTERFACE"),
        (["fe80::1%nosuch0"], "fe80::1%nosuch0: this host has no interface nosuch0"),
        (["-I", "fe80::1", "::1"], "-I fe80::1: is link-local, without an interface: write it with %INTERFACE"),
        (["-I", "127.0.0.1%lo", "127.0.0.1"], "-I 127.0.0.1%lo: is not an interface of this host"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    """It states what is wrong and what to write, on stderr, with exit code 2 (see `cli`).

    A number alone would be an address to inet_aton(3), and a negative one an option to argparse.
    """
    out = StringIO()
    with pytest.raises(UsageError) as caught:
        run_ping(words, out, out)
    assert sentence in str(caught.value)
    assert "\n" not in f"{caught.value}{out.getvalue()}"


def test_a_negative_value_of_any_option_is_reported_as_negative() -> None:
    """Each option of the help that takes a number refuses -4 and -0.5, and takes neither for an option."""
    options = re.findall(r"^  (-\S+) (?:N|TIME|SIZES|TOS|TTL)(?:  |$)", help_text(), re.MULTILINE)
    assert len(options) >= 10
    for option in options:
        for value in ("-4", "-0.5"):
            with pytest.raises(UsageError, match=f'^ping: argument {option}: "{value}" is negative: write '):
                parse_options([option, value, "h"])


def test_a_pattern_that_looks_like_a_port_causes_a_warning() -> None:
    """-p is the pattern, as in ping; a target with a port, or a pattern with 0x, causes none."""
    warning = "echod: ping: -p 7007 fills probes with the bytes 70 07; for port 7007 write 127.0.0.1:7007\n"
    found = ping("-p", "7007", "-c", 1, "-W", "50ms", "127.0.0.1")
    assert (found.err, "PING udp://127.0.0.1:7 " in found.out) == (warning, True)
    for words in (("-p", "7007", "127.0.0.1:7"), ("-p", "0x7007", "127.0.0.1"), ("-p", "70", "127.0.0.1")):
        assert parse_options(words).warning == ""


def test_the_help_fits_a_terminal_of_80_columns() -> None:
    """On stdout, with exit code 0. (`test_man_page.py` compares it with echod-ping(1).)"""
    found = ping("--help")
    assert (found.code, found.out, found.err) == (0, help_text(), "")
    assert max(map(len, found.out.splitlines())) <= 80


def test_the_help_has_the_defaults() -> None:
    """Each in parentheses behind its option, and the run goes on until it is ended."""
    options = parse_options(["h"]).probes
    stated = dict(re.findall(r"^  (-\S+) [A-Z]+ .*?\(([^)]*)\)", re.sub(r"\n {10,}", " ", help_text()), re.MULTILINE))
    assert (options.count, stated["-c"]) == (MAX_PROBES, "until Ctrl-C")
    assert (options.interval, stated["-i"], options.timeout, stated["-W"]) == (10**9, "1 s", 2 * 10**9, "2 s")
    windows = [parse_options([*words, "h"]).probes.window for words in ((), ("-i", "0"), ("-f",))]
    assert stated["--window"] == "{}; {} with -i 0, {} with -f".format(*windows)
    assert (stated["-s"],) == tuple(map(str, options.sizes))


def test_a_reader_that_leaves_is_no_error(port: int) -> None:
    """`echod ping ... | head -2` ends quietly."""
    command = f"{sys.executable} -m echod ping -i 1ms 127.0.0.1:{port} | head -2"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert len(found.stdout.splitlines()) == 2
    assert found.stderr == ""


def test_without_the_extras_the_output_is_plain_or_the_error_names_the_package(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rich there are plain lines, on a terminal too; without matplotlib there is no plot, and no probe."""
    for name in ("rich", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise ImportError(__name__)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ours, theirs = pty.openpty()
    with start("-c", 2, "-i", "10ms", f"127.0.0.1:{port}", f"[::1]:{port}", stderr=theirs) as process:
        out = ended(process)[0]
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out.count(" bytes from ")) == (0, 4)
    found = ping("--plot", tmp_path / "x.svg", f"127.0.0.1:{port}")
    message = f"echod: ping: --plot needs matplotlib: {sys.executable} -m pip install matplotlib\n"
    assert (found.code, found.out, found.err) == (2, "", message)


def test_without_stdout_the_exit_code_is_right(port: int) -> None:
    """With stdout closed, and stderr too, nothing is written, and nothing goes wrong."""
    words = [sys.executable, "-m", "echod", "ping", "-c", "1", "-W", "10"]
    for closed in (">&-", ">&- 2>&-"):
        for target, code in ((f"127.0.0.1:{port}", 0), (f"127.0.0.1:{free_port()}", 1)):
            command = ["sh", "-c", f'exec "$@" {closed}', "sh", *words, target]
            found = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=30)
            assert (found.returncode, found.stderr) == (code, "")


def test_a_full_disk_is_said(port: int) -> None:
    """One sentence and exit code 2: of stdout, and of --csv."""
    words = ["-c", "3", "-i", "0", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "echod", "ping", *words]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    full_disk = "No space left on device"
    assert (found.returncode, found.stderr) == (2, f"echod: ping: the output cannot be written: {full_disk}\n")
    reported = ping("--csv", "/dev/full", *words)
    sentence = f"echod: ping: --csv /dev/full: {full_disk}: the file is incomplete\n"
    assert (reported.code, reported.out, reported.err) == (2, "", sentence)  # before the first probe
