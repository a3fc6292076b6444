"""echod-ping(1) holds what the code holds, in both directions: options, defaults, bounds, fields and exit codes."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.man import entries, section
from support.ping.pinging import impaired, measuring, ping
from support.ports import free_port

from echod.errors import UsageError
from echod.measurement.events import Event, Kind
from echod.measurement.path_mtu import MtuResult, ReturnPath
from echod.net.mode import Mode
from echod.ping.command import NO_REPLY, REPLIED
from echod.ping.modes import fitting_sizes, make_frame
from echod.ping.options import Options, help_text, parse_options
from echod.ping.records import COLUMNS, mtu_record
from echod.ping.text import line
from echod.probes.target import parse, resolve

PAGE = "echod-ping.1"
GROUPS = ("Number, rate and duration", "Packets", "Output", "Modes")
TAG = re.compile(r"^\.It Fl (\S+)(?: Ar (.*))?$", re.MULTILINE)
MODES = ((Mode.ECHO, b""), (Mode.STAMP, b""), (Mode.STAMP, b"key"))
CHANGES = ("previous_ttl", "previous_dscp", "new_responder")
PARTS = re.split(r"^\.It Fl (\S+).*\n", section(PAGE, "OPTIONS").replace("\n.El", "\n.It Fl end"), flags=re.MULTILINE)
OPTIONS = {f"-{name}": text for name, text in zip(PARTS[1::2], PARTS[2::2], strict=True)}
"""The options of the page, and their text."""


def names_of(*sections: str) -> set[str]:
    """Return the fields that are named in these sections."""
    lines = [line for name in sections for line in section(PAGE, name).splitlines()]
    found = [line.partition("Va ")[2] for line in lines if line.startswith((".Va ", ".It Va "))]
    return set(re.findall("[a-z_0-9]+", " ".join(found)))


def names_in(written: object) -> Iterator[str]:
    """Yield the name of each field of a JSON value, at any depth."""
    if isinstance(written, dict):
        yield from written
        written = list(written.values())
    for each in written if isinstance(written, list) else ():
        yield from names_in(each)


def test_the_page_has_the_options_of_the_help_in_the_same_groups() -> None:
    """Each option stands once, with the same argument."""
    for group in GROUPS:
        part = help_text().partition(f"\n{group.lower()}:\n")[2].partition("\n\n")[0]
        known = re.findall(r"^  (-\S+)(?: \{?([A-Za-z,]+)\}?)?(?:  |$)", part, re.MULTILINE)
        tags = [(f"-{option}", value.replace(" | ", ",")) for option, value in TAG.findall(section(PAGE, group))]
        assert tags == known
        assert known


def test_a_default_is_the_one_that_the_page_states() -> None:
    """What stands behind `Default:` is what the command line without the option gives."""
    flat = {option: text.replace("\n", " ") for option, text in OPTIONS.items()}
    stated = {option: text.partition("Default: ")[2].strip() for option, text in flat.items() if "Default:" in text}
    probes = parse_options(["h"]).probes
    windows = [parse_options([*words, "h"]).probes.window for words in ((), ("-i", "0"), ("-f",))]
    sizes = [make_frame(mode, key=key, ssid=0, tos=None) for mode, key in MODES]
    sizes = [fitting_sizes(None, frame)[0] for frame in sizes]
    assert (probes.deadline, probes.sockets.source_port) == (None, 0)
    assert sizes[0] == fitting_sizes(None, make_frame(Mode.UDPECHO_PLUS, key=b"", ssid=0, tos=None))[0]
    assert stated == {
        "-c": f"until Ctrl-C, at most {probes.count}, because more have no number.",
        "-i": f"{probes.interval // 10**9} s.",
        "--window": "{}; {} with .Fl i Li 0 ; {} with .Fl f , where a window takes at most 128 MiB.".format(*windows),
        "-w": "none.",
        "-W": f"{probes.timeout // 10**9} s.",
        "-s": "{}; {} with .Fl -stamp ; {} with .Fl -key .".format(*sizes),
        "--source-port": "the kernel chooses.",
        "--sources": f"{probes.source_ports}.",
    }


@pytest.mark.parametrize("option", ["--rate", "--window", "--source-port", "--sources", "-t"])
def test_an_option_has_the_bounds_that_the_page_states(option: str) -> None:
    """The least and the greatest value are accepted, and the next ones beyond are refused."""
    found = re.search(r"(\d+) to (\d+)", OPTIONS[option])
    assert found
    low, high = int(found[1]), int(found[2])
    for value in (low, high):
        assert isinstance(parse_options([option, f"{value}", "h"]), Options)
    for value in (low - 1, high + 1):
        with pytest.raises(UsageError, match=f'"{value}" is out of bounds'):
            parse_options([option, f"{value}", "h"])


def test_the_page_has_every_column_and_every_kind_of_event() -> None:
    """The columns of --csv are the fields of an event, in the same order."""
    fields = entries(section(PAGE, "Event"), "Va")
    assert list(fields) == list(COLUMNS)
    assert set(re.findall(r"^\.Li (\S+)", fields["event"], re.MULTILINE)) == {kind.value for kind in Kind}


def test_the_page_has_every_field_of_a_summary(port: int) -> None:
    """Runs with losses, errors, other addresses, source ports and TCP write each field that the page names."""
    plan = ["answer", "elsewhere", "drop", "answer"]
    first, _ = impaired(plan, "--json", "-c", 4, "-i", "10ms", "-W", 1, "--sources", 2, "--compare", "tcp")
    with measuring(["answer"], mode="stamp", stateful=True) as server:
        second = ping("--json", "--stamp", "-c", 2, "-i", 0, f"127.0.0.1:{server.port}")
    found = [first, second]
    found.append(ping("--json", f"tcp://127.0.0.1:{port}", "-c", 3, "-i", 0))
    found.append(ping("--json", "-M", "do", "-s", 65_527, "-c", 1, f"[::1]:{port}"))  # 65,536 is the MTU of loopback
    assert {name for each in found for name in names_in(each.objects[-1])} == names_of("Summary", "Target") | {"event"}


def test_the_page_has_every_field_of_what_is_revealed() -> None:
    """Where there is a reply, and where there is none."""
    with measuring(["answer"], mode="reveal") as server:
        found = [*ping("--json", "--reveal", f"127.0.0.1:{server.port}", f"127.0.0.1:{free_port()}").objects]
    assert {name for each in found for name in names_in(each)} == names_of("Reveal")


def test_the_page_has_every_field_of_a_search_for_the_path_mtu() -> None:
    """An object with all that a search can find has the fields that the page names."""
    return_path = ReturnPath(size=1500, replied=True, reply_fragments=1276)
    result = MtuResult(
        passes=1280,
        fails=1281,
        interface_mtu=1500,
        router="192.0.2.1",
        reason="r",
        reported_mtu=1280,
        return_path=return_path,
    )
    written = mtu_record(resolve(parse("127.0.0.1"), None), result)
    assert set(names_in(written)) == names_of("Path MTU")
    silent = json.loads(ping("--json", "--mtu", f"127.0.0.1:{free_port()}").out)
    assert set(names_in(silent)) <= names_of("Path MTU")


def test_the_page_has_every_exit_code() -> None:
    """Those of the code and of the help, and that of a container's first process that a signal ends."""
    codes = [int(code) for code in re.findall(r"^\.It (\d+)$", section(PAGE, "EXIT STATUS"), re.MULTILINE)]
    assert codes == [REPLIED, NO_REPLY, UsageError("").exit_code, 130]
    assert [int(code) for code in re.findall(r"^  (\d)  ", help_text(), re.MULTILINE)] == codes[:-1]


def test_each_example_is_a_command_line_that_is_accepted() -> None:
    """On the page and in the help."""
    page = re.findall(r"^\.It Li echod ping (.*)$", section(PAGE, "EXAMPLES"), re.MULTILINE)
    shown = re.findall(r"^  echod ping (.*?)   ", help_text(), re.MULTILINE)
    assert (len(page) >= 12, len(shown)) == (True, 8)
    for words in page + shown:
        assert parse_options(words.split()).specs


def test_the_remarks_of_the_page_are_those_of_the_lines() -> None:
    """Each kind of event that is not ordinary has its remark, and the page has no other."""
    stated = re.findall(r"^\.It Li (\(.*\))$", section(PAGE, "Remarks"), re.MULTILINE)
    session: Any = SimpleNamespace(target=resolve(parse("127.0.0.1"), None), ports=[0])
    events = [Event(kind=kind, time=0) for kind in Kind]
    events += [Event(kind=Kind.REPLY, time=0, **{name: 1}) for name in CHANGES]  # type: ignore[arg-type]
    lines = [line(session, each, protocol=False, host=False) for each in events]
    remarks = {found[0] for each in lines if (found := re.search(r"\([^)]*\)$", each))}
    assert {re.sub(r"!.+\)", "! ...)", remark) for remark in remarks} == set(stated)
