"""echod.config.diff: which listeners a reload keeps, opens and closes, and what the log has of a change."""

from functools import partial
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loopback import listener as make_listener

from echod.config import diff
from echod.config.diff import Plan, plan
from echod.config.schema import Config
from echod.config.written import flatten
from echod.net.listener import Listener
from echod.net.mode import PLAIN, Impairment, ListenerOptions, Mode

listener = partial(make_listener, "127.0.0.1")

LISTENERS = st.lists(st.integers(1, 9).map(listener), unique=True)


def test_listeners_in_both_are_kept_the_others_opened_or_closed() -> None:
    """A reload touches only what changed; kept and opened follow the new file, closed the old."""
    old = [listener(port) for port in (1, 2, 3, 4)]
    new = [listener(port) for port in (6, 3, 5, 1)]
    assert plan(old, new) == Plan(
        keep=(listener(3), listener(1)),
        open=(listener(6), listener(5)),
        close=(listener(2), listener(4)),
    )


@settings(deadline=None)
@given(old=LISTENERS, new=LISTENERS)
def test_every_listener_stands_in_exactly_one_place(old: list[Listener], new: list[Listener]) -> None:
    """What is kept or opened is the new set, what is kept or closed is the old; no listener is in two places."""
    answer = plan(iter(old), iter(new))  # which can be read only once
    assert sorted((*answer.keep, *answer.open), key=str) == sorted(new, key=str)
    assert sorted((*answer.keep, *answer.close), key=str) == sorted(old, key=str)
    assert not set(answer.open) & set(answer.close)


OTHERS: dict[str, tuple[Any, str]] = {
    "access.allow": (["10.0.0.0/8", "::1/128"], "access.allow: [loopback, link-local, private] -> [10.0.0.0/8, ::1]"),
    "access.deny": (["any"], "access.deny: [] -> [any]"),
    "guard.min_source_port": (1, "guard.min_source_port: 1024 -> 1"),
    "guard.refuse_source_ports": ([], "guard.refuse_source_ports: [1900, 2049, 3702, 5353, 5355, 11211] -> []"),
    "guard.loop_breaker": (False, "guard.loop_breaker: true -> false"),
    "limits.datagrams_per_second": (5, "limits.datagrams_per_second: unlimited -> 5"),
    "limits.burst": (1, "limits.burst: 256 -> 1"),
    "limits.total_datagrams_per_second": (9, "limits.total_datagrams_per_second: unlimited -> 9"),
    "limits.sources": (2048, "limits.sources: 65536 -> 2048"),
    "limits.slip": (0, "limits.slip: 8 -> 0"),
    "limits.dry_run": (True, "limits.dry_run: false -> true"),
    "workers": (3, "workers: auto -> 3"),
    "user": ("nobody", "user: auto -> nobody"),
    "udp.receive_buffer": (4096, "udp.receive_buffer: 8388608 -> 4096"),
    "udp.send_buffer": (8192, "udp.send_buffer: 8388608 -> 8192"),
    "tcp.max_connections": (9, "tcp.max_connections: 1024 -> 9"),
    "tcp.max_connections_per_source": (8, "tcp.max_connections_per_source: 64 -> 8"),
    "tcp.idle_timeout_seconds": (7, "tcp.idle_timeout_seconds: 300 -> 7"),
    "tcp.stall_timeout_seconds": (6, "tcp.stall_timeout_seconds: 30 -> 6"),
    "drain_timeout_seconds": (0, "drain_timeout_seconds: 10 -> 0"),
    "log.level": ("debug", "log.level: info -> debug"),
    "log.format": ("json", "log.format: auto -> json"),
    "status.directory": ("/run/other", "status.directory: auto -> /run/other at the next start"),
    "metrics.listen": ("http://[::1]:9", "metrics.listen: off -> http://[::1]:9"),
    "metrics.hosts": (["one.example", "two.example"], "metrics.hosts: [] -> [one.example, two.example]"),
    "kernel.interfaces": (["eth0", "lo"], "kernel.interfaces: [] -> [eth0, lo]"),
    "kernel.driver": ("xdp", "kernel.driver: tcx -> xdp"),
    "kernel.fresh_seconds": (1, "kernel.fresh_seconds: 5 -> 1"),
    "kernel.stale_seconds": (3600, "kernel.stale_seconds: 10 -> 3600"),
}
"""For each key another value than its default, and what the log has of the change."""


def config(*listeners: str, **values: object) -> Config:
    """Make a config of these listeners, or the default ones, and these values, by dotted key."""
    tree: dict[str, Any] = {"listeners": list(listeners)} if listeners else {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return Config.model_validate(tree)


def changes(old: Config, new: Config) -> list[str]:
    """Return the changes where the sockets are those of the configs."""
    return diff.changes(old, new, plan(old.listeners, new.listeners))


def test_the_table_of_this_file_has_every_key() -> None:
    """A key that is added to the config must be added to the table, so that its change is seen to be reported."""
    assert OTHERS.keys() == flatten(Config()).keys() - {"listeners"}


def test_between_equal_configs_nothing_differs() -> None:
    """A reload of an unchanged file has nothing to report, not even where two equal objects differ in identity."""
    assert changes(config(), config()) == []
    one, other = (config("udp://0.0.0.0:7", **{"tcp.idle_timeout_seconds": int("301")}) for _ in range(2))
    assert changes(one, other) == []


@pytest.mark.parametrize("key", OTHERS)
def test_a_changed_key_is_named_with_both_values(key: str) -> None:
    """Each key, at the top level or in a section, is reported alone, dotted, with the old value and the new."""
    value, text = OTHERS[key]
    assert changes(config(), config(**{key: value})) == [text]


def test_two_changed_keys_are_both_reported_in_the_order_of_the_config() -> None:
    """Of each pair of keys both are reported, as they stand in the config, whatever was written first."""
    order = list(OTHERS)
    for first, second in combinations(order, 2):
        new = config(**{key: OTHERS[key][0] for key in (second, first)})
        assert changes(config(), new) == [OTHERS[first][1], OTHERS[second][1]]


def test_the_way_back_is_reported_the_other_way_round() -> None:
    """Undoing a change names the same key with the values exchanged."""
    assert changes(config(workers=3), config()) == ["workers: 3 -> auto"]


def test_listeners_are_reported_one_by_one_and_not_as_a_list() -> None:
    """Opened ones have a plus and come first, closed ones a minus; kept ones, even moved, are not reported."""
    old = config("udp://127.0.0.1:1", "tcp://127.0.0.1:2", "udp://[::1]:3")
    new = config("udp://[::1]:3", "udp://127.0.0.1:4", "udp://127.0.0.1:1")
    assert changes(old, new) == ["+udp://127.0.0.1:4", "-tcp://127.0.0.1:2"]


def test_listeners_come_before_keys() -> None:
    """What is open to the world is reported first."""
    old, new = config("udp://127.0.0.1:1"), config("udp://127.0.0.1:2", workers=1)
    assert changes(old, new) == ["+udp://127.0.0.1:2", "-udp://127.0.0.1:1", "workers: auto -> 1"]


def test_listeners_are_reported_as_they_are_served() -> None:
    """One that was passed stays open though the config has it no more, and was open before the config had it."""
    old, new = config("udp://127.0.0.1:1"), config("udp://127.0.0.1:2")
    held = (*old.listeners, *new.listeners)
    assert diff.changes(old, new, plan(held, held)) == []


def test_options_of_a_listener_that_is_kept_are_reported_as_a_change() -> None:
    """A mode and its options on one line, before the keys; those of one that is opened are in the file."""
    one, other = listener(1), listener(2)
    stamp = ListenerOptions(mode=Mode.STAMP, stateful=True)
    impaired = ListenerOptions(impair=Impairment(loss=0.02, seed=7))
    old = Config(listeners={one: PLAIN, other: stamp}, workers=2)
    new = Config(listeners={one: stamp, other: impaired})
    assert diff.changes(old, new, plan(old.listeners, new.listeners)) == [
        "udp://127.0.0.1:1: echo -> stamp, stateful: true",
        "udp://127.0.0.1:2: stamp, stateful: true -> echo, impair.loss: 2%, impair.seed: 7",
        "workers: 2 -> auto",
    ]


def test_a_key_with_other_content_is_reported_and_never_shown() -> None:
    """Beside its options, if they differ too; one of a listener that is opened is no news."""
    one, other, more = listener(1), listener(2), listener(3)
    keyed = ListenerOptions(mode=Mode.STAMP, hmac_key="/etc/key")
    stateful = ListenerOptions(mode=Mode.STAMP, hmac_key="/etc/key", stateful=True)
    old = Config(listeners={one: keyed, other: keyed}, workers=2)
    new = Config(listeners={one: keyed, other: stateful, more: keyed}, workers=2)
    assert diff.changes(old, new, plan(old.listeners, new.listeners), {one, other, more}) == [
        "+udp://127.0.0.1:3",
        "udp://127.0.0.1:1: new key",
        "udp://127.0.0.1:2: stamp, hmac_key: /etc/key -> stamp, stateful: true, hmac_key: /etc/key",
        "udp://127.0.0.1:2: new key",
    ]
