"""Metrics in the text format of Prometheus or in OpenMetrics, written with prometheus_client.

Owns the conversion of `model` to bytes. The only module that imports prometheus_client, so only the
exporter loads it. Invariant: every metric is written, under its own name, in either format.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from echod.metrics.model import Histogram, Metric


def write(found: Sequence[Metric | Histogram], accept: str) -> tuple[bytes, str]:
    """Return the bytes in the format that an Accept header prefers, and their content type.

    If the header cannot be parsed, the format is Prometheus' own.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(found))
    try:
        return _encode(registry, accept)
    except Exception:  # noqa: BLE001 - the header is a peer's, and prometheus_client raises TypeError for some versions
        return _encode(registry, "")


def _encode(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    """Returns the given metrics, for one scrape."""

    def __init__(self, found: Sequence[Metric | Histogram]) -> None:
        self._found = found

    def collect(self) -> Iterator[Family]:
        return map(_family, self._found)


def _family(one: Metric | Histogram) -> Family:
    """Turn one of our metrics into one of prometheus_client's."""
    if isinstance(one, Histogram):
        histogram = HistogramMetricFamily(one.name, one.help, labels=one.labels)
        for labels, buckets, total in one.samples:
            histogram.add_metric(labels, buckets, total)
        return histogram
    make = CounterMetricFamily if one.name.endswith("_total") else GaugeMetricFamily
    family = make(one.name, one.help, labels=one.labels)
    for labels, value in one.samples:
        family.add_metric(labels, value)
    return family
