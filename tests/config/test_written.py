"""echod.config.written: a config as text, which is a config again."""

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.config.document import dotted, read
from echod.config.parse import parse_config
from echod.config.schema import Config
from echod.config.written import flatten, write_config, write_options, write_value
from echod.errors import ConfigError
from echod.net.listener import Listener, parse_listener

# What a scalar without quotes is in YAML 1.2, or in 1.1, or only looks like.
WORDS = (
    *("1e3", "0o17", "0o7", "017", "0x1F", "12", "1_000", "1:30", "-1.5", ".inf", "NaN", "2026-01-01", "~", "null"),
    *("true", "no", "on", "y", "=", "<<", "-", "- a", "# a", "a: b", "a #b", "'", '"', "%a", "@a", "&a", "*a", "!a"),
    *(" a ", "a\n\nb ", "\ta", "---", "...", "ü\U0001f600", "[a", "{a}", "a,b", "?", "a  b" * 40, "\\x41"),
)
TEXTS = st.sampled_from(WORDS) | st.text(min_size=1, max_size=120)
HOSTS = st.sampled_from([word for word in WORDS if word.isalnum()]) | st.text(
    string.ascii_lowercase + string.digits + ".-", min_size=1, max_size=12
)
LISTENERS = (
    *("udp://0.0.0.0:7000-7003", "udp://[::]:7003", "udp://0.0.0.0%1e3:7002", "tcp://127.0.0.1%[x]:40000-40009"),
    *("udp://[fe80::1%a#b]:7", "tcp://[2001:db8::1]:1", "udp://127.0.0.1%&a:20", "udp://10.0.0.1:65534-65535"),
)
SECTIONS: dict[str, st.SearchStrategy[Any]] = {
    "listeners": st.lists(st.sampled_from(LISTENERS), min_size=1, unique=True),
    "access": st.fixed_dictionaries(
        {"allow": st.lists(st.sampled_from(["private", "::1", "10.0.0.0/8"]), unique=True)},
        optional={"deny": st.lists(st.sampled_from(["2001:db8::", "fe80::/10", "any"]), unique=True)},
    ),
    "limits": st.sampled_from(
        [{"burst": 1}, {"datagrams_per_second": 5}, {"total_datagrams_per_second": 7, "dry_run": True}]
    ),
    "user": TEXTS,
    "workers": st.sampled_from(["auto", 3]),
    "udp": st.sampled_from([{"receive_buffer": "8 MiB"}, {"send_buffer": 4096}]),
    "tcp": st.sampled_from([{"max_connections": 1024}, {"max_connections": 5}, {"idle_timeout_seconds": 300}]),
    "status": st.fixed_dictionaries({"directory": TEXTS.map("/{}".format) | TEXTS}),
    "metrics": st.fixed_dictionaries(
        {"listen": st.sampled_from(["off", "http://[::1]:9", ["http://0.0.0.0:1", "http://[::1]:9"]])},
        optional={"hosts": st.lists(HOSTS, max_size=3)},
    ),
}


@settings(deadline=None, max_examples=200)
@given(st.fixed_dictionaries({}, optional=SECTIONS))
def test_any_config_that_is_accepted_is_read_again_as_it_was(sections: dict[str, Any]) -> None:
    """Whatever its texts look like, in ASCII; what is printed is warned of as the file was, no more and no less."""
    try:
        config, warnings = parse_config(json.dumps(sections or {"workers": "auto"}, ensure_ascii=False).encode())
    except ConfigError:
        return
    printed, warnings_of_printed = parse_config(write_config(config).encode())
    assert printed == config
    assert write_config(config).isascii()
    assert sorted(each.message for each in warnings_of_printed) == sorted(each.message for each in warnings)


OPTIONS = """listeners:
- udp://192.0.2.1:7-8
- address: udp://192.0.2.1:9-10
  mode: stamp
  stateful: true
  hmac_key: /etc/key
- address: udp://192.0.2.1:11
  dscp: 46
  impair:
    loss: 0.1%
    corrupt: 0.000001%
    delay: 1500 us
    jitter: 0.001 us
    rate: 10 Mbit/s
    seed: 7
- address: udp://192.0.2.1:12
  impair:
    duplicate: 100%
    delay: 2 s
    rate: 1 bit/s
    queue: 5
"""


def test_options_are_written_as_they_may_be_read() -> None:
    """Those that differ from an echo's, with the largest unit of which the number is a whole multiple."""
    config = parse_config(OPTIONS.encode())[0]
    assert write_config(config).startswith(OPTIONS)
    assert parse_config(write_config(config).encode())[0] == config
    assert write_options(list(config.listeners.values())[1]) == {}
    assert write_options(config.listeners[config_listener(12)])["impair"]["delay"] == "2 s"


def config_listener(port: int) -> Listener:
    """Return the listener of this port."""
    (listener,) = parse_listener(f"udp://192.0.2.1:{port}")
    return listener


@pytest.mark.parametrize("word", WORDS)
def test_a_text_that_looks_like_another_value_is_written_in_quotes(word: str) -> None:
    """As a name of a user, which may be any text, and in a list."""
    config = Config.model_validate({"user": word, "metrics": {"hosts": ["null", "1e3", "0o7"]}})
    assert parse_config(write_config(config).encode())[0] == config


def test_every_key_is_written() -> None:
    """Also those that the file leaves out; without a line break at the end."""
    text = write_config(Config())
    assert set(flatten(Config())) <= {dotted(path) for path in read(text.encode()).places}
    assert not text.endswith("\n")


def test_single_values_are_written_on_one_line() -> None:
    """As they would stand in the file."""
    flat = flatten(Config())
    assert {
        key: write_value(key, flat[key]) for key in ("access.deny", "access.allow", "limits.dry_run", "workers")
    } == {
        "access.deny": "[]",
        "access.allow": "[loopback, link-local, private]",
        "limits.dry_run": "false",
        "workers": "auto",
    }
    assert write_value("metrics.listen", ()) == "off"
    assert write_value("metrics.listen", ("http://[::1]:9", "http://[::]:8")) == "[http://[::1]:9, http://[::]:8]"
    assert write_value("limits.datagrams_per_second", None) == "unlimited"
