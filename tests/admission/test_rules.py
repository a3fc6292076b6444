"""echod.admission.rules: a config becomes the rules that it says."""

from support.peers import peer

from echod.admission.rules import compile_access, compile_rules
from echod.config.schema import Config
from echod.stats.outcomes import Drop


def test_each_key_becomes_its_rule() -> None:
    """Lists, the lowest source port, more ports and own ports: each refuses for its reason, and nothing else does."""
    config = Config.model_validate(
        {
            "access": {"allow": ["10.0.0.0/8", "fd00::/8"], "deny": ["10.0.0.9"]},
            "guard": {"min_source_port": 2000, "refuse_source_ports": [4444]},
        }
    )
    rules = compile_rules(config, compile_access(config.access), [7, 7007])
    for host, port, drop in (
        ("10.0.0.1", 40_000, None),
        ("fd00::1", 40_000, None),
        ("10.0.0.9", 40_000, Drop.ACCESS),
        ("192.0.2.1", 40_000, Drop.ACCESS),
        ("10.0.0.1", 1999, Drop.SOURCE_PORT_LOW),
        ("10.0.0.1", 4444, Drop.SOURCE_PORT_REFUSED),
        ("10.0.0.1", 7007, Drop.SOURCE_PORT_OWN),
    ):
        assert rules.judge(peer(host, port), on_loopback=False) is drop
