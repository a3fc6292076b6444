"""kernel.driver: xdp in the driver of a network card, that of an emulated machine: virtio-net, under Debian 13."""

import json
import os
import shutil
import socket
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from support.kernels import Ended, run_on_kernel
from support.ports import free_port

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("qemu-system-x86_64", "debootstrap"))),
    reason="machines with other kernels need root, debootstrap and qemu",
)

STEPS = """modprobe virtio_net
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
cat >/tmp/echod.yaml <<END
listeners: ["udp://0.0.0.0:7"]
kernel: {interfaces: [eth0, lo], driver: xdp, fresh_seconds: 1800, stale_seconds: 3600}
END
attached() { ip link show eth0 | grep -o " xdp"; }
replied() { python3 -c 'import json; print(json.load(open("/tmp/status.json"))["traffic"][0]["replied"])'; }
more_replied() { before=$(replied); until [ "$(replied)" -gt $((before + 100)) ]; do sleep 1; done; }
python3 -m echod run --config /tmp/echod.yaml 2>/tmp/daemon &
until grep -q '"ready"' /tmp/daemon; do sleep 1; done
RUNTIME_DIRECTORY=/tmp python3 -m echod accelerate --config /tmp/echod.yaml 2>/tmp/accelerator &
until grep '"ready"' /tmp/accelerator; do sleep 1; done
attached && more_replied
kill -HUP $!
until grep '"reloaded"' /tmp/accelerator; do sleep 1; done
attached && more_replied
cat /tmp/status.json
echo
kill $!
wait $!
code=$?
! attached && exit $code
"""


def ask(port: int, until: "Future[Ended]") -> tuple[int, int]:
    """Ask again and again until the machine has ended; return how often that was, and how often an answer came."""
    asked = answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5.0)
        sock.connect(("127.0.0.1", port))
        while not until.done():
            question = b"question %06d " % asked + os.urandom(asked % 1400)
            asked += 1
            try:
                sock.send(question)
                assert sock.recv(65_536) == question
                answered += 1
            except OSError:  # nobody has the port yet, or any more
                wait([until], timeout=0.2)
    return asked, answered


def test_the_driver_of_a_card_replies(tmp_path: Path) -> None:
    """All that comes back is what was sent, over a reload too; and what is no card is left to the sockets."""
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        machine = pool.submit(run_on_kernel, "trixie", STEPS, tmp_path, port)
        asked, answered = ask(port, machine)
    ended = machine.result()
    os.write(1, "\n".join(("", *ended.lines, f"asked {asked}, answered {answered}", "")).encode())
    assert ended.code == 0
    status = json.loads(next(line for line in ended.lines if line.startswith('{"version"')))
    card, loopback = status["interfaces"]
    assert (card["kind"], card["driver"], loopback["kind"]) == ("ethernet", "xdp", "")
    (traffic,) = status["traffic"]
    assert answered >= traffic["replied"] > 200 > traffic["passed"]
