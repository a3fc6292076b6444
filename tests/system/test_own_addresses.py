"""echod knows which addresses are the host's own, whatever its sandbox, and answers no datagram that forges one."""

from support.loopback import inject
from support.system.installation import Mode
from support.system.operating import PORT, Host
from support.waiting import wait_until

NEW_ADDRESSES = ("10.77.0.60/24", "fd00:77::60/64")
FORGED = "ECHOD_DROPPED_SOURCE_IS_SELF"
SOURCE_PORT = 5000  # that no other rule refuses

ONLY_PORTS = """[Socket]
ListenNetlink=
ListenDatagram=0.0.0.0:7
ListenDatagram=[::]:7
ListenStream=0.0.0.0:7
ListenStream=[::]:7
"""
NO_NETLINK = "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n"


def forge(host: Host, source: str) -> None:
    """Send the host a datagram from the client's end that says that it comes from this address, to this address."""
    with host.client():
        inject((source, PORT), b"forged", source=source, source_port=SOURCE_PORT)


def forged(host: Host) -> int:
    """Return how many datagrams echod has refused because they came from the host itself."""
    before = len(host.events("counters"))
    host.kill("USR1", host.supervisor())
    return sum(int(entry.get(FORGED, 0)) for entry in host.await_event("counters", before + 2)[before:])


def own_counts(host: Host) -> list[int]:
    """Return how many addresses echod has found to be the host's own, each time that this changed."""
    return [int(entry["ECHOD_COUNT"]) for entry in host.events("own_addresses")]


def test_a_datagram_that_forges_an_address_of_the_host_is_not_answered(installed: Host) -> None:
    """From outside, in both families, also an address that came later: counted as source_is_self, and no loop."""
    installed.configure("log: {level: debug}\n", "restart")
    for setting in ("all/rp_filter=0", "eth0/rp_filter=0", "eth0/accept_local=1"):
        name, _, value = setting.partition("=")
        installed.run(["sh", "-c", f"echo {value} >/proc/sys/net/ipv4/conf/{name}"])
    known = wait_until(lambda: own_counts(installed), "own addresses are known")[-1]
    for address in NEW_ADDRESSES:
        installed.add_address(address)
    wait_until(lambda: own_counts(installed)[-1] == known + 2, "the new addresses are known")
    sources = (installed.address, installed.address6, *(address.partition("/")[0] for address in NEW_ADDRESSES))
    for number, source in enumerate(sources, start=1):
        forge(installed, source)
        wait_until(lambda number=number: forged(installed) == number, f"{source} is counted")  # type: ignore[misc]
        assert installed.ask(address=source) == b"hello"
    for address in NEW_ADDRESSES:
        installed.run(["ip", "address", "delete", address, "dev", "eth0"])
    wait_until(lambda: own_counts(installed)[-1] == known, "the addresses are forgotten")
    assert installed.events("own_addresses_unknown") == []


def test_where_they_cannot_be_known_the_operator_is_told_and_echod_serves(installed: Host, mode: Mode) -> None:
    """Without the one line of the unit that this takes, a warning names that line."""
    if mode is Mode.ACTIVATED:
        installed.systemctl("stop", "echod.service", "echod.socket")
        installed.drop_in(ONLY_PORTS, unit="echod.socket")
        installed.systemctl("start", "echod.socket")
    else:
        installed.drop_in(NO_NETLINK)
    installed.systemctl("restart")
    (entry,) = installed.await_event("own_addresses_unknown")
    assert entry["PRIORITY"] == "4"
    line = "ListenNetlink=route to the .socket unit" if mode is Mode.ACTIVATED else "AF_NETLINK to RestrictAddressFamil"
    assert line in entry["MESSAGE"]
    assert installed.serves_everything()


def test_changes_of_addresses_do_not_start_echod(activated: Host) -> None:
    """ListenNetlink=route hears nothing by itself: only a datagram or a connection starts a stopped echod."""
    activated.systemctl("stop")
    for _ in range(3):
        for verb in ("add", "delete"):
            for address in NEW_ADDRESSES:
                activated.run(["ip", "address", verb, address, "dev", "eth0"])
        activated.run(["ip", "link", "set", "lo", "down"])
        activated.run(["ip", "link", "set", "lo", "up"])
    assert (activated.show("ActiveState"), activated.show("SubState", "echod.socket")) == ("inactive", "listening")
    assert activated.ask() == b"hello"
    assert activated.show("ActiveState") == "active"
