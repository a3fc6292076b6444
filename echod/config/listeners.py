"""The entries of `listeners`: a text, or a mapping of an address, a mode and the options of that mode.

Owns the models of such a mapping, which options a mode knows, and the sentences about them. It knows no default of the
file. Invariant: every listener has options that its mode and its protocol know.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from echod.config import fields
from echod.config.diagnostics import shown
from echod.config.document import kind_of
from echod.net.listener import MAX_LISTENERS, Listener, ListenerRange, Protocol, find_overlaps, parse_listener
from echod.net.mode import PLAIN, REFLECT, SERVICE_CLASSES, Dscp, Impairment, ListenerOptions, Mode, ShortPackets

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)

MAX_DELAY: Final = 60 * 10**9
"""The longest delay of `impair`, in ns."""
MAX_QUEUE: Final = 10_000
MAX_DSCP: Final = 63
MAX_SEED: Final = 2**32 - 1

TIMES: Final = {"s": 10**9, "ms": 10**6, "us": 10**3}
RATES: Final = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
MAX_RATE: Final = 100 * 10**9
_DECIMAL: Final = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)"

_WANTED_ENTRY: Final = "write udp://ADDRESS:PORT"
_WANTED_ADDRESS: Final = "udp://ADDRESS:PORT, or tcp://"
_WANTED_DSCP: Final = f"none, reflect, a whole number from 0 to {MAX_DSCP}, or a name such as EF"
_WANTED_KEY: Final = "an absolute path, or the name of a credential"

OPTIONS: Final[Mapping[Mode, tuple[str, ...]]] = {
    Mode.ECHO: ("dscp", "impair"),
    Mode.UDPECHO_PLUS: ("dscp",),
    Mode.STAMP: ("dscp", "stateful", "hmac_key", "short_packets"),
    Mode.REVEAL: (),
    Mode.DISCARD: (),
}
"""The options that each mode knows."""

_TCP_MODES: Final = (Mode.ECHO, Mode.DISCARD)
_TCP_IMPAIRMENTS: Final = frozenset({"delay", "rate"})


def _share(value: object) -> object:
    """Turn a percentage such as `0.1%` into a share of 1."""
    found = re.fullmatch(_DECIMAL + " *%", value) if isinstance(value, str) else None
    if not found or not 0 <= (percent := float(found[1])) <= 100:  # noqa: PLR2004 - percent
        raise _refusal(value, "a percentage", "one from 0% to 100%, such as 0.1%")
    return percent / 100


def _time(value: object) -> object:
    """Turn a time such as `20 ms` into ns."""
    found = re.fullmatch(_DECIMAL + " *(s|ms|us)", value) if isinstance(value, str) else None
    nanoseconds = round(float(found[1]) * TIMES[found[2]]) if found else -1
    if not 0 <= nanoseconds <= MAX_DELAY:
        raise _refusal(value, "a time", "one up to 60 s, such as 20 ms (or s, us)")
    return nanoseconds


def _rate(value: object) -> object:
    """Turn a rate such as `10 Mbit/s` into bit/s, and `unlimited` into 0."""
    if value == "unlimited":
        return 0
    found = re.fullmatch(_DECIMAL + " *([kMG]?bit/s)", value) if isinstance(value, str) else None
    rate = round(float(found[1]) * RATES[found[2]]) if found else 0
    if not 1 <= rate <= MAX_RATE:
        raise _refusal(value, "a rate", "one up to 100 Gbit/s, such as 10 Mbit/s (or bit/s, kbit/s), or unlimited")
    return rate


def _dscp(value: object) -> object:
    """Turn `none` into None, and a name into its number."""
    if value in ("none", REFLECT):
        return None if value == "none" else REFLECT
    if isinstance(value, str) and value.upper() in SERVICE_CLASSES:
        return SERVICE_CLASSES[value.upper()]
    if type(value) is not int or not 0 <= value <= MAX_DSCP:
        raise _refusal(value, "a DSCP", _WANTED_DSCP)
    return value


def _key(value: object) -> object:
    """Require an absolute path, or the name of a credential (systemd.exec(5))."""
    if not isinstance(value, str) or not re.fullmatch(r"/.*[^/]|[A-Za-z0-9_.-]+", value):
        raise _refusal(value, "a file", _WANTED_KEY)
    return value


def _refusal(value: object, noun: str, write: str) -> PydanticCustomError:
    """Return the error of a value that is not what it should be."""
    if value is None:
        return fields.sentence("has no value: write one or remove the key")
    if isinstance(value, list | dict):
        return fields.sentence(f"is {kind_of(value)}: write {write}")
    return fields.sentence(f'"{shown(str(value))}" is not {noun}: write {write}')


def _refuse_empty(value: object, info: ValidationInfo) -> object:
    """Refuse a key without a value in a file, although None is valid in a config from code."""
    fields.refuse_empty(value, info)
    return value


def _parse_address(value: object) -> ListenerRange:
    hint = ", without a space after a colon" if type(value) in (dict, int, float) else ""
    text = fields.text_of(value, _WANTED_ENTRY, or_remove=" or remove the dash", of_other_kind=hint)
    try:
        return parse_listener(text)
    except ValueError as error:
        raise fields.sentence(str(error)) from None


Share = Annotated[float, BeforeValidator(_share), Field(description="a percentage such as 0.1%")]
Time = Annotated[int, BeforeValidator(_time), Field(description="a time such as 20 ms")]


class ImpairConfig(BaseModel):
    """The values of `impair`; see `net.mode.Impairment`."""

    model_config = _STRICT

    loss: Share = 0.0
    delay: Time = 0
    jitter: Time = 0
    duplicate: Share = 0.0
    reorder: Share = 0.0
    corrupt: Share = 0.0
    rate: Annotated[int, BeforeValidator(_rate), Field(description="a rate such as 10 Mbit/s, or unlimited")] = 0
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED)] | None,
        BeforeValidator(_refuse_empty),
        Field(description=f"a whole number from 0 to {MAX_SEED}"),
    ] = None
    queue: Annotated[int, fields.whole_number(1, MAX_QUEUE)] = MAX_QUEUE


class ListenerConfig(BaseModel):
    """The values of one listener; see `net.mode.ListenerOptions`."""

    model_config = _STRICT

    address: Annotated[
        InstanceOf[ListenerRange], BeforeValidator(_parse_address), Field(description="udp://ADDRESS:PORT")
    ]
    mode: Annotated[
        Literal["echo", "udpecho_plus", "stamp", "reveal", "discard"],
        Field(description="echo, udpecho_plus, stamp, reveal or discard"),
    ] = "echo"
    dscp: Annotated[Dscp, BeforeValidator(_dscp), Field(description=_WANTED_DSCP)] = None
    stateful: Annotated[bool, Field(description="true or false")] = False
    hmac_key: Annotated[str, BeforeValidator(_key), Field(max_length=4096, description=_WANTED_KEY)] = ""
    short_packets: Annotated[ShortPackets, Field(description="refuse or pad")] = "refuse"
    impair: Annotated[
        ImpairConfig | None,
        BeforeValidator(_refuse_empty),
        Field(description="keys and values, indented below this key"),
    ] = None


Parsed: TypeAlias = tuple[ListenerRange, ListenerOptions]


def _parse(value: object, info: ValidationInfo) -> Parsed:
    """Parse an entry. Raises ValueError for a text, ValidationError with the places of its keys for a mapping."""
    keys = ListenerConfig.model_fields
    if isinstance(value, str) and (found := re.match(r"(\w+)\s+(.+)", value)) and found[1] in keys:
        key, rest = found.groups()
        raise fields.sentence(f'the colon behind "{key}" is missing: write {key}: {shown(rest)}')
    close = [get_close_matches(key, keys, n=1) for key in value] if isinstance(value, dict) else []
    if not isinstance(value, dict) or not any(close):
        return _parse_address(value), PLAIN  # a space behind the colon of udp:// makes a mapping of a text
    if "address" not in value:
        if ["address"] not in close:
            raise fields.sentence(f"has no address: write address: {_WANTED_ADDRESS}")
        value = {"address": "udp://127.0.0.1:7", **value}  # its key is unknown: a mistake of the model
    read = ListenerConfig.model_validate(value, context=info.context)
    options = ListenerOptions(
        mode=Mode(read.mode),
        dscp=read.dscp,
        stateful=read.stateful,
        hmac_key=read.hmac_key,
        short_packets=read.short_packets,
        impair=Impairment(**dict(read.impair)) if read.impair is not None else None,
    )
    errors = list(_find_misplaced(value, read.address.first.protocol, options))
    if errors:
        raise ValidationError.from_exception_data("listener", errors)
    return read.address, options


def _find_misplaced(
    value: Mapping[str, object], protocol: Protocol, options: ListenerOptions
) -> Iterator[InitErrorDetails]:
    """Find what the mode or the protocol does not know, and what has no effect."""
    mode, possible = options.mode, _TCP_MODES if protocol is Protocol.TCP else tuple(OPTIONS)
    if mode not in possible:
        yield _misplaced(value, "mode", f"{mode.value} is a mode of udp:// alone: write echo or discard")
        return
    for key in value.keys() - {"address", "mode", *OPTIONS[mode]}:
        modes = " or ".join(each.value for each in possible if key in OPTIONS[each])
        other = f", or write mode: {modes}" if modes else ""
        yield _misplaced(value, key, f"the mode {mode.value} does not know it: remove it{other}")
    if protocol is Protocol.TCP and value.get("dscp") == REFLECT:
        yield _misplaced(value, "dscp", "a connection has no DSCP of its own to reflect: write a value or none")
    if options.hmac_key and options.short_packets == "pad":
        yield _misplaced(value, "short_packets", "pad has no effect with hmac_key: remove one of them")
    if options.impair is not None and "impair" in OPTIONS[mode]:
        yield from _find_misplaced_impairments(value, options.impair, protocol)


def _find_misplaced_impairments(
    value: Mapping[str, Any], impairment: Impairment, protocol: Protocol
) -> Iterator[InitErrorDetails]:
    impair = value["impair"]
    if impairment == Impairment(seed=impairment.seed, queue=impairment.queue):
        yield _misplaced(value, "impair", "does nothing: write what befalls a datagram, such as loss: 2%")
    if protocol is Protocol.TCP:
        for key in impair.keys() - _TCP_IMPAIRMENTS:
            yield _misplaced(impair, key, "is for udp:// alone: a stream has delay and rate", "impair")
    if impairment.jitter > impairment.delay:
        yield _misplaced(impair, "jitter", "is longer than delay: no datagram leaves before it came", "impair")


def _misplaced(value: Mapping[str, object], key: str, message: str, *above: str) -> InitErrorDetails:
    """Return the error of a key that stands where it should not."""
    return InitErrorDetails(type=fields.sentence(message, at_key=True), loc=(*above, key), input=value[key])


def _parse_all(value: object, info: ValidationInfo) -> object:
    """Turn the entries into listeners with their options, and leave all else to pydantic. A tuple has plain ones.

    Errors carry the index of the entry, and the key.
    """
    if isinstance(value, tuple):
        return dict.fromkeys(value, PLAIN)
    if info.context == fields.FROM_FILE and isinstance(value, dict):
        raise fields.sentence("is a mapping: write a list with one listener per line, each after a dash")
    if not isinstance(value, list):
        return value
    if not value:
        raise fields.sentence("the list is empty: write at least one listener, such as udp://192.0.2.1:7")
    parsed, errors = _parse_each(value, info)
    ranges = {index: listeners for index, (listeners, _) in parsed.items()}
    total = 0
    for index, listeners in list(ranges.items()):
        total += len(listeners)
        if total > MAX_LISTENERS:
            del ranges[index]  # do not expand a mistyped range to compare it
            if total - len(listeners) <= MAX_LISTENERS:
                message = f"makes {total:,} listeners in all: at most {MAX_LISTENERS:,} are allowed"
                errors.append(_details(fields.sentence(message), index, value))
    for index, (other, clause) in find_overlaps(ranges).items():
        message = f"{clause} in listeners[{other}]"
        errors.append(_details(fields.sentence(message, other_index=other), index, value))
    if errors:
        raise ValidationError.from_exception_data("list", errors)
    return {listener: parsed[index][1] for index, listeners in ranges.items() for listener in listeners}


def _parse_each(value: Iterable[object], info: ValidationInfo) -> tuple[dict[int, Parsed], list[InitErrorDetails]]:
    """Parse each entry; return, by index, what was parsed, and all errors."""
    parsed: dict[int, Parsed] = {}
    errors: list[InitErrorDetails] = []
    for index, item in enumerate(value):
        try:
            parsed[index] = _parse(item, info)
        except ValidationError as error:
            errors += [
                InitErrorDetails(
                    type=fields.sentence(**each["ctx"]) if each["type"] == "sentence" else each["type"],
                    loc=(index, *each["loc"]),
                    input=each["input"],
                    ctx=each.get("ctx", {}),
                )
                for each in error.errors(include_url=False)
            ]
        except ValueError as error:
            errors.append(InitErrorDetails(type=fields.sentence(str(error)), loc=(index,), input=item))
    return parsed, errors


def _details(error: PydanticCustomError, index: int, value: list[object]) -> InitErrorDetails:
    return InitErrorDetails(type=error, loc=(index,), input=value[index])


def listeners(*texts: str) -> dict[Listener, ListenerOptions]:
    """Parse a default written as in the file, of plain listeners. Raises ValueError."""
    return {listener: PLAIN for text in texts for listener in parse_listener(text)}


_Options = Mapping[InstanceOf[Listener], InstanceOf[ListenerOptions]]

Listeners = Annotated[
    Annotated[_Options, Field(min_length=1, max_length=MAX_LISTENERS)],
    BeforeValidator(_parse_all),
    Field(description="a list with one listener per line, each after a dash"),
]
