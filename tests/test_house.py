"""The house stands: imports follow the arrows, and what one module alone may do is done nowhere else."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import echod

REPOSITORY = Path(__file__).resolve().parents[1]

ARROWS = {
    "__main__": "cli",
    "cli": "accelerator admission config errors linux logs net ping stats status supervisor worker",
    "supervisor": "admission config errors exporter linux logs net stats status udp worker",
    "accelerator": "bpf config errors linux logs net status worker",
    "worker": "admission config linux net stats tcp udp wire",
    "exporter": "admission linux logs metrics stats status",
    "ping": "errors measurement net probes",
    "udp": "admission linux net stats wire",
    "tcp": "admission linux net stats",
    "bpf": "admission linux net stats",
    "probes": "errors linux measurement net wire",
    "status": "admission errors linux net stats",
    "metrics": "linux",
    "admission": "net stats",
    "stats": "net",
    "config": "errors net",
    "linux": "errors net",
    "logs": "linux",
}
"""Which packages, and modules at the top, each package imports. All may import echod itself, which has the version."""

ON_DEMAND = {
    "__main__": "cli.main",
    "accelerator.accelerator": "accelerator.declaration config.file",
    "cli.main": "cli.accelerate cli.check cli.config cli.ping cli.reload cli.run cli.status cli.units",
    "cli.check": "cli.inquiry linux.netlink",
    "cli.config": "config.json_schema",
    "cli.ping": "ping.command ping.options",
    "cli.run": "cli.daemonize",
    "cli.status": "status.selftest",
    "supervisor.exporter": "exporter.exporter",
    "worker.modes": "tcp.modes.discard tcp.modes.impair udp.modes.discard udp.modes.impair udp.modes.reveal "
    "udp.modes.stamp udp.modes.udpecho_plus wire.reveal wire.stamp "
    "wire.udpecho_plus",
}
"""What a module imports inside functions alone: a command, or a part of it, that is loaded when it is chosen."""

PURE_MODULES = {
    "accelerator": "declaration settings",
    "admission": "admission loops ratelimit rules selftest",
    "bpf": "asm checks counting decisions egress layout limits loops maps options program reply",
    "cli": "inquiry",
    "config": "access diagnostics diff document fields json_schema lint listeners parse patterns schema socket_unit "
    "written",
    "exporter": "metrics",
    "linux": "mmsg_layout sockopt",
    "measurement": "comparison directions events far_end flood flood_ring icmp in_flight latency outages pacing "
    "path_mtu payload reordering reply_headers responder round_trip statistics",
    "metrics": "model",
    "net": "link listener mode networks peers",
    "ping": "charts values",
    "probes": "due_times frames settings",
    "stats": "counters outcomes rates refusals snapshot top_sources totals traffic watch",
    "status": "overview tables",
    "supervisor": "capacity timers",
    "tcp": "limits",
    "udp": "arrivals columns impairment sessions trains",
    "wire": "authentication lanes ntp reflection reveal stamp tlv udpecho_plus",
    "worker": "rules",
}
"""Modules without I/O, clock, log or mutable globals: what they decide depends on their arguments alone. Each is
covered in every branch by its own test file."""

PURE = frozenset(
    {"errors"} | {f"{package}.{name}" for package, names in PURE_MODULES.items() for name in names.split()}
)

PURE_MAY_IMPORT = frozenset(
    {"array", "bisect", "collections", "copy", "dataclasses", "datetime", "difflib", "enum", "errno", "hashlib"}
    | {
        "heapq",
        "hmac",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "pydantic",
        "pydantic_core",
        "re",
        "struct",
    }
    | {"typing", "unicodedata", "yaml", "zlib"}
)
"""Modules of values."""

PURE_MAY_NOT_USE = ("open", "input", "__import__", "globals", "datetime.now", "datetime.utcnow", "datetime.today")

ONLY = {
    "print": {"cli"},
    "sys.stdout": {"cli"},
    "sys.exit": {"cli"},
    "exit": {"cli"},
    "quit": {"cli"},
    "SystemExit": {"cli"},
    "os._exit": {"linux.process", "cli.daemonize"},
    "os.fork": {"linux.process", "cli.daemonize"},
    # A child is killed in one place, where a refusal ends no loop. The others signal another echod.
    "os.kill": {"linux.process", "cli.reload", "status.files"},
    # Moments to show. Durations are differences of the monotonic clock, which nobody sets.
    "time.time": {"status.publisher", "accelerator.publisher", "config.file", "linux.procfs"},
    "structlog.configure": {"logs"},
    "structlog.configure_once": {"logs"},
    # The sockets that listen, and those of probes, which ask and never listen.
    ".bind": {"linux.sockets", "probes.sockets"},
}
"""Names that only these modules, or packages, may use; a method of anything has a dot before its name."""

ONLY_IMPORT: dict[str, set[str]] = {
    # No thread, no second loop, no second way to fork; and importlib would go round this test.
    **{name: set() for name in ("_thread", "concurrent", "importlib", "multiprocessing", "threading")},
    # No relative import, which begins with a dot: whole names are read in any file without a thought of where it lies.
    "": set(),
    "asyncio": {"__main__"},
    "ctypes": {"linux"},
    "prometheus_client": {"metrics.exposition"},
    "http": {"exporter.exporter", "metrics.http_server"},
    "echod.exporter.exporter": {"supervisor.exporter"},
    "echod.metrics": {"exporter"},
}
"""Modules that are unsafe or cost memory or time, and who alone imports them."""

MAX_LINES = 340

Sources = Mapping[str, str]
"""Source text by the module's dotted name."""


def read_sources() -> dict[str, str]:
    """Read every module of the package."""
    sources = {}
    for path in sorted((REPOSITORY / "echod").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        sources[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return sources


SOURCES = read_sources()

MODULES = frozenset(SOURCES)

HOUSE = dict.fromkeys(ARROWS) | dict.fromkeys(("errors", "measurement", "net", "wire"))
"""The packages and the modules at the top."""


def room(module: str) -> str:
    """Return the package of a module of echod, or the module if it is at the top; empty text for echod itself."""
    return f"{module}.".split(".")[1]


def is_in(module: str, places: frozenset[str] | set[str]) -> bool:
    """Return whether a module is one of these places, or in one."""
    name = module.removeprefix("echod.")
    return any(f"{name}.".startswith(f"{place}.") for place in places)


def imports(source: str | ast.AST) -> list[str]:
    """Return the dotted name of each module imported anywhere in a source, in functions too.

    `from echod import logs` imports echod.logs where there is such a module, and from echod otherwise. A relative
    import keeps its dots.
    """
    found = []
    for node in ast.walk(ast.parse(source) if isinstance(source, str) else source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names = [f"{origin}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else origin for name in names]
    return found


def uses(source: str) -> set[str]:
    """Return the dotted name of everything that a source names, with what it was imported as undone.

    An attribute of anything is also there by its own name, behind a dot.
    """
    tree = ast.parse(source)
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            origins |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = set(origins.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(f".{node.attr}")
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            found.add(origins.get(first, first) + dot + rest)
    return found


def arrows(modules: Sources) -> dict[str, set[str]]:
    """Return which packages each package imports."""
    found: dict[str, set[str]] = {}
    for module, source in modules.items():
        targets = {room(target) for target in imports(source) if target.split(".")[0] == "echod"}
        found.setdefault(room(module), set()).update(targets - {room(module), ""})
    return {package: targets for package, targets in found.items() if targets}


def find_circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Find what reaches itself by the arrows of a graph."""
    found = []
    for start in graph:
        seen: set[str] = set()
        ahead = set(graph[start])
        while ahead:
            seen |= ahead
            ahead = set().union(*(graph.get(each, set()) for each in ahead)) - seen
        found += [start] * (start in seen)
    return found


def find_impure(modules: Sources) -> list[str]:
    """Find what pure modules import or use beside values."""
    breaches = []
    for module, source in modules.items():
        if module.removeprefix("echod.") not in PURE:
            continue
        strange = [each for each in imports(source) if each.removeprefix("echod.") not in PURE]
        breaches += [f"{module} imports {each}" for each in strange if each.split(".")[0] not in PURE_MAY_IMPORT]
        breaches += [f"{module} uses {name}" for name in uses(source) if name in PURE_MAY_NOT_USE]
    return breaches


def find_greedy(modules: Sources) -> list[str]:
    """Find imports of what only certain modules may import, submodules included."""
    return [
        f"{module} imports {target}"
        for module, source in modules.items()
        for target in imports(source)
        for name, homes in ONLY_IMPORT.items()
        if f"{target}.".startswith(f"{name}.") and not is_in(module, homes) and not is_in(module, {name[6:]})
    ]


def find_trespasses(modules: Sources) -> list[str]:
    """Find uses of what only certain modules may use."""
    return [
        f"{module} uses {name}"
        for module, source in modules.items()
        for name in uses(source)
        if name in ONLY and not is_in(module, ONLY[name])
    ]


def find_long(modules: Sources) -> list[str]:
    """Find the modules that want to be two."""
    counts = {module: len(source.splitlines()) for module, source in modules.items()}
    return [f"{module} has {count} lines" for module, count in counts.items() if count > MAX_LINES]


# -- the house


def test_imports_follow_the_arrows() -> None:
    """The table has what is there: no arrow is missing from it, and none in it is unused."""
    assert arrows(SOURCES) == {package: set(targets.split()) for package, targets in ARROWS.items()}


def test_there_is_no_circle_of_modules() -> None:
    """No module imports one that imports it, on whatever way."""
    graph = {module: {each for each in imports(source) if each in MODULES} for module, source in SOURCES.items()}
    assert find_circles(graph) == []


def test_what_is_imported_on_demand_is_imported_inside_functions_alone() -> None:
    """A command that is not chosen is not loaded; nothing else of echod is imported inside functions."""
    found = {}
    for module, source in SOURCES.items():
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        inside = [each for function in functions for each in imports(function) if each in MODULES]
        assert [each for each in imports(source) if each in inside] == inside, module
        if inside:
            found[module.removeprefix("echod.")] = {each.removeprefix("echod.") for each in inside}
    assert found == {module: set(targets.split()) for module, targets in ON_DEMAND.items()}


def test_the_map_in_the_docstring_has_every_module() -> None:
    """Who reads echod/__init__.py to find the way finds each package there, with its modules."""
    reported = dict(re.findall(r"^    (\w+)[/*]? +(.*(?:\n {9,}.*)*)", echod.__doc__ or "", re.MULTILINE))
    modules = {room(module): set() for module in SOURCES if room(module)}
    for module in SOURCES:
        if module.count(".") > 1:
            modules[room(module)].add(module.split(".")[2])
    assert set(reported) == set(modules)
    for package, names in modules.items():
        assert names <= set(re.findall(r"\w+", reported[package])), package


def test_the_paths_in_contributing_are_there() -> None:
    """A module is named by its path below echod; files and folders by theirs, in the repository or beside the page."""
    text = (REPOSITORY / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
    words = [word for code in re.findall(r"`([^`\n]+)`|\]\(([^)]+)\)", text) for part in code for word in part.split()]
    paths = [word for word in words if re.fullmatch(r"[\w./*-]+/[\w./*-]*", word) and ".venv" not in word]
    places = (REPOSITORY, REPOSITORY / "echod", REPOSITORY / ".github")
    assert len(paths) > 30
    for path in paths:
        assert any([*place.glob(path.removeprefix("../")), *place.glob(f"{path}.py")] for place in places), path


def test_pure_modules_import_values_only() -> None:
    """They have no way to a socket, a clock, a file or a log: what they decide depends on their arguments alone."""
    assert find_impure(SOURCES) == []


def test_the_lists_allow_no_more_than_is_there() -> None:
    """Each pure module exists and has its own test file; each module that they may import is imported."""
    pure = {name: SOURCES[f"echod.{name}"] for name in PURE}
    imported = {each.split(".")[0] for source in pure.values() for each in imports(source)}
    assert imported - {"echod"} == PURE_MAY_IMPORT
    for name in PURE:
        package, _, module = name.rpartition(".")
        assert (REPOSITORY / "tests" / package / f"test_{module}.py").is_file(), name


def test_what_is_dear_or_unsafe_is_imported_in_its_home_alone() -> None:
    """Only `linux` has ctypes; prometheus_client and http.server are loaded by the process of the exporter alone.

    Nobody has a thread or another event loop, so that the supervisor may fork at any time.
    """
    assert find_greedy(SOURCES) == []


def test_printing_exiting_forking_binding_and_configuring_have_one_home_each() -> None:
    """The cli prints and exits, sockets bind, logs configures; only forked processes end without a message."""
    assert find_trespasses(SOURCES) == []


def test_the_homes_are_used() -> None:
    """Each home does what it alone may do, so a rule that its name no longer meets cannot rot unseen."""
    for name in ("print", "sys.exit", "os._exit", "os.fork", "os.kill", "time.time", "structlog.configure", ".bind"):
        users = {module.removeprefix("echod.") for module, source in SOURCES.items() if name in uses(source)}
        assert all(any(is_in(user, {home}) for user in users) for home in ONLY[name]), name
    for name, homes in ONLY_IMPORT.items():
        users = {m for m, source in SOURCES.items() if any(f"{t}.".startswith(f"{name}.") for t in imports(source))}
        assert all(any(is_in(user, {home}) for user in users) for home in homes), name


def test_no_module_is_long_and_no_package_is_most_of_the_house() -> None:
    """A module that is wants to be two; the biggest package has at most 12% of the lines."""
    assert find_long(SOURCES) == []
    lines = dict.fromkeys(HOUSE, 0)
    for module, source in SOURCES.items():
        if room(module):
            lines[room(module)] += len(source.splitlines())
    assert max(lines.values()) <= 0.12 * sum(lines.values()), lines


# -- the checks themselves


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("import echod.udp.batch", {"udp"}),
        ("from echod.udp.batch import Batch", {"udp"}),
        ("from echod.udp import batch", {"udp"}),
        ("from echod import logs", {"logs"}),
        ("def f():\n    from echod import logs", {"logs"}),
        ("if TYPE_CHECKING:\n    import echod.worker.worker as w", {"worker"}),
        ("import echod.cellar", {"cellar"}),
        ("from echod import __version__\nimport select\nfrom echod.linux.signals import Signals", set()),
    ],
)
def test_an_arrow_is_found(source: str, targets: set[str]) -> None:
    """Whatever its form and wherever it stands; the version, the own package, and what is not ours are none."""
    assert arrows({"echod.linux.poll": source}) == ({"linux": targets} if targets else {})


def test_a_circle_is_found() -> None:
    """All that are on it are named, and nobody else."""
    assert find_circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}}) == ["b", "c"]


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("import os", "imports os"),
        ("import os.path", "imports os.path"),
        ("def f():\n    from time import monotonic", "imports time"),
        ("from socket import htons", "imports socket"),
        ("import logging", "imports logging"),
        ("import structlog", "imports structlog"),
        ("from echod import __version__", "imports echod"),
        ("from echod import logs", "imports echod.logs"),
        ("import sys\nsys.argv", "imports sys"),
        ("from sys import stderr", "imports sys"),
        ("open('/etc/echod.yaml')", "uses open"),
    ],
)
def test_what_a_pure_module_must_not_have_is_found(source: str, breach: str) -> None:
    """Files, clocks, sockets and logs are named where a pure module reaches for them, and elsewhere are no breach."""
    assert find_impure({"echod.config.diff": source}) == [f"echod.config.diff {breach}"]
    assert find_impure({"echod.linux.poll": source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import prometheus_client",
        "from http.server import HTTPServer",
        "import ctypes",
        "import threading",
        "from asyncio import run",
        "import asyncio.events as events",
        "def f():\n    from concurrent.futures import ThreadPoolExecutor",
        "from . import logs",
        "from .logs import configure",
    ],
)
def test_a_greedy_import_is_found(source: str) -> None:
    """In any module but its home, in each form, also that of a submodule."""
    assert len(find_greedy({"echod.worker.worker": source})) == 1
    assert find_greedy({"echod.worker.worker": "import httpx"}) == []


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("print('hi')", "uses print"),
        ("write = print", "uses print"),
        ("import sys\nsys.stdout.write('hi')", "uses sys.stdout"),
        ("import sys\nsys.exit(1)", "uses sys.exit"),
        ("import sys as s\ns.exit(1)", "uses sys.exit"),
        ("from sys import exit as leave\nleave(1)", "uses sys.exit"),
        ("raise SystemExit(1)", "uses SystemExit"),
        ("import os\ndef f():\n    os._exit(1)", "uses os._exit"),
        ("import os\nos.fork()", "uses os.fork"),
        ("import structlog\nstructlog.configure(processors=[])", "uses structlog.configure"),
        ("from structlog import configure", "uses structlog.configure"),
        ("import socket\nsocket.socket().bind(('', 7))", "uses .bind"),
        ("take = sock.bind\ntake(('', 7))", "uses .bind"),
    ],
)
def test_what_another_module_alone_may_do_is_found(source: str, breach: str) -> None:
    """However it is written, and whatever it was renamed to, it is named in a module that may not."""
    assert find_trespasses({"echod.udp.service": source}) == [f"echod.udp.service {breach}"]


def test_logs_configure_is_not_structlogs() -> None:
    """Other modules may have logs configure itself; words in comments and texts are no uses."""
    source = "from echod import logs\nlogs.configure(level='info')  # not print()\nx = 'sys.exit'"
    assert find_trespasses({"echod.supervisor.supervisor": source}) == []


def test_a_long_module_is_found() -> None:
    """340 lines are not too many, 341 are."""
    assert find_long({"echod.linux.poll": "\n" * 340}) == []
    assert find_long({"echod.linux.poll": "\n" * 341}) == ["echod.linux.poll has 341 lines"]
