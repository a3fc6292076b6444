"""echod.metrics.model: metrics and buckets in Prometheus' form."""

from echod.metrics.model import Metric, buckets, metric


def test_a_metric_keeps_its_samples() -> None:
    """They are read once, from any iterable."""
    samples = ((("a",), 1.0),)
    assert metric("x", "X.", iter(samples), "one") == Metric(name="x", help="X.", labels=("one",), samples=samples)


def test_buckets_are_cumulative() -> None:
    """Each has all observations up to its bound; the last has all, and no bound."""
    assert buckets((1, 2, None), (20, 6, 1)) == [("1.0", 20), ("2.0", 26), ("+Inf", 27)]
