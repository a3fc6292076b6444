"""Metrics as bytes: the format that is asked for, and one for whoever asks in a way that nobody understands."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families

from echod.exporter.metrics import of_build
from echod.metrics.exposition import write
from echod.metrics.model import Histogram, Metric, metric

FOUND: list[Metric | Histogram] = [of_build("1", "3")]
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PIECES = [
    *("text/plain", "application/openmetrics-text", "version", "escaping", "allow-utf-8", "values", "q"),
    *("1", "0.0.4", "1.0.0", "2.0", "99", "x", ";", ",", "=", " ", ".", "-", "\xb2", "*/*"),
]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("text/html, */*;q=0.1", PLAIN),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0"),
        ("text/plain; version=x", PLAIN),
        ("application/openmetrics-text; version=x", PLAIN),
    ],
)
def test_the_format_is_the_one_asked_for(accept: str, content_type: str) -> None:
    """Where the header can be understood; else it is Prometheus' own."""
    body, reported = write(FOUND, accept)
    assert reported.startswith(content_type)
    assert b"echod_build_info" in body


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3))).map("".join))
def test_no_header_is_a_mistake(accept: str) -> None:
    """Whatever a client says that it takes, it gets the numbers."""
    body, _ = write(FOUND, accept)
    assert "echod_build_info" in {each.name for each in text_string_to_metric_families(body.decode())}


@pytest.mark.parametrize(("name", "kind"), [("x_total", "counter"), ("x", "gauge")])
def test_the_name_tells_the_kind(name: str, kind: str) -> None:
    """A name that ends in `_total` is that of a counter, any other that of a gauge."""
    body, _ = write([metric(name, "X.", [(("a",), 1.0)], "one")], "")
    assert body.decode() == f'# HELP {name} X.\n# TYPE {name} {kind}\n{name}{{one="a"}} 1.0\n'
