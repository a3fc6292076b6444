"""echod.status.overview: what a person reads of a snapshot, to the letter."""

import dataclasses
from ipaddress import IPv4Address, IPv6Address

from support.snapshots import BUSY, IN_MODES, KERNEL, make_snapshot

from echod.admission.selftest import Result
from echod.net.listener import Listener, Protocol
from echod.stats.snapshot import Activity, LastReload, Snapshot, WorkerState
from echod.status.overview import check_text, overview, text, workers_text

SNAPSHOT = make_snapshot(
    version="1.2.3",
    pid=4241,
    generation=4,
    config_read=100.0,
    reload=LastReload(at=200.0, text="reloaded; changed: workers"),
    activity=BUSY,
)

SHOWN = """\
echod 1.2.3, process 4241, up 1 d 01:01:01, generation 4, 3 worker restarts
config: /etc/echod.yaml, read [100]
last reload: [200], reloaded; changed: workers

UDP listener (totals)   received  replied  dropped  send failed  queue full
udp://0.0.0.0:7        1,000,000  998,765    1,217           18          77
udp://[::]:7                   0        0        0            0           0
dropped: by echod, why see below. send failed: the kernel refused the reply.
queue full: no room in the receive queue (a train counts as one), so echod never
had it. What was sent and is in none of these numbers never reached echod: the
network lost it, or a filter of this host dropped it.

TCP listener (totals)  accepted  open now
tcp://0.0.0.0:7              12         2

of these
udp://0.0.0.0:7  dropped: source_port_low  1,200
udp://0.0.0.0:7  dropped: rate                12
udp://0.0.0.0:7  dropped: interrupted          5
udp://0.0.0.0:7  send failed: EAGAIN          18
udp://0.0.0.0:7  replied: self tests           4
udp://0.0.0.0:7  replied: over its limit       3
tcp://0.0.0.0:7  closed: finished              9
tcp://0.0.0.0:7  closed: access                1
tcp://0.0.0.0:7  accept failed                 1

rates and totals  socket   /s, 1 s  /s, 10 s  /s, 60 s  total in  total out
udp://0.0.0.0:7   bound      1,234      12.3       0.2  61.0 MiB   60.9 MiB
udp://[::]:7      adopted        0         0         0       0 B        0 B
tcp://0.0.0.0:7   bound        1.0       0.5       0.2   2.0 KiB       10 B

worker  process   CPU total  heartbeat age  restarts  connections
     1     4242  1,234.50 s          < 2 s         0            2
     2     4243      0.01 s            4 s         1            0
     3     none      0.00 s           none         2            0

top sources, last minute  datagrams
192.0.2.1                    60,000
2001:db8::/64                     7

most refused, last minute                        times
192.0.2.9                  udp: source_port_low  1,200"""


def shown(snapshot: Snapshot) -> str:
    """Write it, with times as whole seconds in brackets."""
    return text(overview(snapshot, uptime_seconds=90_061.9, when=lambda seconds: f"[{seconds:.0f}]"))


def test_everything_stands_where_it_is_looked_for() -> None:
    """Each number of a busy daemon, in aligned columns of ASCII that fit a terminal; the row of UDP adds up."""
    assert shown(SNAPSHOT) == SHOWN
    assert SHOWN.isascii()
    assert max(map(len, SHOWN.splitlines())) <= 80
    received, replied, dropped, failed, _ = [int(cell.replace(",", "")) for cell in SHOWN.splitlines()[5].split()[1:]]
    assert received == replied + dropped + failed


MODES_SHOWN = """\
UDP listener (totals)                 received  replied  dropped  send failed  queue full  held
udp://0.0.0.0:7070 (udpecho_plus)        1,010    1,008        1            1           0     0
udp://127.0.0.1:7072 (impaired echo)     1,000      900       20            0           0    80
udp://[::1]:9 (discard)                      5        0        5            0           0     0
dropped: by echod, why see below. send failed: the kernel refused the reply.
queue full: no room in the receive queue (a train counts as one), so echod never
had it. What was sent and is in none of these numbers never reached echod: the
network lost it, or a filter of this host dropped it.
held: by impairment, now; their outcome is not known yet.

TCP listener (totals)        accepted  open now
tcp://127.0.0.1:9 (discard)         1         0

of these
udp://0.0.0.0:7070    dropped: access              1
udp://0.0.0.0:7070    send failed: EAGAIN          1
udp://0.0.0.0:7070    replied: self tests          3
udp://127.0.0.1:7072  dropped: impaired           20
udp://127.0.0.1:7072  impaired: sent twice        11
udp://127.0.0.1:7072  impaired: sent out of order 12
udp://127.0.0.1:7072  impaired: corrupted          1
udp://[::1]:9         dropped: discarded           5

UDPEchoConfig (TR-143)
udp://0.0.0.0:7070      PacketsReceived                               1,006
udp://0.0.0.0:7070      PacketsResponded                              1,005
udp://0.0.0.0:7070      BytesReceived                                72,432
udp://0.0.0.0:7070      BytesResponded                               72,360
udp://0.0.0.0:7070      TimeFirstPacketReceived  2008-04-09T15:01:05.123456
udp://0.0.0.0:7070      TimeLastPacketReceived   2008-04-09T15:02:05.000000

"""


def test_a_listener_is_shown_with_its_mode_and_what_that_counts() -> None:
    """Each row adds up, with what is held; the counters of TR-143 have their names there."""
    lines = shown(dataclasses.replace(SNAPSHOT, activity=IN_MODES)).splitlines()
    end = next(at for at, line in enumerate(lines) if line.startswith("rates and totals"))
    assert [" ".join(line.split()) for line in lines[4:end]] == [
        " ".join(line.split()) for line in MODES_SHOWN.splitlines()
    ]
    for line in lines[5:8]:
        received, replied, dropped, failed, _, held = [int(cell.replace(",", "")) for cell in line.split()[-6:]]
        assert received == replied + dropped + failed + held


def test_what_is_dropped_on_purpose_is_no_problem() -> None:
    """By the mode discard, or as impairment demands; what anything else drops is one, in the row of its listener."""
    table = overview(dataclasses.replace(SNAPSHOT, activity=IN_MODES), uptime_seconds=1, when=str).tables[0]
    assert (table.alarming, table.wanted) == ({3, 4, 5}, {(1, 3), (2, 3)})
    interrupted = dataclasses.replace(IN_MODES.udp[2], interrupted=1)
    full = dataclasses.replace(IN_MODES.udp[1], dropped={"impaired": 1, "impair_queue": 1})
    activity = Activity(udp=(interrupted, full))
    (table, *_) = overview(dataclasses.replace(SNAPSHOT, activity=activity), uptime_seconds=1, when=str).tables
    assert table.wanted == set()


def test_held_datagrams_and_purpose_count_beside_the_kernel_too() -> None:
    """The sums have the column of what is held, and add up; a drop is a problem if one of them was not wanted."""
    quiet = dataclasses.replace(KERNEL, traffic=KERNEL.traffic[1:])
    for udp, kernel, alarming in ((IN_MODES.udp, quiet, {3, 4}), (IN_MODES.udp[1:], KERNEL, {3, 4})):
        snapshot = dataclasses.replace(SNAPSHOT, activity=Activity(udp=udp), kernel=kernel)
        assert overview(snapshot, uptime_seconds=1, when=str).tables[1].alarming == alarming
    snapshot = dataclasses.replace(SNAPSHOT, activity=Activity(udp=IN_MODES.udp[1:]), kernel=quiet)
    table = overview(snapshot, uptime_seconds=1, when=str).tables[1]
    assert table.alarming == {4}
    assert table.head[1:] == ("received", "replied", "dropped", "send failed", "held", "total out")
    assert table.rows == (
        ("sockets", "1,005", "900", "25", "0", "80", "0 B"),
        ("kernel, ipv6 port 7", "0", "0", "0", "0", "0", "0 B"),
        ("sum", "1,005", "900", "25", "0", "80", "0 B"),
    )
    assert table.legend[-1] == "held: by impairment, now; their outcome is not known yet."


def test_what_is_not_there_has_no_table() -> None:
    """A daemon that has just begun shows its listeners and workers, and no empty table."""
    young = dataclasses.replace(SNAPSHOT, activity=Activity(udp=BUSY.udp[1:]), config_read=None, reload=LastReload())
    assert shown(young).splitlines() == [
        "echod 1.2.3, process 4241, up 1 d 01:01:01, generation 4, 0 worker restarts",
        "config: built-in defaults; there was no /etc/echod.yaml",
        "last reload: none",
        "",
        "UDP listener (totals)  received  replied  dropped  send failed  queue full",
        "udp://[::]:7                  0        0        0            0           0",
        *SHOWN.splitlines()[7:11],
        "",
        "rates and totals  socket   /s, 1 s  /s, 10 s  /s, 60 s  total in  total out",
        "udp://[::]:7      adopted        0         0         0       0 B        0 B",
    ]


IN_KERNEL = """\
UDP, sockets and kernel    received    replied  dropped  send failed  total out
sockets                   1,000,000    998,765    1,217           18   60.9 MiB
kernel, ipv4 port 7       9,000,000  8,999,000    1,000            0    549 MiB
kernel, ipv6 port 7               0          0        0            0        0 B
sum                      10,000,000  9,997,765    2,217           18    610 MiB
left to the sockets by the kernel, and counted there: 40.
"""


def test_what_ended_in_the_kernel_is_added_to_what_the_sockets_had() -> None:
    """Sums that add up; where, of how many paths, and what it forgot; and which figures are of the sockets alone."""
    lines = shown(dataclasses.replace(SNAPSHOT, kernel=KERNEL)).splitlines()
    plain = SHOWN.splitlines()
    assert lines[3] == (
        "kernel: repeats replies at eth0 (tcx), not at eth1; 12 paths, forgotten 3 times (link 1, route 2)"
    )
    assert lines[:3] + lines[4:8] == plain[:7]
    assert lines[8:20] == ["", *IN_KERNEL.splitlines(), *plain[7:11], ""]
    for row in lines[10:14]:
        received, replied, dropped, failed = (int(cell.replace(",", "")) for cell in row.split()[-6:-2])
        assert received == replied + dropped + failed
    parts = [" ".join(line.split()) for line in lines if line.startswith("kernel, ipv4 port 7  ")]
    assert parts[1:] == [
        "kernel, ipv4 port 7 dropped: access 900",
        "kernel, ipv4 port 7 dropped: rate 100",
        "kernel, ipv4 port 7 replied: over its limit 6",
    ]
    of_sockets = "of the sockets: without what the kernel replied to or dropped."
    assert [lines[at - 1] for at, line in enumerate(lines) if line == of_sockets] == [
        "tcp://0.0.0.0:7   bound        1.0       0.5       0.2   2.0 KiB       10 B",
        "2001:db8::/64                     7",
        "192.0.2.9                  udp: source_port_low  1,200",
    ]


def test_an_accelerator_that_reports_nothing_new_or_nothing_at_all_is_shown() -> None:
    """With what it reported last, or none; one that is attached nowhere says so."""
    old = dataclasses.replace(SNAPSHOT, kernel=KERNEL, kernel_problem="process 4250 hangs")
    assert shown(old).splitlines()[3:5] == [
        "kernel: OLD, process 4250 hangs",
        "kernel: repeats replies at eth0 (tcx), not at eth1; 12 paths, forgotten 3 times (link 1, route 2)",
    ]
    unknown = shown(dataclasses.replace(SNAPSHOT, kernel_problem="the file is not valid")).splitlines()
    assert unknown.pop(3) == "kernel: UNKNOWN, the file is not valid"
    assert unknown == SHOWN.splitlines()
    young = dataclasses.replace(KERNEL, interfaces=(), paths=1, flushes={"link": 0}, traffic=())
    lines = shown(dataclasses.replace(SNAPSHOT, kernel=young)).splitlines()
    assert lines[3] == "kernel: repeats replies at no interface; 1 path, forgotten 0 times"
    assert lines[9:12] == [
        "UDP, sockets and kernel   received  replied  dropped  send failed  total out",
        "sockets                  1,000,000  998,765    1,217           18   60.9 MiB",
        "sum                      1,000,000  998,765    1,217           18   60.9 MiB",
    ]


def test_a_reload_that_was_rejected_is_shown_with_every_mistake() -> None:
    """Which config goes on, and why."""
    rejected = dataclasses.replace(SNAPSHOT, reload=LastReload(at=300.0, code=78, text="x:1:1: a\nx:2:1: b"))
    assert shown(rejected).splitlines()[2:5] == [
        "last reload: [300], REJECTED; the previous config stays in force",
        "  x:1:1: a",
        "  x:2:1: b",
    ]


def test_a_stale_snapshot_is_marked_before_all_else() -> None:
    """Since when, and that what follows may not be so any more; the rest is as it was."""
    first, *rest = shown(dataclasses.replace(SNAPSHOT, at=400.0, stale=True)).splitlines()
    assert first == (
        "OLD, as it was at [400]: process 4241 has written no status since; it hangs, or its log says why it cannot"
    )
    assert rest == SHOWN.splitlines()


def test_one_restart_is_one() -> None:
    """Not "1 worker restarts"."""
    one = dataclasses.replace(SNAPSHOT, activity=Activity(worker_restarts=1))
    assert shown(one).splitlines()[0].endswith(", 1 worker restart")


def test_a_check_shows_each_listener_and_the_sum() -> None:
    """Latency, or why there is none."""
    one = Listener(protocol=Protocol.UDP, address=IPv4Address("127.0.0.1"), port=7)
    other = Listener(protocol=Protocol.TCP, address=IPv6Address("::1"), port=7)
    passed, failed = Result(listener=one, seconds=0.00123), Result(listener=other, seconds=None, problem="gone")
    assert check_text([passed, failed]) == (
        "udp://127.0.0.1:7  ok, 1.2 ms\ntcp://[::1]:7      FAILED: gone\n1 of 2 listeners failed"
    )
    assert check_text([passed]) == "udp://127.0.0.1:7  ok, 1.2 ms\nthe listener replied"
    assert check_text([failed]) == "tcp://[::1]:7  FAILED: gone\nthe listener failed"


def test_a_worker_that_does_not_serve_is_shown() -> None:
    """No process, or a loop that stands still; of one that is well nothing is shown."""
    well = WorkerState(worker=1, pid=7, cpu_seconds=0.0, heartbeat_age_seconds=0, restarts=0, connections=0)
    old, gone = dataclasses.replace(well, worker=2, heartbeat_age_seconds=4), dataclasses.replace(well, pid=None)
    assert workers_text([well]) == ""
    effect = "sources whose datagrams the kernel gives to it get no reply"
    assert workers_text([well, old, gone]).splitlines() == [
        f"worker 2  FAILED: heartbeat age 4 s; {effect}",
        f"worker 1  FAILED: it has no process, and is being replaced; {effect}",
    ]
