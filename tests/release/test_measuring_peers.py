"""STAMP and TWAMP-Light before programs that echod has no part in: the dissectors of Wireshark, the layers of Scapy.

Both come from Debian. Debian and PyPI have no client of STAMP or of TWAMP beside them.
"""

import json
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.daemon import StartDaemon, ask
from support.ports import free_port
from support.system.chroot import run_in
from support.system.host import obstacle
from support.system.image import Debian, make_root

from echod.wire import stamp, tlv
from echod.wire.ntp import ErrorEstimate

INSTALL = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; apt-get install -y -qq --no-install-recommends "

SENT = 1_700_000_000_250_000_000
"""14 November 2023, 22:13:20.25 UTC, in ns since 1970."""
KNOWN = ErrorEstimate(synchronized=True, scale=20, multiplier=200)

FIELDS = (
    "seq_number",
    "sender_seq_number",
    "error_estimate.s",
    "error_estimate.z",
    "error_estimate.multiplier",
    "sender_error_estimate",
    "mbz1",
    "mbz2",
    "sender_ttl",
    "timestamp",
    "sender_timestamp",
    "receive_timestamp",
)

SCAPY = """
import json, socket, sys
from scapy.contrib.stamp import (
    ErrorEstimate, STAMPSessionReflectorTestUnauthenticated, STAMPSessionSenderTestUnauthenticated, STAMPTestTLV
)
answers = []
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.connect(("127.0.0.1", int(sys.argv[1])))
for sequence in (70, 71):
    asked = STAMPSessionSenderTestUnauthenticated(
        seq=sequence, ts=3912000000.5, ssid=9, err_estimate=ErrorEstimate(S=1, scale=16, multiplier=128),
        tlv_objects=[STAMPTestTLV(flags="U", type=4, len=4, value=bytes(4)), STAMPTestTLV(flags=0, type=200)])
    client.send(bytes(asked))
    data = client.recv(1000)
    reply = STAMPSessionReflectorTestUnauthenticated(data)
    answers.append({
        "length": len(data), "asked": len(bytes(asked)), "seq": reply.seq, "seq_sender": reply.seq_sender,
        "ssid": reply.ssid, "ttl": reply.ttl_sender, "ts_sender": float(reply.ts_sender),
        "S": reply.err_estimate_sender.S, "scale": reply.err_estimate_sender.scale,
        "multiplier": reply.err_estimate.multiplier, "ordered": bool(reply.ts_rx <= reply.ts),
        "zeros": [int(reply.mbz1), int(reply.mbz2)],
        "tlvs": [[int(each.flags), each.type, each.value.hex()] for each in reply.tlv_objects],
    })
print(json.dumps(answers))
"""


@pytest.fixture(params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest) -> Debian:
    """Give each Debian, with its root made."""
    if reason := obstacle():
        pytest.skip(reason)
    return make_root(request.param)


def write_capture(path: Path, exchanges: Sequence[tuple[bytes, bytes]]) -> None:
    """Write requests and replies into a capture, as IPv4 packets to and from port 862."""
    client, server = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    packets = []
    for request, reply in exchanges:
        for ports, addresses, payload in (
            ((50_000, stamp.PORT), client + server, request),
            ((stamp.PORT, 50_000), server + client, reply),
        ):
            udp = struct.pack(">4H", *ports, 8 + len(payload), 0) + payload
            packets.append(struct.pack(">BxH4xBB2x", 0x45, 20 + len(udp), 64, socket.IPPROTO_UDP) + addresses + udp)
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)  # 101: LINKTYPE_RAW
    records = (struct.pack("<IIII", number, 0, len(each), len(each)) + each for number, each in enumerate(packets))
    path.write_bytes(header + b"".join(records))


def listeners(*options: dict[str, object]) -> tuple[dict[str, object], list[int]]:
    """Make a config with a reflector for each of these options; return it with their ports."""
    ports = [free_port() for _ in options]
    made = [
        {"address": f"udp://127.0.0.1:{port}", "mode": "stamp", **each}
        for port, each in zip(ports, options, strict=True)
    ]
    return {"listeners": made}, ports


def test_wireshark_shows_every_packet_without_a_malformed_mark(
    debian: Debian, echod: StartDaemon, tmp_path: Path
) -> None:
    """Of requests and replies, with all fields as they were meant. What is authenticated it cannot read, and shows."""
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    config, ports = listeners(
        {}, {"stateful": True}, {"short_packets": "pad"}, {"stateful": True, "hmac_key": str(key)}
    )
    echod(config)
    tlvs = tlv.encode(tlv.Type.CLASS_OF_SERVICE, bytes(4)) + tlv.encode(tlv.Type.LOCATION, bytes(4)) + tlv.encode(99)
    requests = [
        stamp.request(7, SENT, error_estimate=KNOWN, ssid=3),
        stamp.request(7, SENT, error_estimate=KNOWN, tlvs=tlvs),
        stamp.request(8, SENT, error_estimate=KNOWN)[:41],
        stamp.request(9, SENT, error_estimate=KNOWN, tlvs=tlvs, key=b"secret"),
    ]
    exchanges = [(request, ask(port, request)) for port, request in zip(ports, requests, strict=True)]
    write_capture(tmp_path / "capture.pcap", exchanges)
    tshark = f"tshark -n -r /given/capture.pcap -d udp.port=={stamp.PORT},twamp.test"
    names = " ".join(f"-e twamp.test.{name}" for name in FIELDS)
    script = f"{INSTALL} tshark >&2; export TZ=UTC; {tshark} -V; echo ----; {tshark} -T fields -E 'separator=|' {names}"
    shown, _, fields = run_in(debian.root, script, tmp_path).stdout.partition("\n----\n")
    assert shown.count("TwoWay Active Measurement Test Protocol") == 8
    assert "alformed" not in shown
    assert "Expert Info" not in shown
    rows = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in fields.splitlines()]
    for row, ssid, sequence, number in ((0, 3, 7, 7), (2, 0, 7, 0), (4, 0, 8, 8)):
        request, reply = rows[row], rows[row + 1]
        assert (int(request["seq_number"]), int(reply["sender_seq_number"])) == (sequence, sequence)
        assert int(reply["seq_number"]) == number
        assert "22:13:20.250000000" in request["timestamp"].replace("T", " ")
        assert reply["sender_timestamp"] == request["timestamp"]
        assert reply["receive_timestamp"] != "" != reply["timestamp"]
        assert (int(reply["mbz1"], 0), int(reply["mbz2"], 0), int(reply["sender_ttl"])) == (ssid, 0, 64)
        assert int(reply["sender_error_estimate"], 0) == 0x94C8
        assert int(reply["error_estimate.multiplier"].split(",")[0]) > 0


def test_scapy_asks_and_reads_the_replies(trixie: Debian, echod: StartDaemon, tmp_path: Path) -> None:
    """Its request of STAMP has a reply, in which it finds its own fields, the session's numbers and the TLVs.

    Scapy 2.5 of Debian 12 cannot read what it makes itself: its layer asks for a length that no datagram has there.
    """
    config, [port] = listeners({"stateful": True})
    echod(config)
    (tmp_path / "peer.py").write_text(SCAPY)
    done = run_in(trixie.root, f"{INSTALL} python3-scapy >&2; python3 /given/peer.py {port}", tmp_path)
    answers = json.loads(done.stdout.splitlines()[-1])
    for number, answer in enumerate(answers):
        assert answer.pop("multiplier") > 0
        assert answer == {
            "length": 56,
            "asked": 56,
            "seq": number,
            "seq_sender": 70 + number,
            "ssid": 9,
            "ttl": 64,
            "ts_sender": 3_912_000_000.5,
            "S": 1,
            "scale": 16,
            "ordered": True,
            "zeros": [0, 0],
            "tlvs": [[0, 4, "00000000"], [0x80, 200, ""]],
        }
