"""A service in systemd's full sandbox works in a host as on a machine: each wall stands, and the service runs.

Without these proofs, a test that the daemon works in its sandbox could pass because there was no sandbox.
"""

import json

import pytest
from support.system.host import Host
from support.waiting import wait_until

# Says what it can and cannot do, in one line of JSON, then feeds the watchdog until it is stopped.
PROBE = '''
import ctypes, errno, json, mmap, os, resource, socket, threading

libc = ctypes.CDLL(None, use_errno=True)

def attempt(action):
    """Return "done", or the name of the error."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def call(function, *arguments):
    if function(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")

def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, 9))

def bind():
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 7))

def notify(message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        sender.send(message)

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "root": os.getuid() == 0,
    "capabilities": status["CapEff"],
    "no_new_privileges": status["NoNewPrivs"],
    "write_usr": attempt(lambda: open("/usr/file", "w").close()),
    "write_state": attempt(lambda: open(os.environ["STATE_DIRECTORY"] + "/file", "w").close()),
    "temporary": os.listdir("/tmp"),
    "disks": sorted({"kmsg", "mem", "fuse", "initctl"} & set(os.listdir("/dev"))),
    "tunables": attempt(lambda: open("/proc/sys/net/ipv4/ip_forward", "w").close()),
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "executable_memory": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "namespace": attempt(lambda: call(libc.unshare, 0x10000000)),
    "setuid": attempt(lambda: os.setuid(0)),
    "inet6": attempt(lambda: socket.socket(socket.AF_INET6).close()),
    "bind_7": attempt(bind),
    "send_out": attempt(lambda: send("10.77.0.2")),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
}), flush=True)
notify(b"READY=1")
while not threading.Event().wait(0.2):
    notify(b"WATCHDOG=1")
'''

SERVICE = """
[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/local/lib/probe.py
WatchdogSec=1
DynamicUser=yes
StateDirectory=probe
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=all
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
LimitNOFILE=8192
"""

# By setting, what the probe must find. A wall that is not there shows as "done".
EXPECTED = {
    "root": False,  # DynamicUser
    "capabilities": f"{1 << 10:016x}",  # AmbientCapabilities, and nothing but CAP_NET_BIND_SERVICE
    "no_new_privileges": "1",
    "write_usr": "EROFS",  # ProtectSystem
    "write_state": "done",  # StateDirectory
    "temporary": [],  # PrivateTmp
    "disks": [],  # PrivateDevices
    "processes": 1,  # ProtectProc
    "namespace": "EPERM",  # RestrictNamespaces
    "setuid": "EPERM",  # SystemCallFilter
    "inet6": "EAFNOSUPPORT",  # RestrictAddressFamilies
    "bind_7": "done",
    "files": 8192,
}


def report(host: Host, setting: str) -> dict[str, object]:
    """Start the probe with one more setting and return what it reports."""
    host.write("/usr/local/lib/probe.py", PROBE)
    host.write("/etc/systemd/system/probe.service", f"{SERVICE}{setting}\n")
    assert host.run(["systemd-analyze", "verify", "probe.service"]).stderr == ""
    host.write("/tmp/of-another", "")  # noqa: S108 - the host's, and it must be that one
    host.run(["systemctl", "start", "probe.service"])
    (entry,) = host.journal("--unit=probe.service", "--identifier=python3")
    found = json.loads(entry["MESSAGE"])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("setting", "send_out"),
    [
        ("", "done"),
        ("PrivateNetwork=yes", "ENETUNREACH"),
        ("IPAddressDeny=any", "EPERM"),
    ],
)
def test_each_wall_of_the_sandbox_stands(host: Host, setting: str, send_out: str) -> None:
    """The probe starts in the whole sandbox, does what it may, and is refused what it may not."""
    found = report(host, setting)
    assert found["send_out"] == send_out
    # systemd 252 refuses by the seccomp rule's EPERM, 257 by the kernel's own PR_SET_MDWE with EACCES.
    assert found["executable_memory"] in {"EPERM", "EACCES"}
    # Read-only for the service, or for the lack of root.
    assert found["tunables"] in {"EROFS", "EACCES"}
    assert {key: found[key] for key in EXPECTED} == EXPECTED


def test_the_watchdog_ends_a_service_that_hangs(host: Host) -> None:
    """A service that feeds the watchdog lives; when it is stopped in its tracks, systemd fails it."""
    report(host, "")
    host.run(["systemctl", "kill", "--signal=STOP", "probe.service"])

    def result() -> bool:
        return host.run(["systemctl", "show", "--property=Result", "--value", "probe"]).stdout == "watchdog\n"

    wait_until(result, "the watchdog has struck", seconds=15)
