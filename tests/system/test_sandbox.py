"""The sandbox of the shipped units, from inside: a program in the place of echod tries what it may and may not do.

Without these proofs, a test that the daemon works in its sandbox could pass because there was no sandbox.
"""

import json

import pytest
from support.system.acceleration import ACCELERATOR
from support.system.installation import Mode
from support.system.operating import NET_BIND_SERVICE, Host

# Prints what it can and cannot do, in one line of JSON, then waits until it is stopped.
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

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "root": os.getuid() == 0,
    "capabilities": status["CapEff"],
    "no_new_privileges": status["NoNewPrivs"],
    "write_usr": attempt(lambda: open("/usr/file", "w").close()),
    "write_run": attempt(lambda: open(os.environ["RUNTIME_DIRECTORY"] + "/file", "w").close()),
    "temporary": os.listdir("/tmp") + os.listdir("/var/tmp"),
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
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
    sender.connect(os.environ["NOTIFY_SOCKET"])
    sender.send(b"READY=1")
threading.Event().wait()
'''

IN_ITS_PLACE = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /usr/local/lib/probe.py\n"
IPV4 = "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET\n"

# By setting, what the probe must find. A wall that is not there shows as "done".
EXPECTED = {
    "root": False,  # DynamicUser
    "no_new_privileges": "1",
    "write_usr": "EROFS",  # ProtectSystem
    "write_run": "done",  # RuntimeDirectory
    "temporary": [],  # PrivateTmp, which DynamicUser implies
    "disks": [],  # PrivateDevices
    "tunables": "ENOENT",  # ProcSubset
    "processes": 1,  # ProtectProc
    "namespace": "EPERM",  # RestrictNamespaces
    "setuid": "EPERM",  # SystemCallFilter
    "files": 16_384,  # LimitNOFILE
}


@pytest.mark.parametrize(
    ("mode", "setting", "walls"),
    [
        (Mode.BOUND, "", ("done", "done", "done")),
        (Mode.ACTIVATED, "", ("EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT")),
        # What stands behind RestrictAddressFamilies=: PrivateNetwork=, and behind that IPAddressDeny=.
        (Mode.ACTIVATED, IPV4, ("EAFNOSUPPORT", "EACCES", "ENETUNREACH")),
        (Mode.ACTIVATED, f"{IPV4}PrivateNetwork=no\n", ("EAFNOSUPPORT", "EACCES", "EPERM")),
    ],
    ids=["bound", "activated", "no network", "address filter"],
)
def test_each_wall_of_the_sandbox_stands(installed: Host, mode: Mode, setting: str, walls: tuple[str, ...]) -> None:
    """The probe starts in the whole sandbox, does what it may, and is refused what it may not."""
    installed.write("/usr/local/lib/probe.py", PROBE)
    for place in ("/tmp", "/var/tmp"):  # noqa: S108 - the host's, and it must be that one
        installed.write(f"{place}/of-another", "")
    installed.drop_in(f"{IN_ITS_PLACE}{setting}")
    installed.systemctl("restart")
    (entry,) = installed.journal("--unit=echod.service", "--identifier=echod", "--grep=no_new_privileges")
    found = json.loads(entry["MESSAGE"])
    # systemd 252 refuses by the seccomp rule's EPERM, 257 by the kernel's own PR_SET_MDWE with EACCES.
    assert found.pop("executable_memory") in {"EPERM", "EACCES"}
    assert int(found.pop("capabilities"), 16) == (NET_BIND_SERVICE if mode is Mode.BOUND else 0)
    assert found == {**EXPECTED, **dict(zip(("inet6", "bind_7", "send_out"), walls, strict=True))}


@pytest.mark.parametrize("debian", ["bookworm"], indirect=True, scope="session")
def test_each_wall_of_the_accelerator_stands(activated: Host) -> None:
    """In its place, a probe has the two capabilities, and can open no socket through which datagrams pass."""
    activated.write("/usr/local/lib/probe.py", PROBE)
    for place in ("/tmp", "/var/tmp"):  # noqa: S108 - the host's, and it must be that one
        activated.write(f"{place}/of-another", "")
    activated.drop_in(IN_ITS_PLACE, unit=ACCELERATOR)
    activated.systemctl("start", ACCELERATOR)
    (entry,) = activated.journal(f"--unit={ACCELERATOR}", "--grep=no_new_privileges")
    found = json.loads(entry["MESSAGE"])
    assert found.pop("executable_memory") in {"EPERM", "EACCES"}
    assert int(found.pop("capabilities"), 16) == 1 << 39 | 1 << 12  # CAP_BPF, CAP_NET_ADMIN: linux/capability.h
    closed = dict.fromkeys(("inet6", "bind_7", "send_out"), "EAFNOSUPPORT")
    assert found == {**EXPECTED, **closed, "files": 1_024}
