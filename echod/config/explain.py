"""The errors of pydantic in an operator's terms, each with its place in the file.

Owns the sentences about keys, kinds and bounds; those about the form of a value come from its parser. It judges nothing
itself. Invariant: every error of pydantic becomes one mistake for each value concerned.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from echod.config.diagnostics import shown
from echod.config.document import Document, Path, Place, kind_of, mistake_at, plain
from echod.errors import Mistake

_OUT_OF_BOUNDS = frozenset({"greater_than_equal", "less_than_equal"})
_QUOTABLE = {"int_type": int, "bool_type": bool}

Models = Mapping[str, type[BaseModel]]


def explain(error: ValidationError, document: Document, models: Models) -> Iterator[Mistake]:
    """Turn the errors of pydantic into mistakes, worded after the values at their places.

    `models` has the model of each section by its key, and that of the file as a whole at "".
    """
    found: dict[Path, dict[str, ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details["loc"], models), {})[details["type"]] = details
    for path, by_type in found.items():
        place = document.places[path]
        spot = place.spot
        if "extra_forbidden" in by_type:
            spot, message = place.key_spot, _explain_unknown(path, models)
        elif "sentence" in by_type:
            message = _complete(path, by_type["sentence"]["ctx"], document)
        else:
            message = _explain(path, place, by_type, models)
        yield mistake_at(spot, path, message)


def _path(location: Path, models: Models) -> Path:
    """Cut a location to the value concerned: the rest names the branches of a union."""
    depth = 2 if location[0] in models else 1
    is_item = len(location) > depth and isinstance(location[depth], int)
    return location[: depth + is_item]


def _complete(path: Path, context: Mapping[str, Any], document: Document) -> str:
    """Add the place of the other item to a sentence about two items of a list."""
    message = str(context["message"])
    if "other_index" not in context:
        return message
    line, _ = document.places[*path[:-1], context["other_index"]].spot
    return f"{message}, line {line}: remove one of them"


def _explain_unknown(path: Path, models: Models) -> str:
    key, here = str(path[-1]), str(path[0]) if len(path) > 1 else ""
    for section, model in models.items():
        if key in model.model_fields:
            return f"unknown key here; it belongs {'below ' + section if section else 'to the top level'}"
    keys = list(models[here].model_fields)
    # Not of access: "disallow" is close to allow.
    if here != "access" and (close := get_close_matches(key, keys, n=1)):
        return f'unknown key; did you mean "{close[0]}"?'
    return f"unknown key; the keys here are {', '.join(keys)}"


def _explain(path: Path, place: Place, by_type: Mapping[str, ErrorDetails], models: Models) -> str:
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
    elif place.is_quoted and type(plain(value)) in [_QUOTABLE.get(kind) for kind in by_type]:
        return f"is text because of the quotes: write {text} without quotes"
    elif "int_type" not in by_type:
        fault = f'"{text}" is not known' if "literal_error" in by_type else f'"{text}" is text'
    elif re.fullmatch(r"0+[1-9][0-9]*", value):
        return f"{text} begins with a zero: write {shown(value.lstrip('0'))}"
    else:
        fault = f'"{text}" is not a number'
    here = str(path[0]) if len(path) > 1 else ""
    return f"{fault}: write {models[here].model_fields[str(path[-1])].description}"
