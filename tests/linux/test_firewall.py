"""echod.linux.firewall: whether there are rules and policies, or that it may not be known."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.loopback import NOBODY, ip, namespace, needs_root

from echod.linux import firewall
from echod.linux.firewall import has_policies, has_rules

pytestmark = needs_root


def nft(*words: str) -> None:
    """Change the rules of the namespace that we are in."""
    subprocess.run(["nft", *words], check=True)


def test_a_host_without_rules_and_policies_has_none() -> None:
    """Nor has one with a chain that is empty."""
    with namespace():
        assert (has_rules(), has_policies()) == (False, False)
        nft("add table t; add chain t c { type filter hook input priority 0; }")
        assert has_rules() is False


@pytest.mark.parametrize("family", ["ip", "ip6", "inet", "netdev"])
def test_one_rule_of_any_family_is_found(family: str) -> None:
    """And of no policy is anything said."""
    with namespace():
        hook = "ingress device lo" if family == "netdev" else "input"
        nft(f"add table {family} t; add chain {family} t c {{ type filter hook {hook} priority 0; }}")
        nft(f"add rule {family} t c counter")
        assert (has_rules(), has_policies()) == (True, False)


def test_a_policy_is_found() -> None:
    """Whatever its direction."""
    with namespace():
        ip("xfrm", "policy", "add", "dir", "fwd", "dst", "10.7.1.2", "action", "block")
        assert (has_rules(), has_policies()) == (False, True)


def test_tables_of_iptables_legacy_are_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names them; where none is loaded it is empty or not there."""
    names = tmp_path / "names"
    monkeypatch.setattr(firewall, "_LEGACY_TABLES", (names,))
    with namespace():
        assert has_rules() is False
        names.write_text("")
        assert has_rules() is False
        names.write_text("filter\n")
        assert has_rules() is True


@pytest.mark.parametrize("ask", [has_rules, has_policies])
def test_a_user_without_privileges_may_not_know(ask: Callable[[], bool | None]) -> None:
    """That is neither yes nor no, whether there are rules or not."""
    with namespace():
        os.seteuid(NOBODY)
        try:
            assert ask() is None
        finally:
            os.seteuid(0)
