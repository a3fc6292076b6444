"""The config: pydantic models, defaults, bounds, and every mistake in a sentence.

Owns what each key of /etc/echod.yaml may be and what it is when it is not there. It reads no file and knows no host:
whether an address exists or a CPU is there is found out by those who open and start. Invariant: a `Config` that
exists is within its bounds, and what `parse_config` raises is ConfigError with every mistake at its line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from echod.core.document import Document, Path, Place, dotted, kind_of, plain, read, shown
from echod.core.errors import ConfigError, Mistake
from echod.core.listener import MAX_LISTENERS, Listener, ListenerRange, Protocol, find_overlaps, parse_listener

_SIZES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE_WANTED = "a size from 4 KiB to 1 GiB, such as 8 MiB"
_SIZE_DIGITS = 20  # beyond any bound, and below the 4,300 digits at which int() raises
_SMALL_BUFFER = 128 * 1024
_LONG_DRAIN_SECONDS = 60
_OUT_OF_BOUNDS = frozenset({"greater_than_equal", "less_than_equal"})
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


def _parse_size(value: object) -> object:
    """Turn text such as `8 MiB` into bytes, and leave all else to pydantic."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]+) *([A-Za-z]*)", value)
    if found and found[2] in _SIZES:
        return int(found[1][:_SIZE_DIGITS]) * _SIZES[found[2]]
    if found and re.fullmatch(r"[kmg](i?b)?", found[2], re.IGNORECASE):
        unit = f"{found[2][0].upper()}iB"
        raise _sentence(f'"{shown(found[2])}" is no unit here: write {shown(found[1])} {unit}')
    raise _sentence(f'"{shown(value)}" is no size: write {_SIZE_WANTED}')


def _parse_listeners(value: object) -> object:
    """Turn a list of texts into listeners, and leave all else to pydantic. Errors carry the index of the text."""
    if not isinstance(value, list):
        return value
    if not value:
        raise _sentence("the list is empty: write at least one listener, such as udp://0.0.0.0:7")
    ranges: dict[int, ListenerRange] = {}
    errors: dict[int, PydanticCustomError] = {}
    total = 0
    for index, text in enumerate(value):
        try:
            parsed = _parse_listener(text)
        except ValueError as error:
            errors[index] = _sentence(str(error))
            continue
        total += len(parsed)
        if total <= MAX_LISTENERS:
            ranges[index] = parsed
        elif total - len(parsed) <= MAX_LISTENERS:
            errors[index] = _sentence(f"brings the listeners to {total:,}: at most {MAX_LISTENERS:,} are allowed")
    for index, overlap in find_overlaps(ranges).items():
        errors[index] = _sentence(str(overlap), other_index=overlap.other_index)
    if errors:
        details = [InitErrorDetails(type=e, loc=(i,), input=value[i]) for i, e in errors.items()]
        raise ValidationError.from_exception_data("listeners", details)
    return tuple(listener for parsed in ranges.values() for listener in parsed)


def _parse_listener(value: object) -> ListenerRange:
    if value is None:
        raise _sentence("is empty: write udp://ADDRESS:PORT or remove the dash")
    if not isinstance(value, str):
        raise _sentence(f"is {kind_of(value)}: write udp://ADDRESS:PORT, without a space after a colon")
    return parse_listener(value)


def _sentence(message: str, **context: object) -> PydanticCustomError:
    """Build an error whose sentence goes to the operator as it is; braces in it mean nothing."""
    return PydanticCustomError("sentence", "{message}", {"message": message, **context})


def _listeners(*texts: str) -> tuple[Listener, ...]:
    return tuple(listener for text in texts for listener in parse_listener(text))


def _whole_number(low: int, high: int) -> FieldInfo:
    """Bound a field. A description, here and below, is what stands after "write" in a mistake's sentence."""
    field: FieldInfo = Field(ge=low, le=high, description=f"a whole number from {low} to {high}")
    return field


_Size = Annotated[
    int,
    BeforeValidator(_parse_size),
    Field(ge=4 * 1024, le=1024**3, description=_SIZE_WANTED),
]
_Connections = Annotated[int, _whole_number(1, 65_536)]
_Timeout = Annotated[int, _whole_number(1, 86_400)]
_SECTION = Field(description="keys and values, indented below it")


class UdpConfig(BaseModel):
    """The UDP sockets: what the kernel may hold for each of them, in bytes."""

    model_config = _STRICT

    receive_buffer: _Size = 8 * 1024**2
    send_buffer: _Size = 8 * 1024**2


class TcpConfig(BaseModel):
    """The TCP connections. The limits hold over all workers; a source is an IPv4 address or an IPv6 /64."""

    model_config = _STRICT

    max_connections: _Connections = 1024
    max_connections_per_source: _Connections = 64
    idle_timeout_seconds: _Timeout = 300
    stall_timeout_seconds: _Timeout = 30


class LogConfig(BaseModel):
    """The log: from which level on, and in which form; `auto` is the journal where there is one."""

    model_config = _STRICT

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="debug, info, warning or error"),
    ] = "info"
    format: Annotated[
        Literal["auto", "journal", "console", "json"],
        Field(description="auto, journal, console or json"),
    ] = "auto"


class Config(BaseModel):
    """Everything that an operator can set. `workers: auto` is one for each CPU that the process may use."""

    model_config = _STRICT

    listeners: Annotated[
        tuple[Listener, ...],
        BeforeValidator(_parse_listeners),
        Field(min_length=1, max_length=MAX_LISTENERS, description="a list, one listener a line, each after a dash"),
    ] = _listeners("udp://0.0.0.0:7", "udp://[::]:7", "tcp://0.0.0.0:7", "tcp://[::]:7")
    workers: Annotated[
        Annotated[int, Field(ge=1, le=64)] | Literal["auto"],
        Field(description="auto or a whole number from 1 to 64"),
    ] = "auto"
    udp: Annotated[UdpConfig, _SECTION] = UdpConfig()
    tcp: Annotated[TcpConfig, _SECTION] = TcpConfig()
    drain_timeout_seconds: Annotated[int, _whole_number(0, 3_600)] = 10
    log: Annotated[LogConfig, _SECTION] = LogConfig()


FIRST_TRY = Config(
    listeners=_listeners("udp://127.0.0.1:7007", "udp://[::1]:7007", "tcp://127.0.0.1:7007", "tcp://[::1]:7007"),
)
"""What runs where there is no file: on this host alone, and on a port that needs no privilege."""

_MODELS: Mapping[str, type[BaseModel]] = {"": Config, "udp": UdpConfig, "tcp": TcpConfig, "log": LogConfig}


def parse_config(data: bytes) -> tuple[Config, tuple[Mistake, ...]]:
    """Read the bytes of a config file. Returns the config, and warnings of what is legal but unreasonable.

    Raises ConfigError, and nothing else, with every mistake ordered by line and column.
    """
    document = read(data)
    try:
        config = Config.model_validate(document.value)
    except ValidationError as error:
        raise ConfigError(_in_order(_mistakes(error, document))) from None
    return config, _in_order(_warnings(config, document))


def _in_order(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    return tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column)))


def _mistakes(error: ValidationError, document: Document) -> Iterator[Mistake]:
    """Say in an operator's words what pydantic found. It names the place; the words come from the value there."""
    found: dict[Path, dict[str, ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        # Beyond the depth of the models a location names the branches of a union, which are one value's mistake.
        depth = 2 if details["loc"][0] in (*_MODELS, "listeners") else 1
        found.setdefault(details["loc"][:depth], {})[details["type"]] = details
    for path, by_type in found.items():
        place = document.places[path]
        spot = place.spot
        if "extra_forbidden" in by_type:
            spot, message = place.key_spot, _explain_unknown(path)
        elif "sentence" in by_type:
            message = _complete(by_type["sentence"]["ctx"], document)
        else:
            message = _explain(path, place, by_type)
        yield Mistake(line=spot[0], column=spot[1], path=dotted(path), message=message)


def _complete(context: Mapping[str, Any], document: Document) -> str:
    """Add to a sentence about two listeners the line of the other one."""
    message = str(context["message"])
    if "other_index" not in context:
        return message
    line, _ = document.places["listeners", context["other_index"]].spot
    return f"{message}, line {line}: remove one of them"


def _explain_unknown(path: Path) -> str:
    key, here = str(path[-1]), str(path[0]) if len(path) > 1 else ""
    for section, model in _MODELS.items():
        if key in model.model_fields:
            return f"unknown key here; it belongs {'below ' + section if section else 'to the top level'}"
    keys = list(_MODELS[here].model_fields)
    if close := get_close_matches(key, keys, n=1):
        return f'unknown key; did you mean "{close[0]}"?'
    return f"unknown key; the keys here are {', '.join(keys)}"


def _explain(path: Path, place: Place, by_type: Mapping[str, ErrorDetails]) -> str:
    value = next(iter(by_type.values()))["input"]
    text = shown(place.text)
    if value is None:
        return "has no value: write one or remove the key"
    if _OUT_OF_BOUNDS & by_type.keys():
        fault = f"{text} is out of bounds"
    elif isinstance(value, list | dict):
        fault = f"is {kind_of(value)}"
    elif not isinstance(value, str):
        fault = f"{text} is {kind_of(value)}"
    elif "int_type" not in by_type:
        fault = f'"{text}" is not known' if "literal_error" in by_type else f'"{text}" is text'
    elif place.is_quoted and type(plain(value)) is int:
        return f"is text because of the quotes: write {text} without quotes"
    elif re.fullmatch(r"0+[1-9][0-9]*", value):
        return f"{text} begins with a zero: write {shown(value.lstrip('0'))}"
    else:
        fault = f'"{text}" is no number'
    here = str(path[0]) if len(path) > 1 else ""
    return f"{fault}: write {_MODELS[here].model_fields[str(path[-1])].description}"


def _warnings(config: Config, document: Document) -> Iterator[Mistake]:
    for paths, message in _find_unreasonable(config, document):
        # The defaults are reasonable together, so the file sets at least one of the keys.
        path = next(path for path in paths if path in document.places)
        line, column = document.places[path].key_spot
        yield Mistake(line=line, column=column, path=dotted(path), message=message)


def _find_unreasonable(config: Config, document: Document) -> Iterator[tuple[tuple[Path, ...], str]]:
    """Yield each warning with the keys that it is about, the one to point at first."""
    udp, tcp = config.udp, config.tcp
    for key, size in (("receive_buffer", udp.receive_buffer), ("send_buffer", udp.send_buffer)):
        if size < _SMALL_BUFFER:
            yield (("udp", key),), "below 128 KiB it cannot hold two datagrams of full length: bursts will be lost"
    if document.value.get("tcp") and not any(one.protocol is Protocol.TCP for one in config.listeners):
        yield (("tcp",),), "no tcp:// listener is configured, so these settings have no effect"
    if tcp.max_connections_per_source > tcp.max_connections:
        paths: tuple[Path, ...] = (("tcp", "max_connections_per_source"), ("tcp", "max_connections"))
        yield (
            paths,
            (
                f"max_connections_per_source ({tcp.max_connections_per_source:,}) is more than "
                f"max_connections ({tcp.max_connections:,}): a single source can take every connection"
            ),
        )
    if tcp.stall_timeout_seconds > tcp.idle_timeout_seconds:
        paths = (("tcp", "stall_timeout_seconds"), ("tcp", "idle_timeout_seconds"))
        yield (
            paths,
            (
                f"stall_timeout_seconds ({tcp.stall_timeout_seconds:,}) is more than "
                f"idle_timeout_seconds ({tcp.idle_timeout_seconds:,}): a stalled connection is closed as idle first"
            ),
        )
    if config.drain_timeout_seconds > _LONG_DRAIN_SECONDS:
        seconds = config.drain_timeout_seconds
        yield (("drain_timeout_seconds",),), f"systemctl stop can take as long as this, {seconds:,} seconds"
