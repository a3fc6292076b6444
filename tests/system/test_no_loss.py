"""Under 10,000 datagrams a second from outside, whatever an operator does loses none of them."""

from support.system.installation import Mode, Release, install_command
from support.system.load import loaded
from support.system.operating import Host

SECONDS = 30.0
RELOADS, RESTARTS = 5, 3


def test_nothing_is_lost_in_reloads_restarts_and_an_upgrade(activated: Host, release: Release) -> None:
    """30 s of load during 5 reloads, 3 restarts with the socket unit and an upgrade: each datagram is answered once."""
    # Beside other tests a restart may take longer than the two seconds that 8 MiB hold.
    activated.drop_in("[Socket]\nReceiveBuffer=64M\n", unit="echod.socket")
    activated.run(["systemctl", "restart", "echod.socket", "echod.service"])
    release.bring(activated)
    seen = {activated.supervisor()}
    with loaded(activated, SECONDS):
        for number in range(RELOADS):
            activated.configure(f"workers: {2 + number % 2}\n")
        for _ in range(RESTARTS):
            activated.systemctl("restart")
            seen.add(activated.supervisor())
        before = activated.run(["readlink", "/opt/echod/current"]).stdout
        activated.run(install_command(Mode.ACTIVATED))
        seen.add(activated.supervisor())
        assert activated.run(["readlink", "/opt/echod/current"]).stdout != before
    assert len(seen) == RESTARTS + 2


def test_nothing_is_lost_in_reloads_with_ports_of_its_own(bound: Host) -> None:
    """Where echod binds its own ports, 5 reloads that change the workers lose nothing."""
    before = bound.supervisor()
    with loaded(bound, 5):
        for number in range(RELOADS):
            bound.configure(f"workers: {2 + number % 2}\n")
    assert bound.supervisor() == before
