"""`echod ping` at the end of a run, whatever ends it: the statistics are printed, and are right."""

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
from support.ping.pinging import ended, impaired, ping, read_lines, start

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
def test_ctrl_c_during_the_start_prints_no_traceback(
    tmp_path: Path, module: str, prefix: tuple[str, ...], code: int
) -> None:
    """While modules are loaded it ends the process, as it ends a program in C; the exit code is not 0.

    The first process of a container cannot end by a signal; it returns the exit code of a shell.
    """
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module))
    command = ["env", "--default-signal=INT", *prefix, *ECHOD, "ping", "h"]
    variables = environment(PYTHONPATH=str(tmp_path))
    found = subprocess.run(command, env=variables, cwd=REPOSITORY, capture_output=True, check=False, timeout=30)
    assert (found.returncode, found.stdout, found.stderr) == (code, b"", b"")


def test_a_full_disk_does_not_prevent_the_statistics(port: int, tmp_path: Path) -> None:
    """Rows that cannot be written end the run with the statistics, one sentence and exit code 2."""
    words = ("-q", "--csv", tmp_path / "rows", "-c", 100, "-i", "200ms", f"127.0.0.1:{port}")
    found = ping(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)))
    assert found.code == 2
    assert re.search(r"\n[1-9] packets transmitted, [1-9] received, 0% packet loss", found.out)
    assert found.err == f"echod: ping: --csv {tmp_path / 'rows'}: File too large: the file is incomplete\n"


def test_a_reader_of_the_rows_may_close_the_fifo(port: int, tmp_path: Path) -> None:
    """This ends the run with the statistics, as with a pipe, and is not an error."""
    rows = tmp_path / "rows"
    os.mkfifo(rows)
    with start("-q", "--csv", rows, "-i", "1ms", f"127.0.0.1:{port}") as process:
        with rows.open(encoding="utf-8") as file:
            file.readline()
        out, err = ended(process)
    assert (process.returncode, err) == (0, "")
    assert " packets transmitted, " in out


def test_csv_dash_writes_the_rows_alone_to_stdout(port: int) -> None:
    """The text is on stderr, so that a program can read the rows as they come."""
    with start("--csv", "-", "-i", 3600, f"127.0.0.1:{port}") as process:
        heads, first = read_lines(process, 2)
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    assert (process.returncode, heads, out) == (0, ",".join(COLUMNS) + "\n", "")
    assert first.startswith(f"reply,udp://127.0.0.1:{port},1,")
    assert err.startswith("PING ")
    assert "1 packets transmitted, 1 received, 0% packet loss" in err


def test_a_plot_that_cannot_be_written_does_not_prevent_the_statistics(port: int, tmp_path: Path) -> None:
    """It is drawn after they are printed."""
    folder = tmp_path / "gone"
    folder.mkdir()
    with start("--plot", folder / "x.svg", "-i", "1ms", f"127.0.0.1:{port}") as process:
        read_lines(process, 2)
        (folder / "x.svg").unlink()
        folder.rmdir()
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    assert (process.returncode, " packets transmitted, " in out) == (2, True)
    assert err == f"echod: ping: --plot {folder / 'x.svg'}: No such file or directory\n"


def test_a_connection_that_cannot_be_made_is_an_error_of_its_probe(port: int) -> None:
    """Without descriptors for more, the run goes on with those it has, and the summary has the reason."""
    words = ("--json", "-q", "-c", 40, "-i", "1ms", "--sources", 40, f"tcp://127.0.0.1:{port}")
    found = ping(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30)))
    summary = found.summary
    assert (found.code, found.err) == (0, "")
    (error,) = summary["error_reasons"]
    assert error["reason"].startswith(f"tcp://127.0.0.1:{port}: Too many open files: raise the hard limit")
    assert summary["sent"] == summary["received"] + summary["errors"] == 40


def test_more_targets_than_the_soft_limit_of_descriptors_are_probed() -> None:
    """The soft limit is raised as far as needed; if the hard limit is too low, a sentence states what to do."""
    with udp_server() as server:
        targets = [f"127.0.0.1:{at(server)[1]}"] * 150
        words = ("--json", "-q", "-c", 1, "-W", "0.2", *targets)
        found = ping(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400)))
        assert ([each["sent"] for each in found.objects[-1]["targets"]], found.err) == ([1] * 150, "")
        found = ping(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    assert (found.code, found.out) == (2, "")
    sentence = r"echod: udp://127\.0\.0\.1:\d+: Too many open files: raise the hard limit .*TARGETs.*\n"
    assert re.fullmatch(sentence, found.err)


def test_the_memory_of_a_flood_of_long_datagrams_is_bounded(port: int) -> None:
    """256 MiB, where eight windows of them would be twice as much."""
    words = ("-q", "-f", "-c", 9000, "-s", 65507, f"127.0.0.1:{port}")
    most = 480 << 20
    found = ping(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)))
    assert (found.code, found.err) == (0, "")
    assert "9000 packets transmitted" in found.out


def test_progress_does_not_mix_with_json(port: int) -> None:
    """Ctrl-backslash prints it on stderr, as with ping: stdout has JSON alone."""
    with start("--json", "-i", "20ms", f"127.0.0.1:{port}") as process:
        assert process.stderr
        [first] = read_lines(process)
        process.send_signal(signal.SIGQUIT)
        assert "packets, 0% loss, min/avg/max" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    events = [json.loads(line)["event"] for line in [first, *out.splitlines()]]
    assert (events[0], events[-1], err) == ("reply", "summary", "")


def test_the_loss_of_probes_in_flight_alone_is_unknown() -> None:
    """Probes that may still have a reply are not lost, nor is their loss 0 %."""
    found, _ = impaired(["drop"], "--json", "-w", "0.3", "-i", "50ms", "-W", 10)
    assert (found.code, "loss" in found.summary, found.summary["in_flight"]) == (1, False, found.summary["sent"])


def test_a_run_that_is_cut_short_counts_its_last_losses_too() -> None:
    """Every other probe is dropped. Each of them is lost or in flight at the end."""
    found, _ = impaired(["answer", "drop"], "--json", "-w", 1, "-i", "10ms", "-W", 30)
    summary, lost = found.summary, sum(each["event"] == "lost" for each in found.objects)
    assert summary["lost"] == lost > 0
    assert summary["sent"] == summary["received"] + summary["lost"] + summary["in_flight"]
