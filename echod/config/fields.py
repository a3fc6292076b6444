"""Single values of the config: how an operator writes them, what they become, and the sentence if they are invalid.

Owns the types of the fields of `schema`, each with its bounds. It knows no key and no default. Invariant: a value is
within its bounds, or it is refused with a sentence that says what to write.
"""

import re
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, InstanceOf, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from echod.config import access
from echod.config.access import AccessEntry, parse_entry
from echod.config.diagnostics import shown
from echod.config.document import kind_of
from echod.net.listener import INTERFACE, MAX_PORT, WANTED_ENDPOINT, Endpoint, overlap, parse_endpoint

FROM_FILE = {"from_file": True}
"""The validation context of a file: an empty value is a mistake in a file, but None is valid in a config from code."""

SIZES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE_WANTED = "a size from 4 KiB to 1 GiB, such as 8 MiB"
_SIZE_DIGITS = 20  # beyond any bound, and below the 4,300 digits at which int() raises
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)

_Item = TypeVar("_Item")


def whole_number(low: int, high: int) -> FieldInfo:
    """Bound a field. A description, here and below, is what follows "write" in the sentence of a mistake."""
    field: FieldInfo = Field(ge=low, le=high, description=f"a whole number from {low} to {high}")
    return field


def entries(*texts: str) -> tuple[AccessEntry, ...]:
    """Parse a default written as in the file. Raises ValueError."""
    return tuple(map(parse_entry, texts))


def _parse_size(value: object) -> object:
    """Turn text such as `8 MiB` into bytes, and leave all else to pydantic."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]+) *([A-Za-z]*)", value)
    if found and found[2] in SIZES:
        return int(found[1][:_SIZE_DIGITS]) * SIZES[found[2]]
    if found and re.fullmatch(r"[kmg](i?b)?", found[2], re.IGNORECASE):
        unit = f"{found[2][0].upper()}iB"
        raise sentence(f'"{shown(found[2])}" is not a unit here: write {shown(found[1])} {unit}')
    raise sentence(f'"{shown(value)}" is not a size: write {_SIZE_WANTED}')


def _parse_endpoints(value: object, info: ValidationInfo) -> object:
    """Turn `off`, a URL or a list of URLs into endpoints. Errors in a list carry the index of the URL."""
    refuse_empty(value, info)
    if value is None or value == "off":
        return ()
    if isinstance(value, Endpoint | tuple):
        return value if isinstance(value, tuple) else (value,)
    if not isinstance(value, list):
        try:
            return (parse_endpoint(text_of(value, f"write off or {WANTED_ENDPOINT}")),)
        except ValueError as error:
            raise sentence(str(error)) from None
    if not value:
        raise sentence(f"the list is empty: write off or {WANTED_ENDPOINT}")
    found, errors = parse_each(value, _parse_endpoint)
    for (earlier, one), (index, other) in combinations(found.items(), 2):
        if overlap(one.listener, other.listener):
            errors[index] = sentence(f"{one} already uses this port", other_index=earlier)
    raise_any(errors, value)
    return tuple(found.values())


def _parse_endpoint(value: object) -> Endpoint:
    return parse_endpoint(text_of(value, f"write {WANTED_ENDPOINT}", or_remove=" or remove the dash"))


def _parse_host_name(value: object) -> str:
    wanted = "write a name such as echo.example.com, without protocol and port"
    name = text_of(value, wanted)
    if not _HOST_NAME.fullmatch(name):
        raise sentence(f'"{shown(name)}" is not a host name: {wanted}')
    return name.lower()


def _parse_interface(value: object) -> str:
    wanted = 'write up to 15 characters, none of them a blank, "/", ":" or "%"'
    name = text_of(value, wanted)
    if not INTERFACE.fullmatch(name):
        raise sentence(f'"{shown(name)}" is not an interface name: {wanted}')
    return name


def _parse_rate(value: object, info: ValidationInfo) -> object:
    """Turn `unlimited` into None, and leave all else to pydantic."""
    refuse_empty(value, info)
    return None if value == "unlimited" else value


def _parse_entry(value: object) -> AccessEntry:
    if isinstance(value, dict):
        raise sentence("is a mapping: put an address that ends in a colon in quotes")
    return parse_entry(text_of(value, access.WANTED))


def _parse_ports(value: object) -> object:
    """Turn a list of numbers into ports, and leave all else to pydantic. Errors carry the index of the number."""
    if not isinstance(value, list):
        return value
    ports, errors = parse_each(value, _parse_port)
    owners: dict[int, int] = {}
    for index, port in ports.items():
        owner = owners.setdefault(port, index)
        if owner != index:
            errors[index] = sentence(f"{port} is already listed", other_index=owner)
    raise_any(errors, value)
    return tuple(ports.values())


def _parse_port(value: object) -> int:
    wanted = f"write a whole number from 1 to {MAX_PORT}"
    if value is None:
        raise sentence(f"is empty: {wanted}, or remove the dash")
    if type(value) is not int:
        raise sentence(f"is {kind_of(value)}: {wanted}")
    if not 1 <= value <= MAX_PORT:
        raise sentence(f"{value} is out of bounds: {wanted}")
    return value


def _parse_directory(value: object) -> object:
    """Require an absolute path, or auto, and leave all else to pydantic."""
    if isinstance(value, str) and value != "auto" and not value.startswith("/"):
        raise sentence(f'"{shown(value)}" is not an absolute path: write one that begins with a slash, or auto')
    return value


def refuse_empty(value: object, info: ValidationInfo) -> None:
    """Refuse a key without a value in a file."""
    if value is None and info.context == FROM_FILE:
        raise sentence("has no value: write one or remove the key")


def text_of(value: object, wanted: str, *, or_remove: str = ", or remove the dash", of_other_kind: str = "") -> str:
    """Return a value if it is text. Raises the sentence for what it is otherwise."""
    if value is None:
        raise sentence(f"is empty: {wanted}{or_remove}")
    if not isinstance(value, str):
        raise sentence(f"is {kind_of(value)}: {wanted}{of_other_kind}")
    return value


def _list_of(parse: Callable[[object], _Item]) -> BeforeValidator:
    """Parse each item of a list, and leave all else to pydantic. Errors carry the index of the item."""

    def parse_list(value: object) -> object:
        if not isinstance(value, list):
            return value
        parsed, errors = parse_each(value, parse)
        raise_any(errors, value)
        return tuple(parsed.values())

    return BeforeValidator(parse_list)


def parse_each(
    values: Iterable[object],
    parse: Callable[[object], _Item],
) -> tuple[dict[int, _Item], dict[int, PydanticCustomError]]:
    """Parse each item of a list; return, by index, the values and the errors."""
    parsed: dict[int, _Item] = {}
    errors: dict[int, PydanticCustomError] = {}
    for index, value in enumerate(values):
        try:
            parsed[index] = parse(value)
        except ValueError as error:
            errors[index] = sentence(str(error))
    return parsed, errors


def raise_any(errors: dict[int, PydanticCustomError], value: list[object]) -> None:
    """Raise ValidationError with the errors of a list, by index, if there are any."""
    if errors:
        details = [InitErrorDetails(type=e, loc=(i,), input=value[i]) for i, e in errors.items()]
        raise ValidationError.from_exception_data("list", details)


def sentence(message: str, **context: object) -> PydanticCustomError:
    """Build an error whose sentence is shown to the operator as it is; braces in it have no meaning."""
    return PydanticCustomError("sentence", "{message}", {"message": message, **context})


User = Annotated[str, Field(min_length=1, max_length=256, description="auto or the name of a user")]
Size = Annotated[
    Annotated[int, Field(ge=4 * 1024, le=1024**3)],
    BeforeValidator(_parse_size),
    Field(description=_SIZE_WANTED),
]
Connections = Annotated[int, whole_number(1, 65_536)]
Timeout = Annotated[int, whole_number(1, 86_400)]
Rate = Annotated[
    Annotated[int, Field(ge=1, le=10_000_000)] | None,
    BeforeValidator(_parse_rate),
    Field(description="unlimited or a whole number from 1 to 10000000"),
]
TotalRate = Annotated[
    Annotated[int, Field(ge=1, le=100_000_000)] | None,
    BeforeValidator(_parse_rate),
    Field(description="unlimited or a whole number from 1 to 100000000"),
]
Directory = Annotated[
    str,
    BeforeValidator(_parse_directory),
    Field(max_length=4096, description="auto or an absolute path"),
]
HttpEndpoints = Annotated[
    tuple[InstanceOf[Endpoint], ...],
    BeforeValidator(_parse_endpoints),
    Field(description=f"off, {WANTED_ENDPOINT}, or a list of such URLs"),
]
HostNames = Annotated[
    tuple[str, ...],
    _list_of(_parse_host_name),
    Field(description="a list of names, such as [echo.example.com]"),
]
Interfaces = Annotated[
    tuple[str, ...],
    _list_of(_parse_interface),
    Field(description="a list of names, such as [eth0]"),
]
Entries = Annotated[
    tuple[AccessEntry, ...],
    _list_of(_parse_entry),
    Field(description="a list, such as [loopback, 192.0.2.0/24]"),
]
Ports = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_PORT)], ...],
    BeforeValidator(_parse_ports),
    Field(description="a list of whole numbers, such as [1900, 5353]"),
]
