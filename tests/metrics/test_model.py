"""echod.metrics.model: counters, gauges and buckets in Prometheus' form."""

from echod.metrics.model import Metric, buckets, metric


def test_the_name_tells_the_kind() -> None:
    """A name that ends in `_total` is that of a counter, any other that of a gauge."""
    samples = ((("a",), 1.0),)
    assert metric("x_total", "X.", iter(samples), "one") == Metric(
        name="x_total", kind="counter", help="X.", labels=("one",), samples=samples
    )
    assert metric("x", "X.", []).kind == "gauge"


def test_buckets_are_cumulative() -> None:
    """Each has all observations up to its bound; the last has all, and no bound."""
    assert buckets((1, 2, None), (20, 6, 1)) == [("1.0", 20), ("2.0", 26), ("+Inf", 27)]
