"""The man pages are true and well formed: they hold what the code holds, in both directions.

Here are the form of all pages, and echod.yaml(5). `test_man_reference.py` has echod(8) and echod-metrics(7),
`ping/test_man_page.py` has echod-ping(1).
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.config_mistakes import config_with
from support.daemon import REPOSITORY, run_echod
from support.man import PAGES, entries, literals, section, source

from echod.config.listeners import ImpairConfig, ListenerConfig
from echod.config.parse import parse_config
from echod.config.schema import Config
from echod.errors import ConfigError
from echod.net.mode import Impairment, ListenerOptions, Mode

WRITTEN = sorted(path.name for path in PAGES.iterdir())


# -- form


@pytest.mark.parametrize("page", WRITTEN)
def test_mandoc_and_groff_find_nothing_to_say_about_a_page(page: str) -> None:
    """`mandoc -T lint`, with style, and `groff -ww` are silent."""
    for command in (["mandoc", "-T", "lint"], ["groff", "-mandoc", "-ww", "-z", "-Tutf8"]):
        printed = subprocess.run([*command, PAGES / page], capture_output=True, text=True, check=False, timeout=30)
        assert (printed.returncode, printed.stdout, printed.stderr) == (0, "", "")


@pytest.mark.parametrize("page", WRITTEN)
def test_the_list_of_contents_names_every_section_that_follows_it(page: str) -> None:
    """A reader finds each section in the list at the top, in order, and the list has no other."""
    sections = re.findall(r"^\.Sh (.*)$", source(page), re.MULTILINE)
    listed = re.findall(r"^\.It Sx (.*)$", section(page, "DESCRIPTION"), re.MULTILINE)
    assert listed == sections[sections.index("DESCRIPTION") + 1 :]


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_refers_only_to_pages_and_sections_that_are_there(page: str) -> None:
    """Each page of echod that is named is in packaging/man, and each section that is linked is on this page."""
    named = set(re.findall(r"\b(echod[\w.-]*)\(([1-8])\)", source(page)))
    assert {f"{name}.{number}" for name, number in named} <= {path.name for path in PAGES.iterdir()}
    linked = set(re.findall(r"^\.(?:It )?Sx (.*?)(?: [.,;:)]+)?$", source(page), re.MULTILINE))
    assert linked <= set(re.findall(r"^\.S[hs] (.*)$", source(page), re.MULTILINE))


@pytest.mark.parametrize("page", WRITTEN)
def test_a_path_of_the_source_is_there(page: str) -> None:
    """Whoever has the source finds each file and command that a page names."""
    paths = re.findall(r"\b(?:packaging|config)/[\w./-]*\w|\.github/[\w.]*\w", source(page))
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("page", WRITTEN)
def test_a_path_of_a_package_is_one_that_the_debian_package_has(page: str) -> None:
    """Drop-ins are installed as packaging/debian names them, and examples by the name below packaging."""
    debian = REPOSITORY / "packaging/debian"
    examples = (debian / "echod.examples").read_text().split()
    lines = map(str.split, (debian / "echod.install").read_text().splitlines())
    installed = {words[0]: words[-1] for words in lines}
    for found in re.findall(r"/usr/share/doc/echod/examples/([\w./-]*\w)", source(page)):
        assert (REPOSITORY / "packaging" / found).is_file()
        assert f"packaging/{found.partition('/')[0]}" in examples
    for found in re.findall(r"/usr/share/echod/([\w-]+\.conf)", source(page)):
        assert installed[f"packaging/systemd/{found}"] == "usr/share/echod"


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_reads_well_in_a_browser(page: str) -> None:
    """`mandoc -T html` makes one file of a page, in which the list of contents leads to the sections."""
    command = ["mandoc", "-T", "html", PAGES / page]
    html = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    sections = re.findall(r"^\.Sh (.*)$", source(page), re.MULTILINE)
    for name in sections[sections.index("DESCRIPTION") + 1 :]:
        anchor = name.replace(" ", "_")
        assert f'id="{anchor}"' in html
        assert f'href="#{anchor}">{name}</a>' in html


# -- what echod.yaml(5) states


def keys() -> dict[str, str]:
    """Return the keys of echod.yaml(5) with the source of their text."""
    return entries(source("echod.yaml.5"), "Va")


def stated(text: str, word: str) -> str:
    """Return what a key's text says behind `Default:` or `Values:`."""
    found = re.search(rf"^{word}: ((?:.|\n)*?)\.$", text, re.MULTILINE)
    assert found
    return found[1].replace("\n", " ")


def test_the_page_has_every_key_and_no_other() -> None:
    """The tags are the fields of the models."""
    fields: set[str] = set()
    for name, value in Config():
        inner: dict[str, Any] = getattr(type(value), "model_fields", {})
        fields |= {f"{name}.{each}" for each in inner} or {name}
    assert keys().keys() == fields


@pytest.mark.parametrize("key", keys().keys() - {"listeners"})
def test_a_key_has_the_default_that_the_page_states(key: str) -> None:
    """A config with the stated default is the config without the key, and any other statement is not."""
    config, warnings = parse_config(config_with(key, stated(keys()[key], "Default")).encode())
    assert config == Config()
    assert warnings == ()


def test_the_default_listeners_are_those_that_the_page_states() -> None:
    """They are stated in words: both protocols, one port, both families."""
    words = stated(keys()["listeners"], "Default")
    found = re.fullmatch(r"(\w+) and (\w+) on port (\d+) of (\S+) and (\S+)", words)
    assert found
    *protocols, port, first, second = found.groups()
    wanted = {f"{protocol.lower()}://{host}:{port}" for protocol in protocols for host in (first, second)}
    assert {str(each) for each in Config().listeners} == wanted


BOUNDED = {key: text for key in keys() if re.search(r"\d(?: [KMG]iB)? to \d", text := stated(keys()[key], "Values"))}


def is_accepted(key: str, value: str) -> bool:
    """Return whether a config with this value has no mistake."""
    try:
        parse_config(config_with(key, value).encode())
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("key", BOUNDED)
def test_a_key_has_the_bounds_that_the_page_states(key: str) -> None:
    """The least and the greatest value are accepted; the next ones beyond are refused with these bounds."""
    units = {None: 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
    found = re.search(r"(\d+)(?: ([KMG]iB))? to (\d+)(?: ([KMG]iB))?$", BOUNDED[key])
    assert found
    low, high = int(found[1]) * units[found[2]], int(found[3]) * units[found[4]]
    inside, outside = [low, high], [low - 1, high + 1]
    each = "[{}]" if BOUNDED[key].startswith("a list") else "{}"
    assert [is_accepted(key, each.format(value)) for value in inside] == [True, True]
    for value in outside:
        with pytest.raises(ConfigError, match=rf"{key}.* out of bounds: write .*from {found[0]}"):
            parse_config(config_with(key, each.format(value)).encode())


def test_every_number_has_bounds_on_the_page() -> None:
    """A key whose value may be a number states its bounds; so does each list of numbers."""
    numbers = {key for key in keys() if is_accepted(key, "5000") or is_accepted(key, "[5000]")}
    numbers |= {key for key in keys() if is_accepted(key, "60")}
    assert numbers == BOUNDED.keys()


@pytest.mark.parametrize("key", keys())
def test_the_words_that_the_page_states_are_accepted_and_no_other(key: str) -> None:
    """Of a key whose values are words, each word is accepted; `never` stands for any other."""
    values = stated(keys()[key], "Values")
    words = re.findall(r"\b(auto|unlimited|off|true|false|journal|console|json|debug|info|warning|error)\b", values)
    assert [word for word in words if not is_accepted(key, word)] == []
    known = ("auto", "unlimited", "off", "true", "journal", "debug")
    accepted = {word for word in known if is_accepted(key, word)}
    if not values.endswith("name of a user"):
        assert accepted == set(known) & set(words)


# -- the options of a mode


OPTIONS = entries(section("echod.yaml.5", "MODES").partition(".Ss ")[0], "Cm")


def listener_with(option: str, value: str) -> bytes:
    """Return a config of one listener with this option, in a mode that knows it; an impairment does something."""
    mode = "stamp" if option in ("stateful", "hmac_key", "short_packets") else "echo"
    other = "loss: 1%" if option == "impair.delay" else "delay: 60 s"  # no jitter is longer than that
    text = f"impair: {{{other}, {option[7:]}: {value}}}" if option.startswith("impair.") else f"{option}: {value}"
    rest = "" if option == "mode" else f", mode: {mode}"
    return f"listeners: [{{address: udp://127.0.0.1:7007{rest}, {text}}}]".encode()


def test_the_page_has_every_option_of_a_listener_and_no_other() -> None:
    """The tags are the fields of the models."""
    fields = [*ListenerConfig.model_fields, *(f"impair.{each}" for each in ImpairConfig.model_fields)]
    assert sorted(OPTIONS) == sorted(fields)


@pytest.mark.parametrize("option", OPTIONS.keys() - {"address", "impair", "hmac_key", "impair.seed"})
def test_an_option_has_the_default_that_the_page_states(option: str) -> None:
    """With the stated default a listener is what it is without the option."""
    (stated_one,) = parse_config(listener_with(option, stated(OPTIONS[option], "Default")))[0].listeners.values()
    impair = Impairment(loss=0.01) if option == "impair.delay" else Impairment(delay=60_000_000_000)
    default = impair if option.startswith("impair.") else None
    assert stated_one == ListenerOptions(mode=stated_one.mode, impair=default)
    assert stated_one.mode is Mode.ECHO or option in ("stateful", "short_packets")


def takes(option: str, value: str) -> bool:
    """Return whether this value is accepted."""
    try:
        parse_config(listener_with(option, value))
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("option", "low", "high", "beyond"),
    [
        ("dscp", "0", "63", ("-1", "64")),
        ("impair.loss", "0%", "100%", ("-0.1%", "100.1%", "0.1")),
        ("impair.duplicate", "0%", "100%", ("-0.1%", "100.1%", "0.1")),
        ("impair.reorder", "0%", "100%", ("-0.1%", "100.1%", "0.1")),
        ("impair.corrupt", "0%", "100%", ("-0.1%", "100.1%", "0.1")),
        ("impair.delay", "0 us", "60 s", ("-1 us", "60.001 s", "1")),
        ("impair.jitter", "0 us", "60 s", ("-1 us", "60.001 s", "1")),
        ("impair.rate", "1 bit/s", "100 Gbit/s", ("0 bit/s", "100.1 Gbit/s", "1")),
        ("impair.seed", "0", "4294967295", ("-1", "4294967296")),
        ("impair.queue", "1", "10000", ("0", "10001")),
    ],
)
def test_an_option_has_the_bounds_that_the_page_states(
    option: str, low: str, high: str, beyond: tuple[str, ...]
) -> None:
    """The least and the greatest value are accepted, and the next ones beyond are not."""
    assert f"{low} to {high}" in stated(OPTIONS[option], "Values")
    assert [takes(option, low), takes(option, high)] == [True, True]
    assert [value for value in beyond if takes(option, value)] == []


@pytest.mark.parametrize("option", ["mode", "dscp", "stateful", "short_packets", "impair.rate"])
def test_the_words_that_the_page_states_for_an_option_are_accepted_and_no_other(option: str) -> None:
    """All words that an option may be are tried with each."""
    known = {"echo", "udpecho_plus", "stamp", "reveal", "discard", "none", "reflect", "EF", "VA", "LE", "CS0", "CS7"}
    known |= {"AF11", "AF43", "true", "false", "refuse", "pad", "unlimited"}
    words = set(re.findall(r"\b\w+\b", stated(OPTIONS[option], "Values")))
    assert {word for word in known if takes(option, word)} == known & words


EXAMPLES = [text for text in literals(section("echod.yaml.5", "EXAMPLES")) if re.match(r"[a-z]+:\n", text)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_a_config_has_no_mistake(example: str, tmp_path: Path) -> None:
    """`echod check` accepts it, whatever it warns of on this host."""
    config = tmp_path / "echod.yaml"
    config.write_text(example)
    printed = run_echod("check", "--config", config)
    assert printed.returncode == os.EX_OK
    assert printed.stdout.splitlines()[-1].startswith(
        (f"{config}: ok; listeners: ", f"{config}: ok; default listeners: ")
    )


def test_the_drop_in_of_the_example_is_what_check_prints(tmp_path: Path) -> None:
    """With the listeners of the example, `echod check --socket` prints that drop-in to the letter."""
    config = tmp_path / "echod.yaml"
    example, drop_in, _ = literals(section("echod.yaml.5", "The sockets that systemd holds"))
    config.write_text(example)
    printed = run_echod("check", "--config", config, "--socket")
    assert printed.returncode == os.EX_CONFIG
    assert drop_in in printed.stdout
