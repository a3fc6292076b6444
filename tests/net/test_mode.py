"""echod.net.mode: what follows from the options of a listener."""

import pytest

from echod.net.mode import PLAIN, REFLECT, SERVICE_CLASSES, Impairment, ListenerOptions, Mode


@pytest.mark.parametrize(
    ("options", "plain", "measured", "has_sessions"),
    [
        (PLAIN, True, False, False),
        (ListenerOptions(dscp=46), False, False, False),
        (ListenerOptions(dscp=0), False, False, False),
        (ListenerOptions(dscp=REFLECT), False, True, False),
        (ListenerOptions(impair=Impairment()), False, False, False),
        (ListenerOptions(mode=Mode.UDPECHO_PLUS), False, True, True),
        (ListenerOptions(mode=Mode.STAMP), False, True, False),
        (ListenerOptions(mode=Mode.STAMP, stateful=True), False, True, True),
        (ListenerOptions(mode=Mode.REVEAL), False, True, False),
        (ListenerOptions(mode=Mode.DISCARD), False, False, False),
    ],
)
def test_options_tell_what_they_need(
    options: ListenerOptions, *, plain: bool, measured: bool, has_sessions: bool
) -> None:
    """The kernel may repeat what is plain; what measures needs arrivals; who counts needs all datagrams of a peer."""
    assert (options.plain, options.measured, options.has_sessions) == (plain, measured, has_sessions)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        (PLAIN, ""),
        (ListenerOptions(dscp=46), ""),
        (ListenerOptions(impair=Impairment(loss=0.5)), "impaired echo"),
        (ListenerOptions(mode=Mode.UDPECHO_PLUS), "udpecho_plus"),
        (ListenerOptions(mode=Mode.STAMP, stateful=True), "stamp"),
        (ListenerOptions(mode=Mode.DISCARD), "discard"),
    ],
)
def test_a_listener_that_is_no_plain_echo_has_a_label(options: ListenerOptions, label: str) -> None:
    """Its mode, and whether it is impaired."""
    assert options.label == label


def test_service_classes_have_the_numbers_of_their_standards() -> None:
    """RFC 2474, 2597, 3246, 5865, 8622."""
    names = ["CS0", "CS1", "CS7", "AF11", "AF13", "AF43", "EF", "VA", "LE"]
    assert [SERVICE_CLASSES[name] for name in names] == [0, 8, 56, 10, 14, 38, 46, 44, 1]
    assert len(SERVICE_CLASSES) == 23
