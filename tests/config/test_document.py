"""echod.config.document: YAML to values with their places, or every mistake in it."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.config_mistakes import Found, errors, hold_to_the_text

from echod.config.document import MAX_BYTES, MAX_DEPTH, Document, Place, dotted, kind_of, plain, read
from echod.errors import ConfigError


def mistakes(data: str | bytes) -> Found:
    """Read what must be refused, and return line, column, path and message of each mistake."""
    return errors(data, read)


def test_values_come_with_their_lines_and_columns() -> None:
    """Each value has the place of its own and of its key; a list item is its own key."""
    assert read(b"---\nudp:\n  size: '8'\nall: [1, b]\nnone:\n") == Document(
        value={"udp": {"size": "8"}, "all": [1, "b"], "none": None},
        places={
            (): Place(spot=(2, 1), key_spot=(2, 1)),
            ("udp",): Place(spot=(3, 3), key_spot=(2, 1)),
            ("udp", "size"): Place(spot=(3, 9), key_spot=(3, 3), text="8", is_quoted=True),
            ("all",): Place(spot=(4, 6), key_spot=(4, 1)),
            ("all", 0): Place(spot=(4, 7), key_spot=(4, 7), text="1"),
            ("all", 1): Place(spot=(4, 10), key_spot=(4, 10), text="b"),
            ("none",): Place(spot=(5, 1), key_spot=(5, 1)),
        },
    )


def test_a_null_that_is_written_has_a_place_of_its_own() -> None:
    """Only a value that is not there is pointed at by its key."""
    assert read(b"a: ~").places[("a",)] == Place(spot=(1, 4), key_spot=(1, 1), text="~")


def test_an_empty_mapping_is_a_document() -> None:
    """`{}` means on purpose what an empty file may mean by accident."""
    assert read(b"{}").value == {}


def test_lines_may_end_as_on_windows_and_hold_any_script() -> None:
    """A carriage return before a line feed counts for nothing; columns are characters, not bytes."""
    document = read("a: ü\r\nb: {c: é, d: 日}\r\n".encode())
    assert document.value == {"a": "ü", "b": {"c": "é", "d": "日"}}
    assert document.places["b", "d"].spot == (2, 14)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, text) for text in ("yes", "no", "on", "off", "y", "tRUE", "nULL")),
        *((text, text) for text in ("017", "-017", "0b1", "1_000", "7:30", "2024-01-01", "=", "0x", "1.2.3", ".")),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("0o17", 15),
        ("0xfF", 255),
        ("1.5", 1.5),
        ("-.5e1", -5.0),
        ("1.", 1.0),
        ("2e3", 2000.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_scalars_are_those_of_the_yaml_1_2_core_schema(text: str, value: object) -> None:
    """What YAML 1.1 made a number or a boolean by surprise is text; 017 is text, for it has two readings."""
    answer = plain(text)
    assert answer == value
    assert type(answer) is type(value)
    assert read(f"a: {text}".encode()).value == {"a": value}


def test_not_a_number_is_a_number() -> None:
    """`.nan` is a float of the core schema, and equal to nothing."""
    answer = plain(".nan")
    assert isinstance(answer, float)
    assert math.isnan(answer)


def test_a_number_of_any_length_is_read() -> None:
    """More digits than int() takes stay a number, far beyond every bound."""
    answer = plain("9" * 5000)
    assert isinstance(answer, int)
    assert answer > 10**30


@pytest.mark.parametrize("text", ["'true'", '"1"', "|-\n  1", ">-\n  1"])
def test_only_a_plain_scalar_is_anything_but_text(text: str) -> None:
    """Quotes and block scalars make text of whatever they hold."""
    assert isinstance(read(f"a: {text}".encode()).value["a"], str)


@pytest.mark.parametrize(
    ("data", "mistake"),
    [
        (b"a: b\nc: \xff", (2, 4, "", "the byte 0xff is not UTF-8: save the file as UTF-8")),
        ("ü: ".encode() + b"\xc3", (1, 4, "", "the byte 0xc3 is not UTF-8: save the file as UTF-8")),
        ("a: 1".encode("utf-16"), (1, 1, "", "the file is UTF-16: save it as UTF-8")),
        (b"\xfe\xff\0a", (1, 1, "", "the file is UTF-16: save it as UTF-8")),
        (b"a\0:\0", (1, 2, "", "the character U+0000 is not allowed: save the file as UTF-8, not UTF-16")),
        ("\ufeffa: 1".encode(), (1, 1, "", "the file begins with a byte order mark: save it as UTF-8 without one")),
        (b"a: 1\nb: \x1b[0m", (2, 4, "", "the character U+001B is not allowed: remove it")),
        (b"a: 1\rb: 2", (1, 5, "", "the character U+000D is not allowed: remove it")),
        ("a: \u2028".encode(), (1, 4, "", "the character U+2028 is not allowed: remove it")),
        ("a: \x85".encode(), (1, 4, "", "the character U+0085 is not allowed: remove it")),
        ("a: b\ufeff".encode(), (1, 5, "", "the character U+FEFF is not allowed: remove it")),
        ("a: \uffff".encode(), (1, 4, "", "the character U+FFFF is not allowed: remove it")),
        (b'a: "\\0"', (1, 4, "a", "the character U+0000 is not allowed: remove it")),
        (b'a: "\\ud800"', (1, 4, "a", "the character U+D800 is not allowed: remove it")),
    ],
)
def test_what_is_not_printable_utf_8_is_refused_at_its_place(data: bytes, mistake: tuple[int, int, str, str]) -> None:
    """Wrong encodings and control characters, written or escaped, are one mistake with one sentence."""
    assert mistakes(data) == [mistake]


def test_a_file_that_is_too_long_is_not_read() -> None:
    """At 64 KiB reading ends: one mistake, whatever the rest holds."""
    assert read(b"a: 1\n".ljust(MAX_BYTES)).value == {"a": 1}
    assert mistakes(b"[" * 1_000_000) == [
        (1, 1, "", "the file is longer than 65,536 bytes, the maximum for a config"),
    ]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "{"])
def test_deep_nesting_is_one_mistake(opening: str) -> None:
    """Nesting is counted before anything can recurse, and is the only mistake reported."""
    at = MAX_DEPTH * len(opening) + 1
    message = "lists and mappings are nested more than 16 levels deep here"
    assert mistakes((opening * MAX_BYTES)[: MAX_BYTES - 1]) == [(1, at, "", message)]


def test_sixteen_levels_are_read() -> None:
    """As many as the message states."""
    levels = MAX_DEPTH - 1
    assert read(f"a: {'[' * levels}{']' * levels}".encode()).places[("a", *[0] * (levels - 1))]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~", "\n\n"])
def test_a_file_without_settings_is_refused(text: str) -> None:
    """A file that was emptied by accident must not turn into a daemon with all defaults."""
    sentence = "the file contains no settings: write at least one, such as workers: auto"
    assert mistakes(text) == [(1, 1, "", sentence)]


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [("\n- 1", "a list", 2), ("workers:4", "text", 1), ("7", "a number", 1), ("# x\n\n[]", "a list", 3)],
)
def test_a_file_must_be_keys_and_values(text: str, kind: str, line: int) -> None:
    """A list or a single value at the top is reported by its kind, and so is a colon without its space."""
    message = f"the file is {kind}: write KEY: VALUE, with a space after the colon"
    assert mistakes(text) == [(line, 1, "", message)]


def test_everything_that_yaml_can_do_and_a_config_must_not_is_reported_at_once() -> None:
    """Anchors, aliases, tags, merge and double keys, keys that are no text: each at its own line, by line."""
    text = "a: &x 1\nb: *x\nc: !!int '1'\n<<: {d: 1}\na: 2\n7: {c: 1, c: 2}\n? [e]\n: 1\nf: !t [&y {g: 1}]\na: 3\n"
    assert mistakes(text) == [
        (1, 4, "a", "anchors (&name) are not allowed: write the value alone"),
        (2, 4, "b", "aliases (*name) are not allowed: write the value itself"),
        (3, 4, "c", "tags (!name) are not allowed: write the value alone"),
        (4, 1, "", "merge keys (<<) are not allowed: write the settings themselves"),
        (5, 1, "a", "this key is already in line 1: remove one"),
        (6, 1, "", "a key must be text, not a number"),
        (6, 11, "?.c", "this key is already in line 6: remove one"),
        (7, 3, "", "a key must be text, not a list"),
        (9, 4, "f", "tags (!name) are not allowed: write the value alone"),
        (9, 8, "f[0]", "anchors (&name) are not allowed: write the value alone"),
        (10, 1, "a", "this key is already in line 1: remove one"),
    ]


def test_a_second_document_is_refused_where_it_begins() -> None:
    """Nothing after its line is looked at."""
    assert mistakes("a: 1\n---\na: &x 1\n") == [
        (2, 1, "", "a second document begins here: a config is a single document, remove this line"),
    ]


@pytest.mark.parametrize("directive", ["%YAML 1.1", "%TAG ! x", "%YAML 2.0", "%TAG ! x\n%TAG ! x", "%YAML x"])
def test_directives_are_refused(directive: str) -> None:
    """A directive could only make the file mean something else than it says."""
    (mistake,) = mistakes(f"{directive}\n---\na: 1\n")
    assert mistake[3] == "lines that begin with % are not allowed: remove it"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a:\n\tb: 1", 2, 1, "there is a tab here: YAML requires spaces"),
        ("a:\t1", 1, 3, "there is a tab here: YAML requires spaces"),
        ("a: @x", 1, 4, "'@' cannot begin a value: put the value in quotes"),
        (
            "a: b: c",
            1,
            5,
            'unexpected colon: is the line indented too deep, a ": " missing above, or a value not in quotes?',
        ),
        ("a: - b", 1, 4, "a list item is not allowed here: write each item on its own line, below its key"),
        ("a: 1\nb\n", 2, 1, "this line is not a setting: write KEY: VALUE, with a space after the colon"),
        ("a: [1,\n  2", 1, 4, 'the bracket that opens here is not closed: write "]" after the last item'),
        ("a: {b: 1", 1, 4, 'the bracket that opens here is not closed: write "}" after the last item'),
        ("a: [", 1, 5, "the file ends inside a bracket: close it"),
        (
            "a: [udp://[::]:7]",
            1,
            4,
            'a comma or the closing "]" is missing after this bracket; a value that contains brackets needs quotes',
        ),
        ("a: 'x\nb: 1", 1, 4, "this quote is not closed"),
        ('a: "x\n---\n', 1, 4, "this quote is not closed"),
        ('a: "\\', 1, 4, "this quote is not closed"),
        (
            'a: "\\q"',
            1,
            6,
            "'q' is not an escape sequence in double quotes: write \\\\ for a backslash, or use single quotes",
        ),
        ('a: "b" c', 1, 8, "this text follows a value that has already ended"),
        ("a: 1\n- b", 2, 1, "a list item is not allowed here: indent it below its key"),
        ("a:\n  b: 1\n c: 2", 3, 2, "the indentation of this line matches no line above it"),
        ("  a: 1\nb: 2", 2, 1, "the indentation of this line matches no line above it"),
        ("a: }", 1, 4, "a value is missing before this '}'"),
        ("a: [::1]", 1, 5, 'a value is missing before this ":"; a value that begins with ":" needs quotes here'),
        ("a: *", 1, 4, 'a value cannot begin with "*" or "&": put such a value in quotes'),
        ("a: &", 1, 4, 'a value cannot begin with "*" or "&": put such a value in quotes'),
        ("a: !x!y z", 1, 4, 'a value cannot begin with "!": put such a value in quotes'),
        ("a: |x\n b", 1, 5, "expected chomping or indentation indicators, but found 'x'"),
        ('a: "\\Uffffffff"', 1, 7, "the number here is too large: correct or remove it"),
        ('a: "\\U00110000"', 1, 7, "the number here is too large: correct or remove it"),
        ("%YAML " + "1" * 5000 + ".1\n---\na: 1", 1, 7, "the number here is too large: correct or remove it"),
    ],
)
def test_a_syntax_mistake_is_reported_in_plain_words(text: str, line: int, column: int, message: str) -> None:
    """An operator reads what to do, at the place where to do it; only what is rare is in PyYAML's own words."""
    assert mistakes(text) == [(line, column, "", message)]


def test_what_stands_before_a_syntax_mistake_is_reported_with_it() -> None:
    """Where a file cannot be read on, the mistakes that were found are still reported."""
    assert [mistake[:2] for mistake in mistakes("a: &x 1\na: 2\n\tb: 1")] == [(1, 4), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "nothing"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a decimal number"),
        ("", "text"),
        ([], "a list"),
        ({}, "a mapping"),
    ],
)
def test_every_value_has_a_kind_in_plain_words(value: object, kind: str) -> None:
    """No Python type name reaches an operator."""
    assert kind_of(value) == kind


def test_paths_are_dotted() -> None:
    """Keys are joined by dots, indexes stand in brackets, and the file as a whole has no path."""
    assert dotted(()) == ""
    assert dotted(("tcp", "max_connections")) == "tcp.max_connections"
    assert dotted(("listeners", 2)) == "listeners[2]"
    assert dotted((".a\n",)) == ".a\\n"


# fmt: off
TOKENS = (
    "a: ", "b:\n", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "'", '"', "&x ", "*x", "!t ", "? ", "<<: ", "|",
    "---\n", "...\n", "%", "\t", "#", "1", "\r\n", "\\U", "\u00e9",
)
# fmt: on


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.lists(st.sampled_from(TOKENS)).map("".join).map(str.encode))
@example(b'"\\Uffffffff"')
@example(b"%YAML 1.1")
def test_any_bytes_are_a_document_or_mistakes_within_the_text(data: bytes) -> None:
    """Nothing but ConfigError comes out; every mistake can be pointed at, shown, and printed on a terminal."""
    try:
        assert isinstance(read(data).value, dict)
    except ConfigError as error:
        assert error.mistakes  # noqa: PT017 - whether it raises is what differs
        hold_to_the_text(error.mistakes, data)
