"""`echod check` and packaging/install look at a config as the service will: its user, its sandbox, its sockets."""

import re
import subprocess

from support.man import literals, section
from support.system.installation import Mode, Release, fetch, install_command
from support.system.operating import CONFIG, OK, Host

REFUSED = "packaging/install: echod would not start with /etc/echod.yaml, for the reason above; nothing was changed\n"

METRICS = "http://127.0.0.1:9007"
OTHER_PORTS = "listeners:\n  - udp://0.0.0.0:7\n  - udp://0.0.0.0:7007\n"


def pasted(host: Host, advice: str) -> str:
    """Write the drop-in that was printed, and return the command that applies it."""
    heading, _, rest = advice.partition(":\n\n")
    lines, _, command = rest.partition("\n\nthen run: ")
    host.write(heading.rpartition(" ")[2], f"{lines}\n")
    return command.splitlines()[0]


def test_a_file_that_the_service_cannot_read_is_refused(bound: Host, release: Release) -> None:
    """Root can read it, the service could not: check reports it, and an upgrade stops before anything is stopped."""
    release.bring(bound)
    before = bound.supervisor()
    bound.run(["cp", CONFIG, "/etc/good"])
    for hide in (
        *(f"mv {CONFIG} /{place}/x && ln -s /{place}/x {CONFIG}" for place in ("root", "tmp", "var/tmp")),
        f"chmod 600 {CONFIG}",
    ):
        bound.run(["sh", "-c", hide])
        printed = bound.run(["echod", "check"], check=False)
        assert printed.returncode == 66
        assert printed.stderr.startswith(f"echod: echod.service cannot read {CONFIG}: ")
        assert "and it does not see /home, /root, /tmp and /var/tmp: " in printed.stderr
        if "chmod" in hide:
            printed = bound.run(install_command(Mode.BOUND), check=False)
            assert f"echod.service cannot read {CONFIG}: " in printed.stdout
            assert (printed.returncode, printed.stderr) == (1, REFUSED)
        assert bound.supervisor() == before
        bound.run(["cp", "--remove-destination", "/etc/good", CONFIG])
        assert bound.run(["echod", "check"]).stdout == OK
    assert bound.serves_everything()


def test_a_drop_in_of_the_operator_counts(bound: Host) -> None:
    """With a user who can read the file, and with root's home to be seen, there is no mistake."""
    bound.run(["useradd", "--system", "echo"])
    bound.run(["chown", "echo", CONFIG])
    bound.run(["chmod", "400", CONFIG])
    assert bound.run(["echod", "check"], check=False).returncode == 66
    bound.write("/etc/systemd/system/echod.service.d/user.conf", "[Service]\nDynamicUser=no\nUser=echo\n")
    bound.daemon_reload()
    assert bound.run(["echod", "check"]).stdout == OK
    bound.systemctl("restart")
    assert bound.serves_everything()


def test_a_listener_that_the_socket_unit_does_not_pass_is_refused(activated: Host, release: Release) -> None:
    """Check fails as a restart would, and prints the drop-in, with which all is well. An upgrade stops at it, too."""
    release.bring(activated)
    before = activated.supervisor()
    activated.write(CONFIG, OTHER_PORTS)
    printed = activated.run(["echod", "check"], check=False)
    assert printed.returncode == 78
    assert f"{CONFIG}:3:5: error: listeners[1]: echod.socket does not pass udp://0.0.0.0:7007" in printed.stdout
    upgrade = activated.run(install_command(Mode.ACTIVATED), check=False)
    assert printed.stdout in upgrade.stdout
    assert upgrade.stderr == REFUSED
    assert activated.supervisor() == before
    assert activated.serves_everything()
    activated.run(["sh", "-c", pasted(activated, printed.stdout)])
    assert activated.run(["echod", "check"]).stdout == f"{CONFIG}: ok; listeners: udp://0.0.0.0:7, udp://0.0.0.0:7007\n"
    assert activated.ask(port=7007) == b"hello" == activated.ask()
    activated.write(CONFIG, "listeners: ['udp://0.0.0.0:7']\n")
    printed = activated.run(["echod", "check"])
    assert printed.stdout == f"{CONFIG}: ok; listeners: udp://0.0.0.0:7; passed by systemd too: udp://0.0.0.0:7007\n"


def test_the_port_of_the_metrics_needs_a_socket_unit_too(activated: Host) -> None:
    """The command that check prints, run as printed, serves metrics at the address of the config.

    Check warns of a config with another address than that of the unit.
    """
    activated.write(CONFIG, f"metrics: {{listen: '{METRICS}'}}\n")
    printed = activated.run(["echod", "check"], check=False)
    assert printed.returncode == 78
    command = printed.stdout.partition("may not open sockets itself: ")[2].splitlines()[0]
    activated.run(["sh", "-c", command])
    assert activated.run(["echod", "check"]).stdout == OK.replace("listeners", "default listeners")
    assert activated.serves_everything()
    assert 'listener="udp://0.0.0.0:7"' in fetch(activated, f"{METRICS}/metrics")
    activated.write(CONFIG, "metrics: {listen: 'http://127.0.0.1:9008'}\n")
    printed = activated.run(["echod", "check"])
    assert f"warning: metrics.listen: echod-metrics.socket passes {METRICS} in its place: " in printed.stdout


def test_the_examples_of_the_man_page_serve_what_they_say(activated: Host) -> None:
    """echod.yaml(5), to the letter: listeners with their drop-in, then metrics with the unit that has their port.

    The address of the listeners comes to the host later.
    """
    page = section("echod.yaml.5", "The sockets that systemd holds")
    listeners, lines, apply = literals(page)
    served, enable = literals(section("echod.yaml.5", "Metrics"))
    activated.write(CONFIG, listeners)
    (place,) = re.findall(r"/etc/systemd/\S+", page)
    activated.write(place, lines)
    activated.run(["sh", "-ec", apply.replace("# ", "")])
    activated.write(CONFIG, f"{listeners}{served}")
    activated.run(["sh", "-ec", enable.replace("# ", "")])
    (address,) = set(re.findall(r"udp://(.*):7000", listeners))
    activated.add_address(f"{address}/32")
    assert activated.run(["echod", "check"]).stdout.startswith(f"{CONFIG}: ok; listeners: udp://")
    with activated.client():
        subprocess.run(["ip", "route", "add", address, "dev", "eth0"], check=True)
    assert activated.ask(address=address, port=7000) == activated.converse(address=address, port=7000) == b"hello"
    assert f'listener="udp://{address}:7000"' in fetch(activated, f"{METRICS}/metrics")


def test_a_change_to_the_socket_unit_compares_first(bound: Host, release: Release) -> None:
    """What runs goes on with its own ports until the drop-in is there; then systemd has them, also after a boot."""
    release.bring(bound)
    bound.configure(OTHER_PORTS, "restart")
    before = bound.supervisor()
    printed = bound.run(install_command(Mode.ACTIVATED), check=False)
    assert (printed.returncode, printed.stderr) == (1, REFUSED)
    assert bound.supervisor() == before
    assert bound.ask(port=7007) == b"hello"
    pasted(bound, printed.stdout)
    bound.run(install_command(Mode.ACTIVATED))
    bound.reboot()
    assert bound.show("ActiveState", "echod.socket") == "active"
    assert bound.ask(port=7007) == b"hello" == bound.ask()


def test_a_first_installation_compares_too(host: Host, release: Release) -> None:
    """With a config from before: nothing is started, and what was printed helps."""
    release.bring(host)
    host.write(CONFIG, OTHER_PORTS)
    printed = host.run(install_command(Mode.ACTIVATED), check=False)
    assert printed.stderr == REFUSED.replace("nothing was changed", "nothing was started")
    assert not host.answers()
    pasted(host, printed.stdout)
    host.run(install_command(Mode.ACTIVATED))
    assert host.ask(port=7007) == b"hello" == host.ask()
