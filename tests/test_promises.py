"""PROMISES.md is true: each promise names a test that is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| (?!echod \||---)(.*?) \| (.*?) \|$", (TESTS / "PROMISES.md").read_text(), re.MULTILINE)


def test_each_promise_is_held_by_a_test_that_is_there() -> None:
    """The test named beside a promise is a function of the file named there, and no promise is without."""
    assert len(ROWS) > 20
    for promise, proof in ROWS:
        found = re.fullmatch(r"`([a-z0-9_/]+\.py)`: `(test_[a-z0-9_]+)`", proof)
        assert found, promise
        assert f"\ndef {found[2]}(" in (TESTS / found[1]).read_text(), promise


def test_no_promise_is_made_twice() -> None:
    """One row for each promise, and one test for each row."""
    assert len({promise for promise, _ in ROWS}) == len({proof for _, proof in ROWS}) == len(ROWS)
