"""The unit files: those of instances are those of the one echod, but for what makes an instance."""

import ast
import re
from difflib import unified_diff

import pytest
from support.daemon import REPOSITORY

SYSTEMD = REPOSITORY / "packaging/systemd"

OWN = {
    "echod.service": """\
-Description=Echo daemon (RFC 862)
+Description=Echo daemon (RFC 862), instance %i
-ExecStart=/usr/bin/env --ignore-signal=HUP,USR1 /usr/local/bin/echod run --config /etc/echod.yaml
+ExecStart=/usr/bin/env --ignore-signal=HUP,USR1 /usr/local/bin/echod run --config /etc/echod/%i.yaml
-ExecReload=/usr/local/bin/echod reload
+ExecReload=/usr/local/bin/echod reload --config /etc/echod/%i.yaml
-RuntimeDirectory=echod
-SyslogIdentifier=echod
+RuntimeDirectory=echod-%i
+SyslogIdentifier=echod-%i
""",
    "echod.socket": """\
-Description=Echo ports (RFC 862)
+Description=Echo ports (RFC 862), instance %i
-ListenDatagram=0.0.0.0:7
-ListenDatagram=[::]:7
-ListenStream=0.0.0.0:7
-ListenStream=[::]:7
""",
    "echod-metrics.socket": """\
-Description=Metrics of the echo daemon
+Description=Metrics of the echo daemon, instance %i
-ListenStream=127.0.0.1:9007
-Service=echod.service
+Service=echod@%i.service
-RequiredBy=echod.service
+RequiredBy=echod@%i.service
""",
}
"""By unit, what its template lacks (-) and has instead (+)."""


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_template_is_its_unit_with_the_name_of_the_instance(name: str) -> None:
    """A setting that is added to one and not to the other would be missing where it is looked for last."""
    texts = [(SYSTEMD / each).read_text() for each in (name, name.replace(".", "@."))]
    lines = [[line for line in text.splitlines() if line and line[0] != "#"] for text in texts]
    changed = [line for line in list(unified_diff(*lines, n=0))[2:] if line[:2] != "@@"]
    assert sorted(changed) == sorted(OWN[name].splitlines())


def test_no_message_of_the_daemon_names_the_units_of_the_one_echod() -> None:
    """It may be of an instance, whose units have other names; the commands that write units name what they write."""
    for path in (REPOSITORY / "echod").glob("[!c]*/*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        texts = [str(node.value) for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
        assert not [text for text in texts if re.search(r"echod(-metrics)?\.(service|socket)", text)], path
