"""The config as a JSON Schema (draft 2020-12), for editors, and for programs that check a config without echod.

Owns the sentence of each key, and what `fields` takes beside what pydantic knows. Kinds and bounds are those that
pydantic finds in the models; defaults are those of `written`. The daemon never loads it. Invariant: what the schema
refuses, echod refuses. The reverse is not so: a schema cannot say, for example, that two listeners overlap.
"""

from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from echod.config import patterns
from echod.config.access import NAMES
from echod.config.listeners import MAX_DSCP, MAX_SEED, ImpairConfig, ListenerConfig
from echod.config.schema import Config
from echod.config.written import simple
from echod.net.listener import MAX_LISTENERS

_Json: TypeAlias = dict[str, Any]

DESCRIPTIONS: Final = {
    "listeners": "The ports that echo: udp:// or tcp://, an address of this host, a port or a range (7000-7015).",
    "listeners.address": "udp:// or tcp://, an address of this host, a port or a range.",
    "listeners.mode": "What it replies with; echo: the same bytes.",
    "listeners.dscp": "The DSCP of replies; none: the kernel's; reflect: that of the datagram.",
    "listeners.stateful": "Whether stamp numbers its packets itself, for each session.",
    "listeners.hmac_key": "The file with the key of authenticated stamp, or a credential of the service.",
    "listeners.short_packets": "Requests of stamp below 44 bytes: refuse, or pad those of TWAMP Light.",
    "listeners.impair": "A path that misbehaves.",
    "listeners.impair.loss": "The share of datagrams that are lost.",
    "listeners.impair.delay": "How long each is held.",
    "listeners.impair.jitter": "How much shorter or longer at most.",
    "listeners.impair.duplicate": "The share that is sent twice.",
    "listeners.impair.reorder": "The share that is sent after the next one.",
    "listeners.impair.corrupt": "The share in which one bit is inverted.",
    "listeners.impair.rate": "The rate of the link.",
    "listeners.impair.seed": "The same seed and the same datagrams give the same fates.",
    "listeners.impair.queue": "Most datagrams that are held.",
    "access": "Which sources get replies, over UDP and TCP.",
    "access.allow": "Sources that get replies: networks, addresses, loopback, link-local, private or any.",
    "access.deny": "Sources that are refused, whatever access.allow says.",
    "guard": "Protection against endless exchanges with other servers. Leave it as it is unless you know why.",
    "guard.min_source_port": "Datagrams from lower source ports are dropped; 1 accepts all.",
    "guard.refuse_source_ports": "Datagrams from these source ports are dropped: services there reply to anything.",
    "guard.loop_breaker": "Stops a datagram that circulates between two servers.",
    "limits": "Rates of UDP. A source is an IPv4 address or an IPv6 /64.",
    "limits.datagrams_per_second": "The limit of each source; it must be set if access.allow has public addresses.",
    "limits.burst": "Datagrams that a source may send at once.",
    "limits.total_datagrams_per_second": "The limit of all sources together; limits.slip does not apply to it.",
    "limits.sources": "Sources that are remembered.",
    "limits.slip": "One in this many datagrams above the limit of its source is still replied to, on credit; 0: none.",
    "limits.dry_run": "Datagrams above a limit are counted, and still replied to.",
    "workers": "Worker processes; auto: one for each CPU that echod may use.",
    "user": "The user that workers and exporter become if root starts echod; auto: nobody.",
    "udp": "The kernel's buffers for each UDP socket.",
    "udp.receive_buffer": "What the kernel holds for each socket while echod is busy.",
    "udp.send_buffer": "What the kernel holds for each socket until the network takes it.",
    "tcp": "Connections. Limits hold over all workers.",
    "tcp.max_connections": "Connections of all workers together.",
    "tcp.max_connections_per_source": "Connections from one source.",
    "tcp.idle_timeout_seconds": "Closes a connection without traffic.",
    "tcp.stall_timeout_seconds": "Closes a connection whose peer takes none of the data due to it.",
    "drain_timeout_seconds": "How long connections may take to finish on stop and reload.",
    "log": "The log.",
    "log.level": "The lowest level that is logged.",
    "log.format": "auto: journal if there is one, console on a terminal, else json.",
    "status": "The files for `echod status`.",
    "status.directory": "Where they are; auto: RUNTIME_DIRECTORY, /run/echod of root, echod in XDG_RUNTIME_DIR.",
    "metrics": "Metrics, health and a status page over HTTP.",
    "metrics.listen": "Where they are served, such as http://127.0.0.1:9007; off: nowhere.",
    "metrics.hosts": "Names by which a proxy may ask on a loopback address, such as echo.example.com.",
    "kernel": "Replies inside the kernel, by `echod accelerate`; the daemon ignores this.",
    "kernel.interfaces": "Interfaces where the kernel replies, such as eth0; none: `echod accelerate` does not start.",
    "kernel.driver": "Where in the kernel: tcx, at any interface; xdp, in the driver of a network card.",
    "kernel.fresh_seconds": "How long after a reply of the daemon the kernel repeats it for all datagrams of the peer.",
    "kernel.stale_seconds": "How long after the last reply of the daemon the kernel ends to repeat it.",
}

_SIZES: Final = frozenset({"udp.receive_buffer", "udp.send_buffer"})
_LISTENER: Final = {
    "type": "string",
    "pattern": patterns.LISTENER,
    "patternErrorMessage": "write udp://ADDRESS:PORT or tcp://ADDRESS:PORT; an IPv6 address is in brackets",
}
_SHARE: Final = {"type": "string", "pattern": patterns.SHARE, "patternErrorMessage": "write a percentage such as 0.1%"}
_TIME: Final = {"type": "string", "pattern": patterns.TIME, "patternErrorMessage": "write a time such as 20 ms"}
_DEFINITIONS: Final[_Json] = {
    "source": {
        "anyOf": [
            {"enum": list(NAMES)},
            {"type": "string", "pattern": patterns.NETWORK},
        ],
    },
    "endpoint": {
        "type": "string",
        "pattern": patterns.ENDPOINT,
        "patternErrorMessage": "write http://ADDRESS:PORT",
    },
}

_SOURCE: Final = {"items": {"$ref": "#/$defs/source"}}

_FORMS: Final[dict[str, _Json]] = {
    "listeners": {
        "type": "array",
        "items": {"anyOf": [_LISTENER, {"$ref": "#/$defs/listener"}]},
        "minItems": 1,
        "maxItems": MAX_LISTENERS,
        "uniqueItems": True,
    },
    "listeners.address": _LISTENER,
    "listeners.dscp": {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": MAX_DSCP},
            {"type": "string", "pattern": patterns.DSCP},
        ],
    },
    "listeners.hmac_key": {"type": "string", "pattern": patterns.KEY},
    **{f"listeners.impair.{name}": _SHARE for name in ("loss", "duplicate", "reorder", "corrupt")},
    **{f"listeners.impair.{name}": _TIME for name in ("delay", "jitter")},
    "listeners.impair.rate": {"type": "string", "pattern": patterns.RATE, "patternErrorMessage": "write 10 Mbit/s"},
    "listeners.impair.seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
    "access.allow": _SOURCE,
    "access.deny": _SOURCE,
    "guard.refuse_source_ports": {"uniqueItems": True},
    "status.directory": {"pattern": patterns.DIRECTORY, "patternErrorMessage": "write auto or an absolute path"},
    "metrics.listen": {
        "anyOf": [
            {"const": "off"},
            {"$ref": "#/$defs/endpoint"},
            {"type": "array", "items": {"$ref": "#/$defs/endpoint"}, "minItems": 1, "uniqueItems": True},
        ],
    },
    "metrics.hosts": {"items": {"type": "string", "pattern": patterns.HOST_NAME, "maxLength": 253}},
    "kernel.interfaces": {"items": {"type": "string", "pattern": patterns.INTERFACE}},
}
"""What a text must be, and what pydantic cannot know of it."""

_OPEN: Final[_Json] = {
    "if": {
        "properties": {"access": {"properties": {"allow": {"contains": {"const": "any"}}}, "required": ["allow"]}},
        "required": ["access"],
    },
    "then": {"properties": {"limits": {"required": ["datagrams_per_second"]}}, "required": ["limits"]},
}
"""Whoever replies to everybody writes a limit, or that there is none."""

_PADS_WITH_KEY: Final[_Json] = {
    "properties": {"short_packets": {"const": "pad"}},
    "required": ["hmac_key", "short_packets"],
}


class _Kinds(GenerateJsonSchema):
    """What pydantic knows of a field: its kind and its bounds."""

    def encode_default(self, dft: object) -> None:
        """Leave out the defaults: in a file they are written otherwise."""


def make_schema() -> _Json:
    """Return the schema of a config file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "/etc/echod.yaml",
        "description": "The config of echod. echod.yaml(5) explains each key; `echod check` finds every mistake.",
        **_section("", Config()),
        **_OPEN,
        "$defs": {"listener": _listener(), **_DEFINITIONS},
    }


def _section(prefix: str, defaults: BaseModel) -> _Json:
    kinds = type(defaults).model_json_schema(schema_generator=_Kinds)["properties"]
    properties: _Json = {}
    for name, value in defaults:
        key = f"{prefix}{name}"
        form = _section(f"{key}.", value) if isinstance(value, BaseModel) else _value(key, kinds[name], value)
        properties[name] = {"description": DESCRIPTIONS[key], **form}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _listener() -> _Json:
    """Return the schema of a listener that is a mapping, with its impairment."""
    listener, impair = _options("listeners.", ListenerConfig), _options("listeners.impair.", ImpairConfig)
    listener["properties"]["impair"] = {"description": DESCRIPTIONS["listeners.impair"], **impair, "minProperties": 1}
    return listener | {"required": ["address"], "not": _PADS_WITH_KEY}


def _options(prefix: str, model: type[BaseModel]) -> _Json:
    kinds = model.model_json_schema(schema_generator=_Kinds, mode="validation")["properties"]
    properties = {
        name: {"description": DESCRIPTIONS[f"{prefix}{name}"], **_form(f"{prefix}{name}", kind)}
        for name, kind in kinds.items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _form(key: str, kind: _Json) -> _Json:
    """Return what pydantic knows of a value, and what a text may be."""
    form = _FORMS.get(key, {})
    if "anyOf" in form or "type" in form:
        return form
    return {name: each for name, each in kind.items() if name not in ("title", "description", "default")} | form


def _value(key: str, kind: _Json, default: object) -> _Json:
    """Return the schema of one value: what pydantic knows, and what a text may be."""
    form = _form(key, kind)
    match form:
        case {"anyOf": [number, {"type": "null"}]}:
            form = {"anyOf": [number, {"const": "unlimited"}]}
    if key in _SIZES:
        text = {"type": "string", "pattern": patterns.size(form["minimum"], form["maximum"])}
        form = {"anyOf": [form, text | {"patternErrorMessage": "write a size such as 8 MiB"}]}
    return {**form, "default": simple(key, default)}
