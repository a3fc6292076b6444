"""echod.status.tables: aligned columns, sizes and durations."""

import pytest

from echod.status.tables import Table, aligned, duration, size, table_text

TABLE = Table(
    head=("listener", "", "received"),
    left=2,
    rows=(("udp://[::]:7", "x", "1,234"), ("a", "yes", "0")),
    legend=("received: by echod.", "more"),
)


def test_text_is_aligned_left_and_numbers_right() -> None:
    """The first columns of a table are text; the legend follows, and no line ends with spaces."""
    assert table_text(TABLE) == (
        "listener           received\n"
        "udp://[::]:7  x       1,234\n"
        "a             yes         0\n"
        "received: by echod.\n"
        "more"
    )
    assert table_text(Table(head=("a", "long"), left=2, rows=(("b", ""),))) == "a  long\nb"


def test_each_cell_is_as_wide_as_its_column() -> None:
    """So that a part of a row may be drawn in another colour."""
    assert aligned(TABLE)[2] == ["a           ", "yes", "       0"]


@pytest.mark.parametrize(
    ("seconds", "reported"), [(0.9, "00:00:00"), (86_399, "23:59:59"), (86_400 * 400, "400 d 00:00:00")]
)
def test_durations(seconds: float, reported: str) -> None:
    """As `uptime` prints them."""
    assert duration(seconds) == reported


@pytest.mark.parametrize(
    ("octets", "reported"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (102_400, "100 KiB"), (2**63, "8.0 EiB"), (2**74, "16384 EiB")],
)
def test_sizes(octets: float, reported: str) -> None:
    """In powers of 1,024, with a decimal as long as that has a meaning."""
    assert size(octets) == reported
