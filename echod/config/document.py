"""YAML text to values, each with its line and column; all mistakes are reported at once.

Owns the subset of YAML that echod reads: UTF-8, one document, one mapping of text keys, the scalars of the YAML 1.2
core schema (https://yaml.org/spec/1.2.2/#103-core-schema), no anchors, aliases, tags or merge keys. It never opens a
file and knows no key of the config. Invariant: for any input, `read` returns a document without mistakes or raises
ConfigError, and nothing else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import yaml

from echod.config.diagnostics import in_order, shown
from echod.errors import ConfigError, Mistake

Path: TypeAlias = tuple[str | int, ...]
Spot: TypeAlias = tuple[int, int]  # line and column, each from 1
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

MAX_BYTES = 64 * 1024  # 1,024 listeners with a comment each need less; PyYAML takes a second for this much
MAX_DEPTH = 16  # the config needs three; deeper nesting is garbage, or an attack on the stack

_INTEGER_CHARACTERS = 40  # beyond any bound, and below the 4,300 digits at which int() raises

# What the YAML specification calls not printable, and the line breaks that only YAML 1.1 knows: without those, a line
# here is a line in every editor. A carriage return is allowed only before a line feed.
_FORBIDDEN = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
)

_CORE_SCHEMA: tuple[tuple[str, Callable[[str], Value]], ...] = (
    (r"null|Null|NULL|~|", lambda _: None),
    (r"true|True|TRUE", lambda _: True),
    (r"false|False|FALSE", lambda _: False),
    # Stricter than the schema: 017 is 15 in YAML 1.1 and 17 in 1.2, so here it is text, and then refused.
    (r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text[:_INTEGER_CHARACTERS], 0)),
    (r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)

# PyYAML's message, as "context: problem", and the message for the operator: pointing to where the construct opens, or
# else to the problem. The first that is found counts, those of openings before the others.
_AT_OPENING = {
    r"could not find expected ':'": "this line is not a setting: write KEY: VALUE, with a space after the colon",
    r"expected ',' or '(.)', but got '<(?:stream|document) ": "the bracket that opens here is not closed: write "
    '"{0}" after the last item',
    r"expected ',' or '(.)', but got": 'a comma or the closing "{0}" is missing after this bracket; a value that '
    "contains brackets needs quotes",
    r"quoted scalar.*(?:end of stream|separator|'\\x00')": "this quote is not closed",
    r"an (?:alias|anchor)": 'a value cannot begin with "*" or "&": put such a value in quotes',
    r"a directive|YAML d|duplicate tag": "lines that begin with % are not allowed: remove it",
    r"a tag|tag handle": 'a value cannot begin with "!": put such a value in quotes',
}
_AT_PROBLEM = {
    r"found character '\\t'": "there is a tab here: YAML requires spaces",
    r"found character ('.+') that": "{0} cannot begin a value: put the value in quotes",
    r"mapping values are not allowed": 'unexpected colon: is the line indented too deep, a ": " missing above, or a '
    "value not in quotes?",
    r"sequence entries": "a list item is not allowed here: write each item on its own line, below its key",
    r"node content, but found '<(?:stream|document) ": "the file ends inside a bracket: close it",
    r"found unknown escape character ('.+')": "{0} is not an escape sequence in double quotes: write \\\\ for a "
    "backslash, or use single quotes",
    r"block end>, but found '<scalar>'": "this text follows a value that has already ended",
    r"block end>, but found '-'": "a list item is not allowed here: indent it below its key",
    r"block end>|document start>": "the indentation of this line matches no line above it",
    r"content, but found ':'": 'a value is missing before this ":"; a value that begins with ":" needs quotes here',
    r"node content, but found ('.+')": "a value is missing before this {0}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a value, the place of its key (a list item is its own key), and how a scalar is written."""

    spot: Spot
    key_spot: Spot
    text: str = ""
    is_quoted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The settings of a file, and the place of every value by its path: `()`, `("udp",)`, `("listeners", 2)`."""

    value: dict[str, Value]
    places: Mapping[Path, Place]


def read(data: bytes) -> Document:
    """Read the bytes of a config file. Raises ConfigError with every mistake that is visible in the YAML alone."""
    text = _decode(data)
    # The pure Python parser: libyaml's is faster, but recurses on the C stack before the depth can be checked.
    loader = yaml.SafeLoader(text)
    composer = _Composer()
    try:
        for event in iter(loader.get_event, None):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        composer.mistakes.append(_reword(error))
    except (ValueError, OverflowError):
        # PyYAML passes its input to chr() and int() unchecked: "\UFFFFFFFF", or a version of 5,000 digits.
        spot = _spot(loader.get_mark())
        composer.mistakes.append(mistake_at(spot, (), "the number here is too large: correct or remove it"))
    return composer.finish()


def kind_of(value: object) -> str:
    """Name the kind of a value in an operator's words, such as `a list`."""
    kinds = {bool: "a boolean", int: "a number", float: "a decimal number", str: "text", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a mapping")


def plain(text: str) -> Value:
    """Return the value of a scalar without quotes in the YAML 1.2 core schema."""
    return next((convert(text) for pattern, convert in _CORE_SCHEMA if re.fullmatch(pattern, text)), text)


def dotted(path: Path) -> str:
    """Write a path as an operator reads it: `tcp.max_connections`, `listeners[2]`, empty for the whole file."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def mistake_at(spot: Spot, path: Path, message: str) -> Mistake:
    """Return a mistake, or a warning, at a place of the file."""
    return Mistake(line=spot[0], column=spot[1], path=dotted(path), message=message)


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _refusal("", f"the file is longer than {MAX_BYTES:,} bytes, the maximum for a config")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refusal("", "the file is UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise _refusal(before, f"the byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8") from None
    if text.startswith("\ufeff"):
        raise _refusal("", "the file begins with a byte order mark: save it as UTF-8 without one")
    if found := _FORBIDDEN.search(text):
        hint = "save the file as UTF-8, not UTF-16" if found[0] == "\0" else "remove it"
        raise _refusal(text[: found.start()], f"the character U+{ord(found[0]):04X} is not allowed: {hint}")
    return text


def _refusal(before: str, message: str) -> ConfigError:
    """Build the error for a text that cannot be read beyond `before`."""
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return ConfigError((mistake_at((line, column), (), message),))


def _reword(error: yaml.MarkedYAMLError) -> Mistake:
    """Translate a message of PyYAML into an operator's terms; keep its own in rare cases."""
    message = f"{error.context}: {error.problem}"
    for sentences, mark in ((_AT_OPENING, error.context_mark), (_AT_PROBLEM, error.problem_mark)):
        for pattern, sentence in sentences.items():
            if found := re.search(pattern, message):
                return mistake_at(_spot(mark or error.problem_mark), (), sentence.format(*found.groups()))
    return mistake_at(_spot(error.problem_mark), (), shown(f"{error.problem}"))


class _Mark(Protocol):
    line: int
    column: int


def _spot(mark: _Mark | None) -> Spot:
    """Return line and column from 1; PyYAML counts from 0. Its parser always sets a mark; its types allow None."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


@dataclass(slots=True, kw_only=True)
class _Collection:
    """A list or mapping being filled; `key` is the key of a mapping whose value comes next."""

    path: Path
    value: list[Value] | dict[str, Value]
    key: str | None = None
    key_spot: Spot = (1, 1)


class _Composer:
    """Builds values from PyYAML's events, one by one and without recursion; collects all mistakes."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._documents = 0
        self._root: Value = None
        self._places: dict[Path, Place] = {}
        self._open: list[_Collection] = []

    def take(self, event: yaml.Event) -> None:
        """Process the next event. Raises ConfigError, with every mistake so far, where no later one matters."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._take_document(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            parent = self._open[-1] if self._open else None
            if parent and isinstance(parent.value, dict) and parent.key is None:
                self._take_key(event, parent)
            else:
                self._take_value(event, parent)

    def finish(self) -> Document:
        """Return the document. Raises ConfigError with every mistake, if there is one."""
        if self.mistakes:
            raise ConfigError(in_order(self.mistakes))
        if self._root is None:
            raise _refusal("", "the file contains no settings: write at least one, such as workers: auto")
        if not isinstance(self._root, dict):
            message = f"the file is {kind_of(self._root)}: write KEY: VALUE, with a space after the colon"
            raise ConfigError((mistake_at(self._places[()].spot, (), message),))
        return Document(value=self._root, places=self._places)

    def _take_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, (), "a second document begins here: a config is a single document, remove this line")
            self.finish()  # raises
        elif event.version or event.tags:
            self._refuse(event, (), "lines that begin with % are not allowed: remove it")

    def _take_key(self, event: yaml.NodeEvent, parent: _Collection) -> None:
        key = self._begin(event, parent.path)
        if not isinstance(key, str):
            self._refuse(event, parent.path, f"a key must be text, not {kind_of(key)}")
            key = "?"  # its value is still checked, but never used
        elif key == "<<":
            self._refuse(event, parent.path, "merge keys (<<) are not allowed: write the settings themselves")
        elif key in parent.value:
            path = (*parent.path, key)
            self._refuse(event, path, f"this key is already in line {self._places[path].key_spot[0]}: remove one")
        parent.key, parent.key_spot = key, _spot(event.start_mark)

    def _take_value(self, event: yaml.NodeEvent, parent: _Collection | None) -> None:
        spot = key_spot = _spot(event.start_mark)
        path: Path = ()
        if parent is None:
            self._root = self._begin(event, path)
        elif isinstance(parent.value, list):
            path = (*parent.path, len(parent.value))
            parent.value.append(self._begin(event, path))
        else:
            key, parent.key, key_spot = parent.key or "", None, parent.key_spot
            path = (*parent.path, key)
            parent.value[key] = self._begin(event, path)
        text, style = (event.value, event.style) if isinstance(event, yaml.ScalarEvent) else ("", "")
        if style is None and not text:
            spot = key_spot  # there is no value: point at its key
        place = Place(spot=spot, key_spot=key_spot, text=text, is_quoted=style in ("'", '"'))
        self._places.setdefault(path, place)  # the first of duplicate keys

    def _begin(self, event: yaml.NodeEvent, path: Path) -> Value:
        """Return the value that an event begins; later events fill a list or mapping.

        Raises ConfigError at once if the nesting is too deep: such a file is not a config, so no other mistake matters.
        """
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, path, "aliases (*name) are not allowed: write the value itself")
        elif event.anchor:
            self._refuse(event, path, "anchors (&name) are not allowed: write the value alone")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            self._refuse(event, path, "tags (!name) are not allowed: write the value alone")
        if isinstance(event, yaml.ScalarEvent):
            if found := _FORBIDDEN.search(event.value):
                self._refuse(event, path, f"the character U+{ord(found[0]):04X} is not allowed: remove it")
            return plain(event.value) if event.style is None else event.value
        if not isinstance(event, yaml.CollectionStartEvent):
            return None
        value: list[Value] | dict[str, Value] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self._open.append(_Collection(path=path, value=value))
        if len(self._open) > MAX_DEPTH:
            message = f"lists and mappings are nested more than {MAX_DEPTH} levels deep here"
            raise ConfigError((mistake_at(_spot(event.start_mark), (), message),))
        return value

    def _refuse(self, event: yaml.Event, path: Path, message: str) -> None:
        self.mistakes.append(mistake_at(_spot(event.start_mark), path, message))
