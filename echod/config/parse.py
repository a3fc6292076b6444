"""From the text of a config file to a Config and its warnings, or to every mistake in it in an operator's terms.

Owns the order of the steps (YAML, the open networks, the values, the keys together), and the sentences about keys,
kinds and bounds; those about the form of a value come from its parser. It reads no file. Invariants: `parse_config`
raises only ConfigError, with every mistake at its line; every error of pydantic becomes one mistake for each value
concerned.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from echod.config import fields, lint
from echod.config.diagnostics import in_order, shown
from echod.config.document import Document, Path, Place, kind_of, mistake_at, plain, read
from echod.config.schema import MODELS, Config, StatusConfig
from echod.errors import ConfigError, Mistake

_OUT_OF_BOUNDS = frozenset({"greater_than_equal", "less_than_equal"})
_INSTANCE = re.compile(r"/etc/echod/([A-Za-z0-9:_.\\-]+)\.yaml")  # systemd.unit(5)
_QUOTABLE = {"int_type": int, "bool_type": bool}


def parse_config(data: bytes) -> tuple[Config, tuple[Mistake, ...]]:
    """Read the bytes of a config file. Returns the config, and warnings of what is legal but unreasonable.

    Raises ConfigError, and nothing else, with every mistake ordered by line and column.
    """
    document = read(data)
    mistakes = list(lint.find_open(document))
    try:
        config = Config.model_validate(document.value, context=fields.FROM_FILE)
    except ValidationError as error:
        mistakes += _explain_all(error, document)
    else:
        mistakes += lint.find_clash(config, document)
    if mistakes:
        raise ConfigError(in_order(mistakes))
    return config, in_order(lint.find_unreasonable(config, document))


def find_instance(path: str) -> str:
    """Return the instance whose config this is: NAME of /etc/echod/NAME.yaml, else an empty string."""
    found = _INSTANCE.fullmatch(path)
    return found[1] if found else ""


def find_status_directory(data: bytes) -> str:
    """Return `status.directory` of a config file, if it can be read, despite mistakes elsewhere in the file.

    `echod status` must find a running echod also while its config is being edited.
    """
    try:
        return StatusConfig.model_validate(read(data).value.get("status") or {}).directory
    except (ConfigError, ValidationError):
        return StatusConfig().directory


def _explain_all(error: ValidationError, document: Document) -> Iterator[Mistake]:
    """Turn the errors of pydantic into mistakes, worded after the values at their places."""
    found: dict[Path, dict[str, ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details["loc"], document), {})[details["type"]] = details
    for path, by_type in found.items():
        place = document.places[path]
        spot = place.spot
        if "extra_forbidden" in by_type:
            spot, message = place.key_spot, _explain_unknown(path)
        elif "sentence" in by_type:
            context = by_type["sentence"]["ctx"]
            message = _complete(path, context, document)
            spot = place.key_spot if "at_key" in context else place.spot
        else:
            message = _explain(path, place, by_type)
        yield mistake_at(spot, path, message)


def _path(location: Path, document: Document) -> Path:
    """Cut a location to the value concerned: the rest names the branches of a union."""
    return next(location[:end] for end in range(len(location), -1, -1) if location[:end] in document.places)


def _section(path: Path) -> str:
    """Return the key of the section that a path is in: empty text for the file as a whole."""
    return ".".join(part for part in path[:-1] if isinstance(part, str))


def _complete(path: Path, context: Mapping[str, Any], document: Document) -> str:
    """Add the place of the other item to a sentence about two items of a list."""
    message = str(context["message"])
    if "other_index" not in context:
        return message
    line, _ = document.places[*path[:-1], context["other_index"]].spot
    return f"{message}, line {line}: remove one of them"


def _explain_unknown(path: Path) -> str:
    key, here = str(path[-1]), _section(path)
    keys = list(MODELS[here].model_fields)
    # Not of access: "disallow" is close to allow.
    close = get_close_matches(key, keys, n=1) if here != "access" else []
    for section, model in MODELS.items():
        if key in model.model_fields:
            where = f"below {section}" if section else "to the top level"
            return f"unknown key here; it belongs {where}" + (f', or did you mean "{close[0]}"?' if close else "")
    if close:
        return f'unknown key; did you mean "{close[0]}"?'
    return f"unknown key; the keys here are {', '.join(keys)}"


def _explain(path: Path, place: Place, by_type: Mapping[str, ErrorDetails]) -> str:
    value = next(iter(by_type.values()))["input"]
    text = shown(place.text)
    if value is None:
        return "has no value: write one or remove the key"
    if isinstance(value, str) and "literal_error" in by_type and not _OUT_OF_BOUNDS & by_type.keys():
        words = re.findall(r"'(\w+)'", str(by_type["literal_error"]["ctx"]["expected"]))
        if "int_type" not in by_type and (close := get_close_matches(value.lower(), words, n=1)):
            return f'"{text}" is not known: did you mean {close[0]}?'
    if _OUT_OF_BOUNDS & by_type.keys():
        fault = f"{text} is out of bounds"
    elif isinstance(value, list | dict):
        fault = f"is {kind_of(value)}"
    elif not isinstance(value, str):
        fault = f"{text} is {kind_of(value)}"
    elif place.is_quoted and type(plain(value)) in [_QUOTABLE.get(kind) for kind in by_type]:
        return f"is text because of the quotes: write {text} without quotes"
    elif "int_type" not in by_type:
        fault = f'"{text}" is not known' if "literal_error" in by_type else f'"{text}" is text'
    elif re.fullmatch(r"0+[1-9][0-9]*", value):
        return f"{text} begins with a zero: write {shown(value.lstrip('0'))}"
    else:
        fault = f'"{text}" is not a number'
    return f"{fault}: write {MODELS[_section(path)].model_fields[str(path[-1])].description}"
