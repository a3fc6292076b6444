"""Listeners of every mode on a host: in the sandbox, bound and passed, over IPv4 and IPv6, with keys."""

import json
import socket
from typing import Any

from support.system.installation import Mode
from support.system.operating import CONFIG, Host, family
from support.waiting import SECONDS, wait_until

from echod.wire import stamp, udpecho_plus
from echod.wire.reveal import decode

KEY = b"a key that both know"
EF = 46 << 2
CREDENTIAL, GROUP = "/etc/echod/stamp.key", "/etc/echod/group.key"

MODES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("udp", 7, {}),
    ("udp", 7070, {"mode": "udpecho_plus"}),
    ("udp", 862, {"mode": "stamp", "stateful": True, "hmac_key": "stamp.key", "dscp": "reflect"}),
    ("udp", 863, {"mode": "stamp", "hmac_key": GROUP}),
    ("udp", 7071, {"dscp": "reflect"}),
    ("udp", 7072, {"impair": {"delay": "5 ms", "jitter": "1 ms"}}),
    ("udp", 7073, {"mode": "reveal"}),
    ("udp", 9, {"mode": "discard"}),
    ("tcp", 9, {"mode": "discard"}),
    ("tcp", 7072, {"impair": {"delay": "5 ms"}}),
)
LISTENERS = [
    {"address": f"{protocol}://{address}:{port}", **options}
    for address in ("0.0.0.0", "[::]")  # noqa: S104 - the host's
    for protocol, port, options in MODES
]


def prepare(host: Host, mode: Mode) -> None:
    """Give echod every listener and its keys, in the order in which `echod check` demands it.

    Of the keys root alone may read one, which is passed as a credential, and a group the other.
    """
    host.write(CONFIG, json.dumps({"workers": 2, "listeners": LISTENERS}))
    host.write(CREDENTIAL, KEY.decode(), mode=0o600)
    host.write(GROUP, f"{KEY.decode()}\n", mode=0o600)
    checked = host.run(["echod", "check"], check=False)
    hidden = f"listeners[3].hmac_key: echod.service cannot read {GROUP}: Permission denied: write LoadCredential="
    assert (checked.returncode, hidden in checked.stdout) == (78, True), checked
    host.run(["groupadd", "--system", "echod-keys"])
    host.run(["chgrp", "echod-keys", GROUP])
    host.run(["chmod", "640", GROUP])
    host.drop_in(f"[Service]\nLoadCredential=stamp.key:{CREDENTIAL}\nSupplementaryGroups=echod-keys\n", "keys.conf")
    checked = host.run(["echod", "check"], check=False)
    if mode is Mode.ACTIVATED:
        text, _ = checked.stdout[checked.stdout.index("[Socket]\n") :].split("\n\n")
        host.drop_in(text, "listeners.conf", "echod.socket")
        host.systemctl("stop")
        host.systemctl("restart", "echod.socket")
        checked = host.run(["echod", "check"], check=False)
    assert (checked.returncode, "udp://0.0.0.0:862 (stamp), " in checked.stdout) == (0, True), checked
    host.systemctl("restart")


def ask_with_tos(host: Host, address: str, port: int, payload: bytes) -> tuple[bytes, int]:
    """Ask with the DSCP EF, marked as ECN-capable (ECT 0); return the reply and its TOS or traffic class."""
    six = ":" in address
    level, tos, report = (
        (socket.IPPROTO_IPV6, 67, 66) if six else (socket.IPPROTO_IP, 1, 13)
    )  # IP(V6)_RECVT...: linux/in6.h
    with host.client(), socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.setsockopt(level, tos, EF | 2)
        client.setsockopt(level, report, 1)
        client.connect((address, port))
        client.send(payload)
        reply, [(_, _, data)], *_ = client.recvmsg(2048, 100)
        return reply, int.from_bytes(data[:4].ljust(4, b"\0"), "little")


def assert_every_mode_answers(host: Host, address: str) -> None:
    """Ask each listener from outside, by new clients, whose sessions begin."""
    assert host.ask(address=address) == b"hello"
    plus = udpecho_plus.read(host.ask(udpecho_plus.request(7, 1, b"data"), address=address, port=7070))
    assert (plus.sequence, plus.response_sequence, plus.failures, plus.data) == (7, 1, 0, b"data")
    packet = stamp.request(5, 0, key=KEY)
    data, tos = ask_with_tos(host, address, 862, packet)
    reply = stamp.read_reply(data, KEY)
    assert (reply.sender_sequence, reply.sequence, tos) == (5, 0, EF)
    reply = stamp.read_reply(host.ask(packet, address=address, port=863), KEY)
    assert (reply.sender_sequence, reply.sequence, reply.ttl) == (5, 5, 64)
    assert ask_with_tos(host, address, 7071, b"hello") == (b"hello", EF)
    for ask in (host.ask, host.converse):
        assert ask(address=address, port=7072) == b"hello"
    seen = decode(host.ask(bytes(400), address=address, port=7073))
    assert seen is not None
    assert (seen.local, seen.local_port, seen.length, seen.ttl) == (address, 7073, 400, 64)
    assert host.converse(address=address, port=9) == b""


def test_every_mode_answers_in_the_sandbox(installed: Host, mode: Mode) -> None:
    """From outside, over both families, before and after a reload; each passes its self test, and discard counts."""
    prepare(installed, mode)
    for _ in range(2):
        for address in (installed.address, installed.address6):
            assert_every_mode_answers(installed, address)
            with installed.client(), socket.socket(family(address), socket.SOCK_DGRAM) as client:
                client.sendto(b"nothing", (address, 9))
        checked = installed.run(["echod", "status", "--check"], check=False)
        assert checked.stdout.splitlines()[-1] == f"all {len(LISTENERS)} listeners replied", checked
        installed.systemctl("reload")

    def discarded() -> bool:
        udp = json.loads(installed.run(["echod", "status", "--json"]).stdout)["activity"]["udp"]
        counted = [each["dropped"].get("discarded") for each in udp if each["mode"] == "discard"]
        return counted == [2, 2]

    wait_until(discarded, "each datagram to port 9 was counted")
    assert installed.journal("--unit=echod", "--priority=err") == []
