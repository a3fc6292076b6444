"""`echod ping` at the end of a run, however it comes: what was measured is said, and said truly."""

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from support.daemon import ECHOD, REPOSITORY, environment
from support.loopback import at, needs_root, udp_server
from support.ping.pinging import ended, impairing, ping, start

from echod.ping.records import COLUMNS

INTERRUPT = """
import os, signal, sys
class Interrupt:
    def find_spec(name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
"""


@pytest.mark.parametrize(
    ("module", "prefix", "code"),
    [
        ("echod.cli.main", (), -signal.SIGINT),
        ("echod.ping.command", (), -signal.SIGINT),
        pytest.param("echod.ping.command", ("unshare", "--pid", "--fork"), 130, marks=needs_root, id="container"),
    ],
)
def test_ctrl_c_before_it_has_begun_leaves_no_traceback(
    tmp_path: Path, module: str, prefix: tuple[str, ...], code: int
) -> None:
    """While modules are loaded it ends the process, as it would a program in C; and no exit code says success.

    The first process of a container cannot end so, and returns what a shell does.
    """
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module))
    command = ["env", "--default-signal=INT", *prefix, *ECHOD, "ping", "h"]
    variables = environment(PYTHONPATH=str(tmp_path))
    found = subprocess.run(command, env=variables, cwd=REPOSITORY, capture_output=True, check=False, timeout=30)
    assert (found.returncode, found.stdout, found.stderr) == (code, b"", b"")


def test_a_disk_that_is_full_does_not_take_the_statistics(port: int, tmp_path: Path) -> None:
    """Rows that cannot be written end the run with what was measured, one sentence, and exit code 2."""
    words = ("-q", "--csv", tmp_path / "rows", "-c", 100, "-i", "10ms", f"127.0.0.1:{port}")
    with start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))) as process:
        out, err = ended(process)
    assert process.returncode == 2
    assert re.search(r"\n[1-9] packets transmitted, [1-9] received, 0% packet loss", out)
    assert err == f"echod: ping: --csv {tmp_path / 'rows'}: File too large: the file is incomplete\n"


def test_who_reads_the_rows_may_have_seen_enough(port: int, tmp_path: Path) -> None:
    """A FIFO that is closed ends the run with the statistics, as a pipe does, and is no error."""
    rows = tmp_path / "rows"
    os.mkfifo(rows)
    with start("-q", "--csv", rows, "-i", "1ms", f"127.0.0.1:{port}") as process:
        with rows.open(encoding="utf-8") as file:
            file.readline()
        out, err = ended(process)
    assert (process.returncode, err) == (0, "")
    assert "0% packet loss" in out


def test_rows_go_to_stdout_alone_where_that_is_asked_for(port: int) -> None:
    """--csv -: what is said besides is on stderr, so that a program can read the rows as they come."""
    with start("--csv", "-", "-i", 3600, f"127.0.0.1:{port}") as process:
        assert process.stdout
        heads, first = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    assert (process.returncode, heads, out) == (0, ",".join(COLUMNS) + "\n", "")
    assert first.startswith(f"reply,udp://127.0.0.1:{port},1,")
    assert err.startswith("PING ")
    assert "1 packets transmitted, 1 received, 0% packet loss" in err


def test_a_picture_that_cannot_be_written_does_not_take_the_statistics(port: int, tmp_path: Path) -> None:
    """It is drawn after they are printed."""
    folder = tmp_path / "gone"
    folder.mkdir()
    with start("--plot", folder / "x.svg", "-i", "1ms", f"127.0.0.1:{port}") as process:
        assert process.stdout
        for _ in range(2):
            process.stdout.readline()
        (folder / "x.svg").unlink()
        folder.rmdir()
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    assert (process.returncode, "0% packet loss" in out) == (2, True)
    assert err == f"echod: ping: --plot {folder / 'x.svg'}: No such file or directory\n"


def test_a_connection_that_cannot_be_made_is_an_error_of_its_probe(port: int) -> None:
    """Where there are no descriptors for more, the run goes on with those there are, and the reason is told."""
    words = ("--json", "-q", "-c", 40, "-i", "1ms", "--sources", 40, f"tcp://127.0.0.1:{port}")
    with start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))) as process:
        out, err = ended(process)
    summary = json.loads(out)["targets"][0]
    assert (process.returncode, err) == (0, "")
    (error,) = summary["error_reasons"]
    assert error["reason"].startswith(f"tcp://127.0.0.1:{port}: Too many open files: raise the hard limit")
    assert summary["sent"] == summary["received"] + summary["errors"] == 40


def test_more_targets_than_a_shell_allows_files_are_asked_all_the_same() -> None:
    """The soft limit is raised as far as it takes; where the hard limit is too low a sentence says what to do."""
    with udp_server() as server:
        targets = [f"127.0.0.1:{at(server)[1]}"] * 150
        words = ("--json", "-q", "-c", 1, "-w", "0.2", *targets)
        with start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))) as process:
            out, err = ended(process)
        assert ([each["sent"] for each in json.loads(out)["targets"]], err) == ([1] * 150, "")
        with start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))) as process:
            out, err = ended(process)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"echod: udp://127\.0\.0\.1:\d+: Too many open files: raise the hard limit .*TARGETs.*\n", err)


def test_a_flood_of_long_datagrams_is_remembered_within_bounds(port: int) -> None:
    """256 MiB, where eight windows of them would be twice as much."""
    words = ("-q", "-f", "-c", 9000, "-s", 65507, f"127.0.0.1:{port}")
    most = 480 << 20
    with start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))) as process:
        out, err = ended(process)
    assert (process.returncode, err) == (0, "")
    assert "9000 packets transmitted" in out


def test_a_line_on_the_way_leaves_the_objects_whole(port: int) -> None:
    """As ping, it says where it stands on stderr: what reads --json reads JSON alone."""
    with start("--json", "-i", "20ms", f"127.0.0.1:{port}") as process:
        assert process.stdout
        assert process.stderr
        first = process.stdout.readline()
        process.send_signal(signal.SIGQUIT)
        assert "packets, 0% loss, min/avg/max" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    events = [json.loads(line)["event"] for line in [first, *out.splitlines()]]
    assert (events[0], events[-1], err) == ("reply", "summary", "")


def test_where_nothing_is_known_there_is_no_loss_to_tell() -> None:
    """Probes that may still be answered are none that were: not 0 % of them were lost."""
    with impairing(["drop"]) as server:
        target = f"127.0.0.1:{server.port}"
        found = ping("-w", "0.3", "-i", "50ms", "-W", 10, target)
        summary = ping("--json", "-w", "0.3", "-i", "50ms", "-W", 10, target).summary
    assert "0 received, unknown packet loss" in found.out
    assert (found.code, "loss" in summary, summary["in_flight"]) == (1, False, summary["sent"])


def test_a_run_that_is_cut_short_counts_its_last_losses_too() -> None:
    """Every other probe is dropped. At the end those that had no chance are few, and all others are counted."""
    with impairing(["answer", "drop"]) as server:
        found = ping("--json", "-w", 1, "-i", "10ms", "-W", 30, f"127.0.0.1:{server.port}")
    summary, lost = found.summary, sum(each["event"] == "lost" for each in found.objects)
    assert summary["lost"] == lost > 0
    assert summary["sent"] == summary["received"] + summary["lost"] + summary["in_flight"]
