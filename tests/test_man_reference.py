"""The reference in echod(8) and echod-metrics(7) is what the code has, in both directions."""

import ast
import errno
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import REPOSITORY, StartDaemon, run_echod
from support.man import PAGES, entries, literals, section, source
from support.ports import free_port
from support.scraping import fetch, serve_metered
from support.snapshots import IN_MODES, KERNEL, make_snapshot

from echod.errors import ExitCode
from echod.exporter import metrics
from echod.logs import MESSAGE_IDS
from echod.metrics import exposition
from echod.net.listener import parse_listener
from echod.stats import snapshot
from echod.stats.counters import ROW_FIELDS, describe
from echod.stats.outcomes import SEND_ERRORS, Close, Drop
from echod.status.overview import overview
from echod.status.overview import text as as_text

COMMANDS = ("run", "check", "config", "reload", "status", "units", "accelerate")


def help_of(*words: str) -> str:
    """Return what `--help` of a command prints."""
    return run_echod(*words, "--help").stdout


# -- commands


def test_the_page_has_every_command() -> None:
    """The subsections of COMMANDS are the commands that `echod --help` lists."""
    commands = re.findall(r"^    ([a-z]+)\b", help_of().partition("COMMAND\n")[2], re.MULTILINE)
    assert re.findall(r"^\.Ss echod (.*)$", section("echod.8", "COMMANDS"), re.MULTILINE) == commands
    assert commands == [*COMMANDS, "ping"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_has_every_option_of_a_command_and_no_other(command: str) -> None:
    """The tags below a command, and those of its synopsis, are the options that `--help` lists."""
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_of(command), re.MULTILINE)
    options.remove("--help")
    tags = re.findall(r"^\.It Fl (-[a-z-]+)", section("echod.8", f"echod {command}"), re.MULTILINE)
    assert [f"-{tag}" for tag in tags] == options
    synopses = re.findall(r"^\.Nm\n((?:(?!\.Nm).*\n)*)", section("echod.8", "SYNOPSIS"), re.MULTILINE)
    (synopsis,) = (each for each in synopses if f"Cm {command}\n" in each)
    assert {f"-{tag}" for tag in re.findall(r"Fl (-[a-z-]+)", synopsis)} == set(options)


def test_the_page_has_every_exit_code_and_no_other() -> None:
    """Each exit code has a line of its own."""
    codes = re.findall(r"^\.It (\d+)$", section("echod.8", "EXIT STATUS"), re.MULTILINE)
    assert [int(code) for code in codes] == sorted(ExitCode)


def test_the_page_has_every_variable_of_the_environment_and_no_other() -> None:
    """The code names each variable as a string."""
    strings = {
        node.value
        for path in (REPOSITORY / "echod").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    given = r"(?:LISTEN|NOTIFY|WATCHDOG|JOURNAL|XDG|RUNTIME|INVOCATION)_[A-Z_]+|MAINPID|NO_COLOR"
    known = {each for each in strings if re.fullmatch(given, each)}
    assert entries(section("echod.8", "ENVIRONMENT"), "Ev").keys() == known


def test_the_page_has_every_signal() -> None:
    """As `echod run --help` lists them."""
    listed = re.findall(
        r"\b([A-Z]+[0-9]?)\b(?= reload| and INT| drain|,? logs)", help_of("run").partition("Signals:")[2]
    )
    assert {f"SIG{name}" for name in (*listed, "INT")} == entries(section("echod.8", "SIGNALS"), "Dv").keys()


def counters(protocol: str) -> set[str]:
    """Return the names of all counters of a listener."""
    (listener,) = parse_listener(f"{protocol}://127.0.0.1:7")
    return set(describe(listener, [1] * ROW_FIELDS))


def test_the_page_explains_every_counter_and_no_other() -> None:
    """The tags of COUNTERS are the counters, that of the kernel among those of UDP."""
    assert entries(section("echod.8", "Of a UDP listener"), "Dv").keys() == counters("udp") | {"kernel_drops"}
    assert entries(section("echod.8", "Of a TCP listener"), "Dv").keys() == counters("tcp")


def test_the_page_has_the_rules_in_their_order() -> None:
    """The first rule that drops a datagram counts it, so their order is part of the reference."""
    tags = entries(section("echod.8", "Of a UDP listener"), "Dv")
    drops = [tag.removeprefix("dropped_") for tag in tags if tag.startswith("dropped_")]
    assert drops == [drop.name.lower() for drop in sorted(Drop)]


def shown_counters() -> set[str]:
    """Return what `echod status` calls each number below its tables, such as `dropped: access`."""
    dropped = {each.name.lower(): 1 for each in Drop}
    failed = {errno.errorcode[each]: 1 for each in SEND_ERRORS} | {"other": 1}
    common: Any = {"family": "ipv4", "adopted": False}
    udp = snapshot.UdpTraffic(
        name="a",
        dropped=dropped,
        send_failed=failed,
        interrupted=1,
        slipped=1,
        self_test=1,
        duplicated=1,
        reordered=1,
        corrupted=1,
        **common,
    )
    tcp = snapshot.TcpTraffic(name="b", closed={each.name.lower(): 1 for each in Close}, accept_failed=1, **common)
    shown = as_text(
        overview(make_snapshot(activity=snapshot.Activity(udp=(udp,), tcp=(tcp,))), uptime_seconds=1, when=str)
    )
    return set(re.findall(r"^[ab] +(\S.*?) +1$", shown, re.MULTILINE))


def test_an_operator_finds_what_the_pages_name_in_the_output_of_status() -> None:
    """TROUBLESHOOTING has the names of `echod status`, and no other; where COUNTERS has others, it gives both."""
    shown = shown_counters()
    assert {"dropped: access", "send failed: EAGAIN", "closed: idle", "accept failed"} <= shown
    for page in ("echod.8", "echod.yaml.5"):
        named = set(re.findall(r"\bQl ((?:dropped|send failed|closed|replied): [\w ]*\w)", source(page)))
        assert named, page
        assert named <= shown, page
    assert not re.search(r"\b(dropped|closed|send_failed)_", section("echod.8", "TROUBLESHOOTING"))
    own = dict(re.findall(r"^\.It Dv (\w+)\n\.Ic echod status :\n(.*)\.$", source("echod.8"), re.MULTILINE))
    assert own.pop("kernel_drops") == "queue full"
    assert own.pop("held") == "held"
    assert set(own) == {"self_test", "slipped", "interrupted", "duplicated", "reordered", "corrupted"}
    assert set(own.values()) <= shown


@pytest.mark.parametrize("unit", sorted((REPOSITORY / "packaging/systemd").glob("echod*")), ids=lambda path: path.name)
def test_a_unit_names_the_page(unit: Path) -> None:
    """`systemctl help` opens the page of the process first, and every page that it opens is there."""
    (pages,) = re.findall(r"^Documentation=(.*)$", unit.read_text(), re.MULTILINE)
    named = [re.fullmatch(r"man:([\w.-]+)\((\d)\)", page) for page in pages.split()]
    assert named[0]
    assert named[0][0] == ("man:echod-accelerate(8)" if unit.stem == "echod-accelerate" else "man:echod(8)")
    assert all(found and (PAGES / f"{found[1]}.{found[2]}").is_file() for found in named)


# -- metrics


def labels_of(family: Family) -> dict[str, list[str]]:
    """Return the values of each label of a metric, in the order in which they are served."""
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            found = values.setdefault(label, [])
            found += [value] if value not in found else []
    return values


def listed(text: str, before: str) -> list[str]:
    """Return what a text lists behind these words, up to the full stop."""
    found = re.search(rf"{before}([^.]*)\.", text)
    assert found, before
    return found[1].replace("\n", " ").split(", ")


def test_the_page_has_every_metric_with_type_labels_and_values_and_no_other(echod: StartDaemon) -> None:
    """Of a label whose values are a closed set, the page lists each; of a histogram it lists the buckets.

    Those of the kernel are served where there is an accelerator, those of TR-143 where a listener has its mode.
    """
    *_, http = serve_metered(echod)
    others = [*metrics.of_kernel(KERNEL), *metrics.of_udpecho_config(IN_MODES.udp)]
    texts = (fetch(http)[2], exposition.write(others, "")[0].decode())
    found = [each for text in texts for each in text_string_to_metric_families(text)]
    served = {f"{each.name}_total" if each.type == "counter" else each.name: each for each in found}
    documented = entries(section("echod-metrics.7", "METRICS"), "Va")
    assert documented.keys() == served.keys()
    for name, text in documented.items():
        values = labels_of(served[name])
        bounds = values.pop("le", [])
        assert re.match(rf"Type: {served[name].type}\.$", text, re.MULTILINE), name
        assert set(listed(text, "Labels: ")) == (set(values) or {"none"}), name
        for label in {"reason", "errno"} & set(values):
            assert listed(text, rf"Values of\n\.Cm {label} :\n") == values[label]
        if bounds:
            assert [float(each) for each in listed(text, "buckets ")] == [float(each) for each in bounds[:-1]]


def test_the_page_has_every_alert_and_no_other() -> None:
    """The alerts are those of the rules that come with echod."""
    rules = yaml.safe_load((REPOSITORY / "packaging/prometheus/echod.rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert entries(section("echod-metrics.7", "PROMETHEUS"), "Cm").keys() == alerts


def test_the_page_has_every_path_of_the_exporter_and_no_other() -> None:
    """The paths are the keys of the exporter's table."""
    code = (REPOSITORY / "echod/exporter/exporter.py").read_text()
    assert entries(section("echod-metrics.7", "HTTP"), "Pa").keys() == set(
        re.findall(r'^ +"(/[a-z.]*)":', code, re.MULTILINE)
    )


# -- log

_LEVELS = ("debug", "info", "warning", "error", "critical")


def dicts_of(tree: ast.AST) -> dict[str, set[str]]:
    """Return the keys that a module writes into each dict that it names."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                displays = (each for each in ast.walk(value) if isinstance(each, ast.Dict))
                keys = (key for each in displays for key in each.keys if isinstance(key, ast.Constant))
                found.setdefault(name, set()).update(str(key.value) for key in keys)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key))]):
                found.setdefault(name, set()).add(str(key))
    return found


def logged() -> Iterator[tuple[str, str, set[str]]]:
    """Yield event, level and facts of each call that logs; `**facts` are those of a dict of that name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((REPOSITORY / "echod").rglob("*.py"))]
    everywhere: dict[str, set[str]] = {}
    for tree in trees:
        for name, names in dicts_of(tree).items():
            everywhere.setdefault(name, set()).update(names)
    for tree in trees:
        here = dicts_of(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (levels := _levels(node.func)):
                facts: set[str] = set()
                for keyword in node.keywords:
                    name = _name(keyword.value)
                    facts |= {keyword.arg} if keyword.arg else (here.get(name) or everywhere.get(name, set()))
                assert isinstance(node.args[0], ast.Constant)
                yield from ((str(node.args[0].value), level, facts) for level in levels)


def _levels(function: ast.expr) -> tuple[str, ...]:
    """Return the levels at which a call logs; none if it does not log."""
    if isinstance(function, ast.Name) and function.id == "log":
        return ("info", "warning")
    if not (isinstance(function, ast.Attribute) and function.attr in _LEVELS):
        return ()
    return (function.attr,) if "log" in ast.unparse(function.value) else ()


def _name(expression: ast.expr) -> str:
    """Return the name of the dict that an expression stands for: a variable, or a method that returns it."""
    function = expression.func if isinstance(expression, ast.Call) else expression
    return ast.unparse(function).rpartition(".")[2].removeprefix("_")


LOGGED = list(logged())


def test_the_page_has_every_event_with_its_levels_and_facts_and_no_other() -> None:
    """Each event states its levels, and all facts that some call gives it, in the order of their first call."""
    wanted: dict[str, tuple[set[str], set[str]]] = {
        "process_failed": ({"error"}, {"message"})
    }  # linux/journal sends it
    for event, level, facts in LOGGED:
        levels, names = wanted.setdefault(event, (set(), set()))
        levels.add(level)
        names |= facts - ({"kernel_drops"} if event == "counters" else set())
    stated: dict[str, tuple[set[str], set[str]]] = {}
    for event, text in entries(section("echod-metrics.7", "Events"), "Dv").items():
        found = re.match(r"([a-z ]+): ([^.]*)\.", text)
        assert found, event
        facts = set(found[2].replace(", and its counters", "").replace("\n", " ").split(", "))
        stated[event] = (set(found[1].split(" or ")), facts)
    assert stated == wanted


def test_the_catalogue_explains_each_event_that_has_an_id_by_its_own_facts() -> None:
    """Ten events, each with an id of its own (systemd-id128(1)); what is put between @ is a field of that event.

    Or it is the unit, which journald adds (systemd.journal-fields(7)): the entry may be of an instance.
    """
    text = (REPOSITORY / "packaging/journal/echod.catalog").read_text()
    found = dict(
        re.findall(r"^-- ([0-9a-f]{32})\nSubject: .+\nDefined-By: echod\n((?:(?!^-- ).*\n)+)", text, re.MULTILINE)
    )
    assert list(found) == list(MESSAGE_IDS.values())
    assert len(found) == text.count("\n-- ") == 10
    for event, number in MESSAGE_IDS.items():
        facts = {f"ECHOD_{fact.upper()}" for name, _level, given in LOGGED if name == event for fact in given}
        assert facts | {"_SYSTEMD_UNIT"} >= set(re.findall(r"@([A-Z_]+)@", found[number])), event
    assert not re.search(r"echod(-metrics)?\.(service|socket|yaml)", text)


def test_the_page_explains_every_fact_and_no_other() -> None:
    """The tags of Facts are the facts of all events; the counters are those of echod(8)."""
    assert entries(section("echod-metrics.7", "Facts"), "Va").keys() == set().union(*(facts for *_, facts in LOGGED))


def test_the_page_has_every_field_of_a_journal_entry_and_no_other() -> None:
    """The fields of an entry as it is sent, and the one that counts lost entries."""
    code = "".join((REPOSITORY / "echod" / name).read_text() for name in ("logs.py", "linux/journal.py"))
    wanted = set(re.findall(r'"((?:MESSAGE|MESSAGE_ID|PRIORITY|SYSLOG_IDENTIFIER|CODE_[A-Z]+|ECHOD_[A-Z_]+))"', code))
    assert entries(section("echod-metrics.7", "Journal fields"), "Dv").keys() == wanted | {"ECHOD_EVENT"}


# -- status


@pytest.mark.parametrize(
    ("heading", "form"),
    [
        ("The object", snapshot.Snapshot),
        ("reload", snapshot.LastReload),
        ("activity", snapshot.Activity),
        ("activity.udp", snapshot.UdpTraffic),
        ("udpecho_config", snapshot.UdpEchoConfig),
        ("activity.tcp", snapshot.TcpTraffic),
        ("activity.workers", snapshot.WorkerState),
        ("activity.top_sources", snapshot.TopSource),
        ("activity.refused", snapshot.Refused),
        ("kernel", snapshot.Kernel),
        ("kernel.interfaces", snapshot.KernelInterface),
        ("kernel.traffic", snapshot.KernelTraffic),
        ("Rates", snapshot.Rates),
    ],
)
def test_the_page_has_every_key_of_the_status_and_no_other(heading: str, form: Any) -> None:  # noqa: ANN401 - a class
    """The tags of a subsection are the fields of that part of the JSON."""
    assert entries(section("echod-metrics.7", heading), "Va").keys() == {each.name for each in fields(form)}


def test_the_outcome_of_a_self_test_has_the_keys_of_the_page(echod: StartDaemon) -> None:
    """`echod status --check --json` of a real echod, whose status has the keys of the page too."""
    daemon = echod({"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1})
    (tested,), reported = (
        json.loads(run_echod("status", "--json", *words, RUNTIME_DIRECTORY=str(daemon.status_path)).stdout)
        for words in (("--check",), ())
    )
    assert entries(section("echod-metrics.7", "Self test"), "Va").keys() == tested.keys()
    assert entries(section("echod-metrics.7", "The object"), "Va").keys() == reported.keys()


def test_the_scrape_config_of_the_page_names_the_job_that_the_alerts_expect() -> None:
    """It is YAML, and its job is `echod`."""
    example, *_ = literals(section("echod-metrics.7", "PROMETHEUS"))
    (job,) = yaml.safe_load(example)["scrape_configs"]
    assert job["job_name"] == "echod"
    assert 'job="echod"' in (REPOSITORY / "packaging/prometheus/echod.rules.yaml").read_text()
    assert job["static_configs"][0]["targets"][0] in source("echod.yaml.5")


@pytest.mark.parametrize(
    ("heading", "config"),
    [("Find a mistake in a config", "worker: 4\n"), ("Ask whether a source gets replies", "workers: auto\n")],
)
def test_an_example_with_output_has_the_output_of_its_commands(heading: str, config: str, tmp_path: Path) -> None:
    """Each command of the example prints what stands below it, to the letter."""
    (tmp_path / "echod.yaml").write_text(config)
    (example,) = literals(section("echod.8", heading))
    for command, shown in re.findall(r"^\$ echod (.*)\n((?:(?!\$).*\n)+)", example, re.MULTILINE):
        words = shlex.split(command)
        words += [] if "--config" in words else ["--config", "echod.yaml"]
        assert run_echod(*words, folder=tmp_path, PYTHONPATH=str(REPOSITORY)).stdout == shown
