"""Targets and settings of the probing engine, for tests."""

from typing import Any

from echod.probes.settings import ProbeSettings
from echod.probes.target import Target, parse, resolve

MILLISECOND = 10**6
SECOND = 10**9


def target_at(text: str) -> Target:
    """Return a target by its text form, such as udp://[::1]:7."""
    return resolve(parse(text), None)


def settings(**changes: Any) -> ProbeSettings:  # noqa: ANN401 - any field
    """Return settings: a probe of 56 bytes each second, and two seconds for its reply."""
    values: dict[str, Any] = {"interval": SECOND, "window": 65_536, "timeout": 2 * SECOND, "sizes": (56,)}
    return ProbeSettings(**(values | changes))
