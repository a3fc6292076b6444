"""Metrics as values, in Prometheus' terms: counters, gauges and histograms with their samples.

Owns their form, and knows neither what is measured nor how it is written. Invariant: every sample has a value for each
label of its metric, in the same order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A counter, whose name ends in `_total`, or a gauge."""

    name: str
    help: str
    labels: Labels
    samples: Sequence[tuple[Labels, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Observations by size."""

    name: str
    help: str
    labels: Labels
    samples: Sequence[tuple[Labels, Sequence[tuple[str, int]], int]]
    """For each set of labels: the buckets (see `buckets`) and the sum of all observations."""


def metric(name: str, text: str, samples: Iterable[tuple[Labels, float]], *labels: str) -> Metric:
    """Make a metric; its name tells whether it is a counter or a gauge."""
    return Metric(name=name, help=text, labels=labels, samples=tuple(samples))


def buckets(bounds: Sequence[int | None], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Return counts by upper bound in Prometheus' form: cumulative. The last count, whose bound is None, has no bound.

    Bounds are written as floats ("Canonical Numbers" of OpenMetrics), which is how Prometheus 3 stores them.
    """
    reached = list(accumulate(counts))
    named = [(f"{bound:.1f}", total) for bound, total in zip(bounds, reached, strict=True) if bound is not None]
    return [*named, ("+Inf", reached[-1])]
