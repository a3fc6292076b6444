"""The firewall's definitions of echod open the ports that echod serves by default, and no other."""

import re
from xml.etree import ElementTree as ET

from support.daemon import REPOSITORY

from echod.config.schema import Config

FOLDER = REPOSITORY / "packaging/firewall"

SERVED = {(listener.protocol.value, listener.port) for listener in Config().listeners}


def test_the_service_of_firewalld_has_the_default_ports() -> None:
    """firewalld.service(5): a port for each protocol."""
    service = ET.parse(FOLDER / "echod.xml").getroot()  # noqa: S314 - our own file
    assert {(port.attrib["protocol"], int(port.attrib["port"])) for port in service.iter("port")} == SERVED


def test_the_profile_of_ufw_has_the_default_ports() -> None:
    """`ports=` of ufw(8), section APPLICATION INTEGRATION, below the name that `ufw allow` takes."""
    text = (FOLDER / "echod.ufw").read_text()
    (name,) = re.findall(r"^\[(.*)\]$", text, re.MULTILINE)
    (ports,) = re.findall(r"^ports=(.*)$", text, re.MULTILINE)
    assert name == "echod"
    assert {(protocol, int(port)) for port, _, protocol in (each.partition("/") for each in ports.split("|"))} == SERVED
