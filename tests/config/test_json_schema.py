"""echod.config.json_schema: an editor that has the schema says of a config what echod says, as far as a schema can."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.config_mistakes import SCHEMA, errors
from support.daemon import REPOSITORY
from support.man import literals, source

from echod.config.document import Value, read
from echod.config.json_schema import DESCRIPTIONS, make_schema
from echod.config.listeners import ImpairConfig, ListenerConfig
from echod.config.parse import parse_config
from echod.config.schema import FIRST_TRY, Config
from echod.config.written import flatten, simple, write_config
from echod.errors import ConfigError

COMMITTED = REPOSITORY / "config/echod.schema.json"
SHIPPED = REPOSITORY / "config/echod.yaml"

KEYS = flatten(Config())
"""Every key, dotted, with its default."""


def values(text: str) -> Value:
    """Return what is in a YAML text."""
    return read(text.encode()).value


def find(key: str) -> dict[str, Any]:
    """Return what the schema says of a dotted key."""
    found = make_schema()
    for name in key.split("."):
        found = found["properties"][name]
    return found


def is_taken(key: str, value: object) -> bool:
    """Tell whether echod takes a config with this key alone."""
    top, _, name = key.partition(".")
    try:
        parse_config(json.dumps({top: {name: value}} if name else {top: value}).encode())
    except ConfigError:
        return False
    return True


def is_valid(key: str, value: object) -> bool:
    """Tell whether the schema takes a config with this key alone."""
    top, _, name = key.partition(".")
    return SCHEMA.is_valid({top: {name: value}} if name else {top: value})


def test_it_is_a_schema() -> None:
    """Of the draft that it names, by the schema of schemas."""
    assert make_schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(make_schema())


def test_the_committed_file_is_the_schema() -> None:
    """As `echod config --schema` prints it."""
    assert COMMITTED.read_text() == json.dumps(make_schema(), indent=2) + "\n"


def test_each_key_has_its_sentence_and_its_default() -> None:
    """No key is missing, none is unknown; a default is what the schema itself takes."""
    options = {f"listeners.{name}" for name in ListenerConfig.model_fields}
    options |= {f"listeners.impair.{name}" for name in ImpairConfig.model_fields}
    assert set(DESCRIPTIONS) == set(KEYS) | {key.partition(".")[0] for key in KEYS} | options
    for key, value in KEYS.items():
        found = find(key)
        assert found["description"] == DESCRIPTIONS[key]
        written = simple(key, value)
        assert is_valid(key, written)
        assert found["default"] == written


def test_no_key_may_be_unknown() -> None:
    """Neither at the top nor in a section."""
    names = {key.partition(".")[0] for key in KEYS if "." in key}
    sections = [make_schema(), *map(find, names)]
    assert len(sections) == 10
    assert all(section["additionalProperties"] is False for section in sections)


@pytest.mark.parametrize("config", [Config(), FIRST_TRY])
def test_what_echod_writes_is_valid(config: Config) -> None:
    """The output of `echod config`."""
    SCHEMA.validate(values(write_config(config)))


def test_the_file_that_is_installed_is_valid() -> None:
    """In YAML 1.2, which is also that of editors."""
    SCHEMA.validate(values(SHIPPED.read_text()))


def examples() -> list[str]:
    """Return the configs among the literal blocks of echod.yaml(5)."""
    texts = [text.replace("\\", "") for text in literals(source("echod.yaml.5"))]
    return [text for text in texts if re.match(r"[a-z]+:\n", text)]


@pytest.mark.parametrize("text", examples())
def test_each_example_of_the_man_page_is_valid(text: str) -> None:
    """As it is taken by echod."""
    assert parse_config(text.encode())
    SCHEMA.validate(values(text))


def test_the_examples_of_the_man_page_are_found() -> None:
    """Among them that of each section."""
    assert len(examples()) == 7


def test_what_the_readme_writes_for_a_key_is_valid() -> None:
    """The defaults in its table; for `listeners`, whose default is in words, the examples."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*) \|$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 5
    for key, default, text in rows:
        if key == "listeners":
            assert is_valid(key, re.findall(r"`(\w+://[^`]+)`", text))
        else:
            assert is_valid(key, read(f"x: {default.strip('`')}".encode()).value["x"])


def test_replies_for_everybody_need_a_limit() -> None:
    """Or that it is written that there is none."""
    assert errors("access: {allow: [loopback, any]}")
    assert errors("access: {allow: [any]}\nlimits: {burst: 5}")
    for rate in ("1000", "unlimited"):
        text = f"access: {{allow: [any]}}\nlimits: {{datagrams_per_second: {rate}}}"
        assert parse_config(text.encode())
        SCHEMA.validate(values(text))


@pytest.mark.parametrize(
    "text",
    [
        "listeners: [udp://0.0.0.0:7, udp://127.0.0.1:7]",
        "listeners: [udp://0.0.0.0:7-65535]",
        "listeners: [udp://0.0.0.0:9-7]",
        "listeners: [udp://224.0.0.1:7]",
        "listeners: ['udp://[fe80::1]:7']",
        "listeners: ['udp://[::ffff:192.0.2.1]:7']",
        "access: {deny: [192.0.2.1/24]}",
        "access: {allow: [8.8.8.8]}",
        "metrics: {listen: [http://0.0.0.0:9, http://127.0.0.1:9]}",
        "listeners: [tcp://0.0.0.0:9]\nmetrics: {listen: http://127.0.0.1:9}",
        "workers: 2.0",
    ],
)
def test_what_the_schema_cannot_say(text: str) -> None:
    """What compares values, what an address means, and a number that JSON takes for a whole one."""
    assert errors(text)
    SCHEMA.validate(values(text))


# -- what the schema refuses echod refuses

TEXTS = st.sampled_from(
    [
        *(
            "auto",
            "off",
            "unlimited",
            "any",
            "private",
            "loopback",
            "link-local",
            "info",
            "debug",
            "json",
            "journal",
            "nobody",
        ),
        *(
            "udp://0.0.0.0:7",
            "tcp://[::]:7000-7015",
            "udp://[fe80::1%eth0]:7",
            "udp://192.0.2.1%vrf-red:7",
            "http://[::1]:9007",
        ),
        *(
            "10.0.0.0/8",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/0",
            "/run/echod",
            "echo.example.com",
            "8 MiB",
            "0x10",
            "1 GiB",
            "",
        ),
    ]
)
EDITED = st.tuples(TEXTS, st.integers(0, 30), st.integers(0, 3), st.text("0157af:./[]%- Bik", max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[3] + parts[0][parts[1] + parts[2] :]
)
ADDRESSES = st.ip_addresses().map(str)
URLS = st.tuples(
    st.sampled_from(["udp", "tcp", "http"]),
    st.ip_addresses().map(lambda each: f"[{each}]" if each.version == 6 else str(each)),
    st.integers(1, 65_535),
).map(lambda parts: "{}://{}:{}".format(*parts))
SIZES = st.tuples(
    st.integers(0, 2**31), st.sampled_from(["", " ", "  "]), st.sampled_from(["", "B", "KiB", "MiB", "GiB", "MB"])
).map(lambda parts: "{}{}{}".format(*parts))
NUMBERS = st.sampled_from(
    sorted(
        {
            bound + step
            for bound in (0, 64, 1000, 3600, 65536, 86400, 10**6, 10**7, 10**8, 2**22, 2**30)
            for step in (-1, 0, 1)
        }
    )
)
SCALARS = st.one_of(
    *(TEXTS, EDITED, ADDRESSES, URLS, SIZES, NUMBERS, st.integers(), st.booleans(), st.none(), st.text(max_size=300)),
    st.floats(allow_nan=False, allow_infinity=False),
)
ANY = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(KEYS)), ANY)
def test_what_the_schema_refuses_echod_refuses(key: str, value: object) -> None:
    """Whatever a single key is set to."""
    assert is_valid(key, value) or not is_taken(key, value)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_values_of_a_key_are_of_both_kinds(key: str) -> None:
    """So that neither of them is always right: some of a few are taken by both, and others by neither."""
    tried = [
        "auto",
        "off",
        1,
        2000,
        True,
        2**20,
        "info",
        "xdp",
        "8 MiB",
        ["udp://192.0.2.1:7"],
        ["192.0.2.1"],
        [1],
        ["a.example"],
        [],
        {},
        None,
    ]
    judged = [(is_valid(key, each), is_taken(key, each)) for each in tried]
    assert set(judged) == {(True, True), (False, False)}
