"""echod.config.explain: what an operator is told who writes what cannot be."""

import pytest
from support.config_mistakes import errors

WORKERS = "write auto or a whole number from 1 to 64"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", f"0 is out of bounds: {WORKERS}"),
        ("65", f"65 is out of bounds: {WORKERS}"),
        ("-1", f"-1 is out of bounds: {WORKERS}"),
        ("9" * 5000, f"{'9' * 60}... is out of bounds: {WORKERS}"),
        ('"2"', "is text because of the quotes: write 2 without quotes"),
        ('""', f'"" is not a number: {WORKERS}'),
        ("'true'", f'"true" is not a number: {WORKERS}'),
        ("017", "017 begins with a zero: write 17"),
        ("many", f'"many" is not a number: {WORKERS}'),
        ("Auto", f'"Auto" is not a number: {WORKERS}'),
        ("true", f"true is a boolean: {WORKERS}"),
        ("2.0", f"2.0 is a decimal number: {WORKERS}"),
        (".nan", f".nan is a decimal number: {WORKERS}"),
        ("[2]", f"is a list: {WORKERS}"),
        ("{int: 2}", f"is a mapping: {WORKERS}"),
        ("null", "has no value: write one or remove the key"),
    ],
)
def test_a_number_that_cannot_be_is_explained(text: str, message: str) -> None:
    """What was written is reported beside what may be written, at the place of the value."""
    assert errors(f"workers: {text}\n") == [(1, 10, "workers", message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loud", '"loud" is not known: write debug, info, warning or error'),
        ("INFO", '"INFO" is not known: write debug, info, warning or error'),
        ("'5'", '"5" is not known: write debug, info, warning or error'),
        ("5", "5 is a number: write debug, info, warning or error"),
        ("false", "false is a boolean: write debug, info, warning or error"),
        ("[info]", "is a list: write debug, info, warning or error"),
    ],
)
def test_a_word_that_cannot_be_is_refused_with_those_that_can(text: str, message: str) -> None:
    """A choice is reported with all its words."""
    assert errors(f"log: {{level: {text}}}") == [(1, 14, "log.level", message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yes", '"yes" is text: write true or false'),
        ("'false'", "is text because of the quotes: write false without quotes"),
        ("'no'", '"no" is text: write true or false'),
        ("0", "0 is a number: write true or false"),
        ("[]", "is a list: write true or false"),
        ("null", "has no value: write one or remove the key"),
    ],
)
def test_a_truth_value_is_true_or_false(text: str, message: str) -> None:
    """The words of YAML 1.1, and what is true in some languages, are not guessed at."""
    assert errors(f"guard: {{loop_breaker: {text}}}") == [(1, 23, "guard.loop_breaker", message)]


@pytest.mark.parametrize(
    "key",
    ["listeners", "access", "guard", "limits", "workers", "udp", "tcp", "drain_timeout_seconds", "log"],
)
def test_a_key_with_nothing_behind_its_colon_is_pointed_at(key: str) -> None:
    """It may be half an edit: whether the default was meant is not for echod to guess."""
    assert errors(f"\n{key}:\n") == [(2, 1, key, "has no value: write one or remove the key")]


@pytest.mark.parametrize(("text", "kind"), [("5", "5 is a number"), ("x", '"x" is text'), ("[]", "is a list")])
def test_a_section_must_be_keys_and_values(text: str, kind: str) -> None:
    """A value where a section belongs is reported as what it is."""
    assert errors(f"udp: {text}") == [(1, 6, "udp", f"{kind}: write keys and values, indented below this key")]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("worker: 2", (1, 1, "worker"), 'unknown key; did you mean "workers"?'),
        ("tcp:\n  max_connection: 5", (2, 3, "tcp.max_connection"), 'unknown key; did you mean "max_connections"?'),
        ("level: info", (1, 1, "level"), "unknown key here; it belongs below log"),
        ("udp: {workers: 2}", (1, 7, "udp.workers"), "unknown key here; it belongs to the top level"),
        ("udp: {log: {level: 1}}", (1, 7, "udp.log"), "unknown key here; it belongs to the top level"),
        ("access: {disallow: [any]}", (1, 10, "access.disallow"), "unknown key; the keys here are allow, deny"),
        ("access: {alow: [any]}", (1, 10, "access.alow"), "unknown key; the keys here are allow, deny"),
        ("guard: {slip: 1}", (1, 9, "guard.slip"), "unknown key here; it belongs below limits"),
        ("log: {color: 1}", (1, 7, "log.color"), "unknown key; the keys here are level, format"),
        (
            "'': 1",
            (1, 1, ""),
            (
                "unknown key; the keys here are listeners, access, guard, limits, workers, user, udp, tcp, "
                "drain_timeout_seconds, log, status, metrics"
            ),
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_likely_one(text: str, place: tuple[int, int, str], message: str) -> None:
    """The key is pointed at, not its value; a key that belongs elsewhere is sent there."""
    assert errors(text) == [(*place, message)]


def test_a_mistake_in_a_list_of_a_section_is_reported_at_its_item() -> None:
    """What is listed twice is reported with the line of the first; a mistake of one item keeps its own sentence."""
    assert errors("guard:\n  refuse_source_ports:\n    - 1\n    - x\n    - 1\n") == [
        (4, 7, "guard.refuse_source_ports[1]", "is text: write a whole number from 1 to 65535"),
        (5, 7, "guard.refuse_source_ports[2]", "1 is already listed, line 3: remove one of them"),
    ]
