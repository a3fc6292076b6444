"""echod.config.diagnostics: how mistakes and warnings are shown to an operator."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echod.config.diagnostics import in_order, render, report, shown
from echod.errors import Mistake


def test_text_in_a_sentence_is_short_and_on_one_line() -> None:
    """What does not print is escaped, and 60 characters are enough."""
    assert shown("8 MiB") == "8 MiB"
    assert shown("a\n\x1b\ud800\u202e") == "a\\n\\x1b\\ud800\\u202e"
    assert shown("x" * 60) == "x" * 60
    assert shown("x" * 61) == "x" * 60 + "..."


def at(line: int, column: int, path: str = "") -> Mistake:
    """Make a mistake at a place."""
    return Mistake(line=line, column=column, path=path, message="wrong")


def test_mistakes_are_ordered_by_line_and_column() -> None:
    """As somebody reads who repairs a file from top to bottom."""
    assert in_order([at(2, 1), at(1, 12), at(1, 3)]) == (at(1, 3), at(1, 12), at(2, 1))


def test_a_mistake_is_shown_above_its_line_and_a_caret() -> None:
    """The form is the one of compilers, which editors can jump by; the caret stands under the column."""
    text = "a: 1\r\nb: 22\r\n"
    assert render([at(1, 1), at(2, 4, "b")], kind="error", file="/etc/echod.yaml", text=text) == (
        "/etc/echod.yaml:1:1: error: wrong\na: 1\n^\n/etc/echod.yaml:2:4: error: b: wrong\nb: 22\n   ^"
    )


def test_the_caret_counts_what_an_encoding_has_not_as_it_is_written() -> None:
    """Where a terminal has no such character it is written out, and the caret moves with it."""
    found = render([at(1, 4)], kind="error", file="f", text="\u00fc: x", encoding="ascii")
    assert found == "f:1:4: error: wrong\n\\xfc: x\n      ^"


def test_a_warning_says_that_it_is_one() -> None:
    """Errors and warnings differ in one word only."""
    assert render([at(1, 1)], kind="warning", file="f", text="a") == "f:1:1: warning: wrong\na\n^"


def test_no_mistakes_are_no_text() -> None:
    """Nothing to show is the empty text."""
    assert render([], kind="error", file="f", text="a") == ""


@pytest.mark.parametrize(("text", "line"), [("", 1), ("a\n\n", 2), ("a\n  \n", 2), ("a", 9)])
def test_a_line_with_nothing_to_see_is_left_out(text: str, line: int) -> None:
    """A caret under nothing helps nobody, and a line that is not there cannot be shown."""
    assert render([at(line, 1)], kind="error", file="f", text=text) == f"f:{line}:1: error: wrong"


def lines_of(text: str, column: int) -> tuple[str, str]:
    """Show a mistake in the first line of a text, and return source line and caret line."""
    _, source, caret = render([at(1, column)], kind="error", file="f", text=text).split("\n")
    return source, caret


def test_the_caret_stands_right_under_escapes_wide_and_combining_characters() -> None:
    """Escapes take as many columns as they are written with, wide characters two, accents none."""
    assert lines_of("\ta\x1b!", 4) == ("\\ta\\x1b!", "       ^")
    assert lines_of("日本: x", 5) == ("日本: x", "      ^")
    assert lines_of("e\u0301: x", 5) == ("e\u0301: x", "   ^")


def test_the_file_name_cannot_move_the_cursor() -> None:
    """Whatever a file is called, its name prints on one line."""
    assert render([at(1, 1)], kind="error", file="a\nb", text="") == "a\\nb:1:1: error: wrong"


def test_a_long_line_is_cut_around_the_caret() -> None:
    """Sixty characters on either side are shown, and dots where the line goes on."""
    text = "x" * 200 + "!" + "y" * 200
    assert lines_of(text, 201) == ("..." + "x" * 60 + "!" + "y" * 59 + "...", " " * 63 + "^")
    assert lines_of(text, 1) == ("x" * 60 + "...", "^")
    assert lines_of(text, 402) == ("..." + "y" * 60, " " * 63 + "^")
    assert lines_of("x" * 60 + "!", 61) == ("x" * 60 + "!", " " * 60 + "^")


def test_a_report_has_every_mistake_and_their_count() -> None:
    """One is `1 mistake`; bytes that are not UTF-8 are shown as the replacement character."""
    shown = report((at(1, 1),), file="f", text=b"a\xff", encoding="utf-8")
    assert shown == "f:1:1: error: wrong\na\N{REPLACEMENT CHARACTER}\n^\nf: 1 mistake"
    assert report((at(9, 1), at(9, 2)), file="f", text=b"", encoding="utf-8").endswith("\nf: 2 mistakes")


@settings(deadline=None)
@given(
    line=st.integers(1, 9),
    column=st.integers(1, 200),
    text=st.text(st.characters(exclude_categories=())),
    path=st.text(st.characters(exclude_categories=())).map(shown),
)
def test_any_mistake_in_any_text_can_be_shown(line: int, column: int, text: str, path: str) -> None:
    """Even a place outside the text, or a text that no encoding can write, prints as one to three lines."""
    answer = render([at(line, column, path)], kind="error", file="f", text=text)
    assert len(answer.split("\n")) in {1, 3}
    assert answer.replace("\n", "").isprintable()
    answer.encode()
