"""The house stands: imports only go down, and what one module alone may do is done nowhere else."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import echod

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS = {
    "vector": 1,
    "poll": 1,
    "capacity": 1,
    "port": 1,
    "interface": 1,
    "netlink": 1,
    "sockets": 1,
    "signals": 1,
    "systemd": 1,
    "configfile": 1,
    "kernel": 2,
    "check": 3,
    "service": 2,
    "logs": 1,
    "daemonize": 1,
    "announce": 3,
    "descriptors": 1,
    "ownership": 2,
    "refusals": 1,
    "status": 2,
    "instances": 1,
    "reload": 7,
    "dispatch": 2,
    "unfinished": 2,
    "arrival": 2,
    "batch": 3,
    "display": 1,
    "selftest": 2,
    "holdings": 3,
    "adoption": 2,
    "udp": 4,
    "tcp": 3,
    "streams": 2,
    "ring": 1,
    "crowd": 1,
    "connection": 1,
    "accepting": 1,
    "books": 4,
    "observer": 5,
    "client": 4,
    "worker": 5,
    "generation": 6,
    "export": 6,
    "exporter": 4,
    "health": 3,
    "page": 3,
    "forking": 2,
    "http": 2,
    "outfit": 2,
    "exposition": 1,
    "privileges": 1,
    "processes": 1,
    "supervisor": 7,
    "cli": 8,
    "__main__": 9,
}
"""Each module's floor. All of echod.core is on floor 0, and echod itself, which has the version, below; all of
echod.client stands on the floor of "client".
"""

CORE_MAY_IMPORT = frozenset(
    {
        "array",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "errno",
        "hashlib",
        "heapq",
        "ipaddress",
        "json",
        "itertools",
        "operator",
        "math",
        "pydantic",
        "pydantic_core",
        "re",
        "struct",
        "typing",
        "unicodedata",
        "yaml",
        "zlib",
    },
)
"""Modules of values."""

CORE_MAY_NOT_USE = ("open", "input", "__import__", "globals")

NOBODY_IMPORTS = frozenset({"_thread", "asyncio", "concurrent", "importlib", "multiprocessing", "threading"})
"""No thread, no second loop, no second way to fork; and importlib would go round this test."""

ONLY = {
    "print": {"echod.cli"},
    "sys.stdout": {"echod.cli"},
    "sys.exit": {"echod.cli"},
    "exit": {"echod.cli"},
    "quit": {"echod.cli"},
    "SystemExit": {"echod.cli"},
    "os._exit": {"echod.forking", "echod.daemonize"},
    # A child is killed in one place, where a refusal ends no loop. The others signal another echod.
    "os.kill": {"echod.forking", "echod.reload", "echod.status"},
    # Moments to show. Durations are differences of the monotonic clock, which nobody sets.
    "time.time": {"echod.announce", "echod.configfile", "echod.processes"},
    "structlog.configure": {"echod.logs"},
    "structlog.configure_once": {"echod.logs"},
}
"""Names that only these modules may use."""

ONLY_IMPORT = {
    "prometheus_client": {"echod.exposition"},
    "http": {"echod.exporter", "echod.http"},
    "echod.exporter": {"echod.export"},
}
"""Modules that cost memory or time, and who alone imports them: none of these is loaded where no metrics are wanted."""

ONLY_BINDS = "echod.sockets"

ONLY_BINDS_IN_CLIENT = "echod.client.outlet"
"""The client has its own, whose sockets ask and never listen."""

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

CLEAN = dict.fromkeys(
    (
        "echod",
        "echod.client.loop",
        "echod.core",
        "echod.core.errors",
        "echod.core.plan",
        *(f"echod.{n}" for n in FLOORS),
    ),
    "",
)
"""A house of empty rooms, in which the checks themselves are checked."""


def is_core(module: str) -> bool:
    """Tell whether a module is in echod.core."""
    return module == "echod.core" or module.startswith("echod.core.")


def is_client(module: str) -> bool:
    """Tell whether a module is in echod.client."""
    return module == "echod.client" or module.startswith("echod.client.")


def floor(module: str) -> int | None:
    """Return the floor of a module of echod, or None where it has none."""
    if module == "echod":
        return -1
    if is_client(module):
        return FLOORS["client"]
    return 0 if is_core(module) else FLOORS.get(module.removeprefix("echod."))


def imports(source: str, modules: Sources) -> list[str]:
    """Return the dotted name of each module imported anywhere in a source, in functions too.

    `from echod import logs` imports echod.logs where there is such a module, and from echod otherwise. A relative
    import keeps its dots.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names = [f"{origin}.{alias.name}" for alias in node.names]
            found += [name if name in modules else origin for name in names]
    return found


def uses(source: str) -> set[str]:
    """Return the dotted name of everything that a source names, with what it was imported as undone."""
    tree = ast.parse(source)
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            origins |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = set(origins.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            found.add(origins.get(first, first) + dot + rest)
    return found


def find_homeless(modules: Sources) -> list[str]:
    """Find the modules without a floor, and floors without a module."""
    missing = [f"{module} has no floor" for module in modules if floor(module) is None]
    return missing + [f"there is no echod.{name}" for name in FLOORS if f"echod.{name}" not in modules]


def find_upward(modules: Sources) -> list[str]:
    """Find the imports within echod that do not go down. Core's and the client's may go sideways."""
    breaches = []
    for module, source in modules.items():
        here = floor(module)
        for target in imports(source, modules):
            if target.startswith("."):
                breaches.append(f"{module} imports {target}: write the whole name")
            sideways = (is_core(module) and is_core(target)) or (is_client(module) and is_client(target))
            if target.split(".")[0] != "echod" or sideways:
                continue
            there = floor(target)
            if here is None or there is None or there >= here:
                breaches.append(f"{module} imports {target}")
    return breaches


def find_impure(modules: Sources) -> list[str]:
    """Find what core imports or uses beside values."""
    breaches = []
    for module, source in modules.items():
        if is_core(module):
            targets = [target for target in imports(source, modules) if not is_core(target)]
            names = [name for name in uses(source) if name in CORE_MAY_NOT_USE]
            breaches += [f"{module} imports {each}" for each in targets if each.split(".")[0] not in CORE_MAY_IMPORT]
            breaches += [f"{module} uses {each}" for each in names]
    return breaches


def find_forbidden(modules: Sources) -> list[str]:
    """Find imports that nobody may have."""
    return [
        f"{module} imports {target}"
        for module, source in modules.items()
        for target in imports(source, modules)
        if target.split(".")[0] in NOBODY_IMPORTS
    ]


def find_greedy(modules: Sources) -> list[str]:
    """Find imports of what only certain modules may import, submodules included."""
    return [
        f"{module} imports {target}"
        for module, source in modules.items()
        for target in imports(source, modules)
        for name, homes in ONLY_IMPORT.items()
        if f"{target}.".startswith(f"{name}.") and module not in homes
    ]


def find_trespasses(modules: Sources) -> list[str]:
    """Find uses of what only certain modules may use, and calls of a `bind` outside the one that binds."""
    breaches = []
    for module, source in modules.items():
        breaches += [f"{module} uses {name}" for name in uses(source) if module not in ONLY.get(name, {module})]
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "bind"
                and module not in (ONLY_BINDS, ONLY_BINDS_IN_CLIENT)
            ):
                breaches.append(f"{module} binds in line {node.lineno}")
    return breaches


def find_long(modules: Sources) -> list[str]:
    """Find the modules that want to be two."""
    counts = {module: len(source.splitlines()) for module, source in modules.items()}
    return [f"{module} has {count} lines" for module, count in counts.items() if count > MAX_LINES]


# -- the house


def test_every_module_has_a_floor() -> None:
    """A new module is given its place in the table here, and one that goes leaves it."""
    assert find_homeless(SOURCES) == []


def test_the_map_in_the_docstring_has_the_same_floors() -> None:
    """Who reads echod/__init__.py to find the way finds every module there, on the floor that is checked."""
    lines = re.findall(r"^    (\w[\w, /]*?) +(\d)  ", echod.__doc__ or "", re.MULTILINE)
    told = {name: int(number) for names, number in lines for name in names.split(", ")}
    assert told == {**FLOORS, "core/": 0}


def test_imports_only_go_down() -> None:
    """No module imports one of its own floor or above; only core's, and the client's, may import each other."""
    assert find_upward(SOURCES) == []


def test_core_imports_values_only() -> None:
    """Core has no way to a socket, a clock, a file or a log: what it decides depends on its arguments alone."""
    assert find_impure(SOURCES) == []


def test_every_module_that_core_may_import_is_imported() -> None:
    """The list of allowed modules allows no more than is needed."""
    core = [source for module, source in SOURCES.items() if is_core(module)]
    imported = {name.split(".")[0] for source in core for name in imports(source, SOURCES)}
    assert imported - {"echod"} == CORE_MAY_IMPORT


def test_there_is_no_thread_and_no_event_loop_but_our_own() -> None:
    """The supervisor may fork at any time because no process ever has a second thread."""
    assert find_forbidden(SOURCES) == []


def test_what_only_the_exporter_needs_only_the_exporter_loads() -> None:
    """prometheus_client and http.server are imported behind `echod.exporter`, and that by its own process alone."""
    assert find_greedy(SOURCES) == []
    (line,) = [line for line in SOURCES["echod.export"].splitlines() if "import" in line and "echod.exporter" in line]
    assert line.startswith("    ")  # in the function that is the process


def test_printing_exiting_binding_and_configuring_have_one_home_each() -> None:
    """The cli prints and exits, sockets binds, logs configures; only forked processes end without a word."""
    assert find_trespasses(SOURCES) == []


def test_the_homes_are_used() -> None:
    """Each module does what it alone may do, so a rule that its name no longer meets cannot rot unseen."""
    for name in ("print", "sys.exit", "os._exit", "structlog.configure"):
        assert {module for module, source in SOURCES.items() if name in uses(source)} == ONLY[name]
    for home in (ONLY_BINDS, ONLY_BINDS_IN_CLIENT):
        assert any(" binds in line " in breach for breach in find_trespasses({"echod.udp": SOURCES[home]}))


def test_no_module_is_long() -> None:
    """One that is wants to be two."""
    assert find_long(SOURCES) == []


# -- the checks themselves


@pytest.mark.parametrize(
    ("module", "source", "breach"),
    [
        ("echod.poll", "import echod.udp", "echod.poll imports echod.udp"),
        ("echod.poll", "from echod.udp import UdpEcho", "echod.poll imports echod.udp"),
        ("echod.poll", "from echod import udp", "echod.poll imports echod.udp"),
        ("echod.poll", "from echod import logs", "echod.poll imports echod.logs"),
        ("echod.poll", "def f():\n    from echod import logs", "echod.poll imports echod.logs"),
        ("echod.poll", "if TYPE_CHECKING:\n    import echod.worker as w", "echod.poll imports echod.worker"),
        ("echod.poll", "from . import logs", "echod.poll imports .: write the whole name"),
        ("echod.poll", "from .logs import configure", "echod.poll imports .logs: write the whole name"),
        ("echod.poll", "import echod.cellar", "echod.poll imports echod.cellar"),
        ("echod.attic", "import echod.poll", "echod.attic imports echod.poll"),
        ("echod.poll", "from echod.client import loop", "echod.poll imports echod.client.loop"),
        ("echod.client.loop", "from echod.worker import live", "echod.client.loop imports echod.worker"),
        ("echod.core.plan", "from echod.poll import Poll", "echod.core.plan imports echod.poll"),
        ("echod", "from echod.core import plan", "echod imports echod.core.plan"),
        ("echod.poll", "import echod.poll", "echod.poll imports echod.poll"),
    ],
)
def test_an_import_that_does_not_go_down_is_found(module: str, source: str, breach: str) -> None:
    """Whatever its form and wherever it stands, such an import is named."""
    assert find_upward({**CLEAN, module: source}) == [breach]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("echod.udp", "from echod.batch import Batch\nfrom echod.core.counters import UdpField"),
        ("echod.core.plan", "from echod.core import listener\nimport echod.core.errors"),
        ("echod.poll", "from echod import __version__\nimport select\nfrom structlog.typing import EventDict"),
        ("echod.__main__", "from echod import cli"),
        ("echod.client.loop", "from echod.client import course\nfrom echod.vector import Vector"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module: str, source: str) -> None:
    """Lower floors, core among itself, the version, and what is not ours are nobody's breach."""
    assert find_upward({**CLEAN, module: source}) == []


def test_a_module_without_a_floor_and_a_floor_without_its_module_are_found() -> None:
    """Both a newcomer and one that went are named; a new module of core has its floor."""
    assert find_homeless({**CLEAN, "echod.attic": "", "echod.core.novelty": ""}) == ["echod.attic has no floor"]
    without = {module: source for module, source in CLEAN.items() if module != "echod.poll"}
    assert find_homeless(without) == ["there is no echod.poll"]


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
def test_what_core_must_not_have_is_found(source: str, breach: str) -> None:
    """Files, clocks, sockets and logs are named wherever core reaches for them, and elsewhere are no breach."""
    assert find_impure({**CLEAN, "echod.core.plan": source}) == [f"echod.core.plan {breach}"]
    assert find_impure({**CLEAN, "echod.poll": source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import threading",
        "from asyncio import run",
        "import asyncio.events as events",
        "def f():\n    from concurrent.futures import ThreadPoolExecutor",
    ],
)
def test_a_thread_or_another_loop_is_found(source: str) -> None:
    """Each form of such an import is named, in any module."""
    assert len(find_forbidden({**CLEAN, "echod.cli": source})) == 1


@pytest.mark.parametrize("source", ["import prometheus_client", "from http.server import HTTPServer"])
def test_a_greedy_import_is_found(source: str) -> None:
    """In any module but its home, also that of a submodule."""
    assert len(find_greedy({**CLEAN, "echod.worker": source})) == 1
    assert find_greedy({**CLEAN, "echod.worker": "import httpx"}) == []


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("print('hi')", "uses print"),
        ("say = print", "uses print"),
        ("import sys\nsys.stdout.write('hi')", "uses sys.stdout"),
        ("import sys\nsys.exit(1)", "uses sys.exit"),
        ("import sys as s\ns.exit(1)", "uses sys.exit"),
        ("from sys import exit as leave\nleave(1)", "uses sys.exit"),
        ("raise SystemExit(1)", "uses SystemExit"),
        ("import os\ndef f():\n    os._exit(1)", "uses os._exit"),
        ("import structlog\nstructlog.configure(processors=[])", "uses structlog.configure"),
        ("from structlog import configure", "uses structlog.configure"),
        ("import socket\nsocket.socket().bind(('', 7))", "binds in line 2"),
        ("take = sock.bind\ntake(('', 7))", "binds in line 1"),
    ],
)
def test_what_another_module_alone_may_do_is_found(source: str, breach: str) -> None:
    """However it is written, and whatever it was renamed to, it is named in a module that may not."""
    assert find_trespasses({**CLEAN, "echod.udp": source}) == [f"echod.udp {breach}"]


def test_logs_configure_is_not_structlogs() -> None:
    """Modules above may tell logs to configure itself; words in comments and texts are no uses."""
    source = "from echod import logs\nlogs.configure(level='info')  # not print()\nx = 'sys.exit'"
    assert find_trespasses({**CLEAN, "echod.supervisor": source}) == []


def test_a_long_module_is_found() -> None:
    """340 lines are not too many, 341 are."""
    assert find_long({"echod.poll": "\n" * 340}) == []
    assert find_long({"echod.poll": "\n" * 341}) == ["echod.poll has 341 lines"]
