"""echod.config.listeners: what an entry of `listeners` may be, and which options its mode knows."""

import pytest
from support.config_mistakes import errors, listeners

from echod.config.listeners import listeners as parse_default
from echod.config.parse import parse_config
from echod.config.schema import Config
from echod.net.listener import Listener, parse_listener
from echod.net.mode import PLAIN, Impairment, ListenerOptions, Mode

ADDRESS = "udp://192.0.2.1:7"


def options_of(text: str) -> ListenerOptions:
    """Parse one listener with these options, written in braces."""
    (options,) = parse_config(f"listeners:\n  - {{address: {ADDRESS}, {text}}}\n".encode())[0].listeners.values()
    return options


def mistake(text: str, address: str = ADDRESS) -> str:
    """Return path and sentence of the mistake in one listener with these options."""
    ((_, _, path, message),) = listeners(f"{{address: {address}, {text}}}")
    return f"{path.removeprefix('listeners[0]').removeprefix('.')}: {message}"


def only(text: str) -> Listener:
    """Return the listener that a text is."""
    (listener,) = parse_listener(text)
    return listener


def test_texts_and_mappings_stand_side_by_side() -> None:
    """In their order; each listener of a range has the options of its entry."""
    text = f"listeners: [{ADDRESS}, {{address: udp://192.0.2.1:8-9, mode: discard}}, {{address: tcp://192.0.2.1:7}}]"
    discard = ListenerOptions(mode=Mode.DISCARD)
    assert list(parse_config(text.encode())[0].listeners.items()) == [
        (only("udp://192.0.2.1:7"), PLAIN),
        (only("udp://192.0.2.1:8"), discard),
        (only("udp://192.0.2.1:9"), discard),
        (only("tcp://192.0.2.1:7"), PLAIN),
    ]


def test_listeners_from_code_are_plain_or_a_mapping() -> None:
    """A tuple has no options."""
    (one,) = parse_default(ADDRESS)
    assert Config(listeners=(one,)).listeners == {one: PLAIN}  # type: ignore[arg-type]
    stamp = {one: ListenerOptions(mode=Mode.STAMP)}
    assert Config(listeners=stamp).listeners == stamp


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("mode: echo", PLAIN),
        ("mode: reveal", ListenerOptions(mode=Mode.REVEAL)),
        ("mode: udpecho_plus, dscp: 0", ListenerOptions(mode=Mode.UDPECHO_PLUS, dscp=0)),
        ("dscp: none", PLAIN),
        ("dscp: reflect", ListenerOptions(dscp="reflect")),
        ("dscp: 63", ListenerOptions(dscp=63)),
        ("dscp: af41", ListenerOptions(dscp=34)),
        (
            "mode: stamp, stateful: true, hmac_key: /etc/key, short_packets: refuse",
            ListenerOptions(mode=Mode.STAMP, stateful=True, hmac_key="/etc/key"),
        ),
        ("mode: stamp, short_packets: pad", ListenerOptions(mode=Mode.STAMP, short_packets="pad")),
        (
            "impair: {loss: 0%, rate: unlimited, delay: 1 us}",
            ListenerOptions(impair=Impairment(delay=1_000)),
        ),
        ("mode: stamp, hmac_key: stamp.key", ListenerOptions(mode=Mode.STAMP, hmac_key="stamp.key")),
        ("impair: {loss: 2%}", ListenerOptions(impair=Impairment(loss=0.02))),
        (
            "impair: {loss: 100%, delay: 20ms, jitter: 1.5 ms, duplicate: 0.1 %, reorder: 50%, corrupt: 0.000001%}",
            ListenerOptions(
                impair=Impairment(
                    loss=1.0, delay=20_000_000, jitter=1_500_000, duplicate=0.001, reorder=0.5, corrupt=1e-8
                )
            ),
        ),
        (
            "impair: {rate: 10 Mbit/s, seed: 7, queue: 5}",
            ListenerOptions(impair=Impairment(rate=10_000_000, seed=7, queue=5)),
        ),
        ("impair: {rate: unlimited, delay: 60s}", ListenerOptions(impair=Impairment(delay=60_000_000_000))),
        ("impair: {rate: 9 bit/s, delay: 3us}", ListenerOptions(impair=Impairment(rate=9, delay=3_000))),
        ("impair: {rate: 1.5kbit/s}", ListenerOptions(impair=Impairment(rate=1_500))),
        ("impair: {rate: 100 Gbit/s}", ListenerOptions(impair=Impairment(rate=100_000_000_000))),
    ],
)
def test_options_are_read(text: str, options: ListenerOptions) -> None:
    """Percentages, times and rates with their units."""
    assert options_of(text) == options


PERCENTAGE = "write one from 0% to 100%, such as 0.1%"
TIME = "write one up to 60 s, such as 20 ms (or s, us)"
RATE = "write one up to 100 Gbit/s, such as 10 Mbit/s (or bit/s, kbit/s), or unlimited"
DSCP = "write none, reflect, a whole number from 0 to 63, or a name such as EF"
KEY = "write an absolute path, or the name of a credential"
NO_VALUE = "has no value: write one or remove the key"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: stmp", 'mode: "stmp" is not known: did you mean stamp?'),
        ("mode: UDPEchoPlus", 'mode: "UDPEchoPlus" is not known: did you mean udpecho_plus?'),
        ("mode: fast", 'mode: "fast" is not known: write echo, udpecho_plus, stamp, reveal or discard'),
        ("mode: ", f"mode: {NO_VALUE}"),
        ("mod: stamp", 'mod: unknown key; did you mean "mode"?'),
        (
            "speed: 7",
            "speed: unknown key; the keys here are address, mode, dscp, stateful, hmac_key, short_packets, impair",
        ),
        ("mode: stamp, stateful: 1", "stateful: 1 is a number: write true or false"),
        ("mode: stamp, hmac_key: key/", f'hmac_key: "key/" is not a file: {KEY}'),
        ("mode: stamp, hmac_key: [a]", f"hmac_key: is a list: {KEY}"),
        ("mode: stamp, short_packets: drop", 'short_packets: "drop" is not known: write refuse or pad'),
        ("dscp: 64", f'dscp: "64" is not a DSCP: {DSCP}'),
        ("dscp: true", f'dscp: "True" is not a DSCP: {DSCP}'),
        ("dscp: ", f"dscp: {NO_VALUE}"),
        ("impair: ", f"impair: {NO_VALUE}"),
        ("impair: 2%", 'impair: "2%" is text: write keys and values, indented below this key'),
        ("impair: {}", "impair: does nothing: write what befalls a datagram, such as loss: 2%"),
        ("impair: {seed: 7}", "impair: does nothing: write what befalls a datagram, such as loss: 2%"),
        ("impair: {loss: 0%}", "impair: does nothing: write what befalls a datagram, such as loss: 2%"),
        (
            "impair: {duplicate: 0%, reorder: 0%, corrupt: 0%, delay: 0 s, jitter: 0 us, rate: unlimited, queue: 5}",
            "impair: does nothing: write what befalls a datagram, such as loss: 2%",
        ),
        ("impair: {los: 2%}", 'impair.los: unknown key; did you mean "loss"?'),
        ("impair: {loss: 2}", f'impair.loss: "2" is not a percentage: {PERCENTAGE}'),
        ("impair: {loss: 100.1%}", f'impair.loss: "100.1%" is not a percentage: {PERCENTAGE}'),
        ("impair: {loss: -1%}", f'impair.loss: "-1%" is not a percentage: {PERCENTAGE}'),
        ("impair: {delay: 20}", f'impair.delay: "20" is not a time: {TIME}'),
        ("impair: {delay: 61 s}", f'impair.delay: "61 s" is not a time: {TIME}'),
        ("impair: {rate: 0 bit/s}", f'impair.rate: "0 bit/s" is not a rate: {RATE}'),
        ("impair: {rate: 10 mbit/s}", f'impair.rate: "10 mbit/s" is not a rate: {RATE}'),
        ("impair: {rate: 101 Gbit/s}", f'impair.rate: "101 Gbit/s" is not a rate: {RATE}'),
        ("impair: {loss: 1%, seed: -1}", "impair.seed: -1 is out of bounds: write a whole number from 0 to 4294967295"),
        ("impair: {loss: 1%, seed: }", f"impair.seed: {NO_VALUE}"),
        (
            "impair: {loss: 1%, queue: 10001}",
            "impair.queue: 10001 is out of bounds: write a whole number from 1 to 10000",
        ),
        (
            "impair: {delay: 1 ms, jitter: 2 ms}",
            "impair.jitter: is longer than delay: no datagram leaves before it came",
        ),
        ("impair: {jitter: 2 ms}", "impair.jitter: is longer than delay: no datagram leaves before it came"),
        (
            "mode: reveal, dscp: 5",
            "dscp: the mode reveal does not know it: remove it, or write mode: echo or udpecho_plus or stamp",
        ),
        (
            "mode: stamp, hmac_key: /etc/key, short_packets: pad",
            "short_packets: pad has no effect with hmac_key: remove one of them",
        ),
        ("stateful: true", "stateful: the mode echo does not know it: remove it, or write mode: stamp"),
        ("mode: stamp, impair: {loss: 2%}", "impair: the mode stamp does not know it: remove it, or write mode: echo"),
    ],
)
def test_a_mistake_is_reported_at_its_key(text: str, message: str) -> None:
    """One sentence, that says what to write."""
    assert mistake(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: stamp", "mode: stamp is a mode of udp:// alone: write echo or discard"),
        ("mode: discard, dscp: EF", "dscp: the mode discard does not know it: remove it, or write mode: echo"),
        ("mode: discard, stateful: true", "stateful: the mode discard does not know it: remove it"),
        ("dscp: reflect", "dscp: a connection has no DSCP of its own to reflect: write a value or none"),
        ("impair: {delay: 2 ms, loss: 1%}", "impair.loss: is for udp:// alone: a stream has delay and rate"),
    ],
)
def test_a_stream_knows_less(text: str, message: str) -> None:
    """Modes and options that have a meaning for datagrams alone."""
    assert mistake(text, "tcp://192.0.2.1:7") == message


def test_a_mapping_has_an_address_and_a_text_has_no_blank() -> None:
    """A space behind the colon makes a mapping of udp://."""
    assert listeners("{mode: stamp}", "udp: //0.0.0.0:7", "{address: 7}", "{address: udp://0.0.0.0}") == [
        (2, 5, "listeners[0]", "has no address: write address: udp://ADDRESS:PORT, or tcp://"),
        (3, 5, "listeners[1]", "is a mapping: write udp://ADDRESS:PORT, without a space after a colon"),
        (4, 15, "listeners[2].address", "is a number: write udp://ADDRESS:PORT, without a space after a colon"),
        (5, 15, "listeners[3].address", "has no port: write 0.0.0.0:7, or another port"),
    ]


def test_a_misspelled_key_is_a_mapping_all_the_same() -> None:
    """Also where it is the only one; the address that is missing is not a second mistake."""
    known = 'unknown key; did you mean "address"?'
    assert listeners("{adress: udp://0.0.0.0:7}", "{mode: stamp, adress: udp://0.0.0.0:8}", "{mod: stamp}") == [
        (2, 6, "listeners[0].adress", known),
        (3, 19, "listeners[1].adress", known),
        (4, 5, "listeners[2]", "has no address: write address: udp://ADDRESS:PORT, or tcp://"),
    ]


def test_an_address_that_is_a_list_has_no_colon_too_many() -> None:
    """Only a mapping or a number comes from a space after a colon."""
    assert listeners("{address: [udp://0.0.0.0:7]}", "[udp://0.0.0.0:7]", "{address: {udp: //0.0.0.0:8}}") == [
        (2, 15, "listeners[0].address", "is a list: write udp://ADDRESS:PORT"),
        (3, 5, "listeners[1]", "is a list: write udp://ADDRESS:PORT"),
        (4, 15, "listeners[2].address", "is a mapping: write udp://ADDRESS:PORT, without a space after a colon"),
    ]


def test_a_key_without_its_colon_is_named() -> None:
    """It is text for YAML. Other text with a blank is none of a key."""
    assert listeners("address udp://0.0.0.0:7", "addresses udp://0.0.0.0:7")[0] == (
        (2, 5, "listeners[0]", 'the colon behind "address" is missing: write address: udp://0.0.0.0:7')
    )
    assert "colon" not in listeners("addresses udp://0.0.0.0:7")[0][3]


def test_the_list_has_an_entry() -> None:
    """Without any there would be nothing to serve."""
    message = "the list is empty: write at least one listener, such as udp://192.0.2.1:7"
    assert errors("listeners: []") == [(1, 12, "listeners", message)]


@pytest.mark.parametrize("text", ["{a: b}", "{}"])
def test_the_listeners_are_a_list(text: str) -> None:
    """And never a mapping, although code may have one."""
    message = "is a mapping: write a list with one listener per line, each after a dash"
    assert errors(f"listeners: {text}") == [(1, 12, "listeners", message)]


def test_a_mistake_in_one_does_not_hide_that_of_another() -> None:
    """Of keys, and of two entries together, with the line of the other."""
    found = errors(
        f"listeners:\n  - {ADDRESS}\n  - {{address: {ADDRESS}}}\n  - {{address: udp://0.0.0.0:9, dscp: x}}\n"
    )
    assert [each[:3] for each in found] == [(3, 5, "listeners[1]"), (4, 38, "listeners[2].dscp")]


def test_too_many_are_refused_before_they_are_compared() -> None:
    """A mistyped range must not use up the host."""
    message = "makes 1,101 listeners in all: at most 1,024 are allowed"
    assert listeners("udp://0.0.0.0:1000-1100", "{address: udp://0.0.0.0:2001-3000}", "udp://0.0.0.0:5000-6000") == [
        (3, 5, "listeners[1]", message)
    ]
