"""echod.worker.rules: a config becomes the rules that it declares."""

from ipaddress import ip_network

from support.peers import peer

from echod.admission.rules import Rules
from echod.config.schema import Config
from echod.stats.outcomes import Drop
from echod.worker.rules import declare_rules


def test_each_key_becomes_its_rule() -> None:
    """Lists, the lowest source port, more ports, own ports and addresses: each refuses for its reason."""
    config = Config.model_validate(
        {
            "access": {"allow": ["10.0.0.0/8", "fd00::/8"], "deny": ["10.0.0.9"]},
            "listeners": ["udp://127.0.0.1:7007", "tcp://127.0.0.1:7008"],
            "guard": {"min_source_port": 2000, "refuse_source_ports": [4444]},
        }
    )
    rules = Rules(declare_rules(config, config.listeners, [ip_network("10.0.0.8")], self_test_port=20_000))
    for host, port, drop in (
        ("10.0.0.1", 40_000, None),
        ("fd00::1", 40_000, None),
        ("10.0.0.9", 40_000, Drop.ACCESS),
        ("192.0.2.1", 40_000, Drop.ACCESS),
        ("10.0.0.1", 1999, Drop.SOURCE_PORT_LOW),
        ("10.0.0.1", 4444, Drop.SOURCE_PORT_REFUSED),
        ("10.0.0.1", 7007, Drop.SOURCE_PORT_OWN),
        ("10.0.0.1", 7008, None),
        ("10.0.0.1", 20_000, Drop.SOURCE_PORT_OWN),
        ("10.0.0.8", 40_000, Drop.SOURCE_IS_SELF),
    ):
        assert rules.judge(peer(host, port), on_loopback=False) is drop


def test_without_a_self_test_its_port_is_any_port() -> None:
    """The port of self tests is refused only while there are self tests."""
    config = Config.model_validate({"access": {"allow": ["any"]}})
    rules = Rules(declare_rules(config, config.listeners, []))
    assert rules.judge(peer("10.0.0.1", 20_000), on_loopback=False) is None
