"""echod.stats.snapshot: what the supervisor reports is what a reader reads."""

import dataclasses
import json
from typing import Any, TypeVar, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import BUSY, make_snapshot

from echod.stats.snapshot import (
    Activity,
    Count,
    Kernel,
    KernelInterface,
    KernelTraffic,
    LastReload,
    Line,
    Lines,
    Moment,
    Number,
    Rates,
    Refused,
    Snapshot,
    TcpTraffic,
    TopSource,
    UdpTraffic,
    WorkerState,
)

Made = TypeVar("Made")

TEXT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs")) | st.just(" "))
COUNTS = st.integers(0, 2**63)
SECONDS = st.floats(0, 1e10)
PLAIN_TYPES = {Line: TEXT, Lines: TEXT, Count: COUNTS, Number: SECONDS, Moment: SECONDS, bool: st.booleans()}
PLAIN_TYPES |= {dict[Line, Count]: st.dictionaries(TEXT.map(lambda text: text[:10]), COUNTS, max_size=3)}


def made(of: type[Made], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Made]:
    """Make instances of a class: any value in each field of a plain type, and in these."""
    plain = {
        name: PLAIN_TYPES[hint] for name, hint in get_type_hints(of, include_extras=True).items() if hint in PLAIN_TYPES
    }
    return st.builds(of, **plain | fields)


def some(each: st.SearchStrategy[Made]) -> st.SearchStrategy[tuple[Made, ...]]:
    """Make none, one or two."""
    return st.lists(each, max_size=2).map(tuple)


FAMILIES = st.sampled_from(["ipv4", "ipv6"])
RATES = made(Rates)
UDP = made(
    UdpTraffic,
    family=FAMILIES,
    batches=st.tuples(*[COUNTS] * 7),
    trains=st.tuples(*[COUNTS] * 8),
    received_per_second=RATES,
)
TCP = made(TcpTraffic, family=FAMILIES, accepted_per_second=RATES, bytes_per_second=RATES)
ACTIVITY = made(
    Activity,
    udp=some(UDP),
    tcp=some(TCP),
    workers=some(made(WorkerState, pid=st.none() | COUNTS)),
    top_sources=some(made(TopSource)),
    refused=some(made(Refused, protocol=st.sampled_from(["udp", "tcp"]))),
)
KERNEL = made(
    Kernel,
    pid=st.integers(1, 2**31 - 1),
    born=st.none() | COUNTS,
    interfaces=some(made(KernelInterface)),
    traffic=some(made(KernelTraffic, family=FAMILIES)),
)
SNAPSHOT = made(
    Snapshot,
    kernel=st.none() | KERNEL,
    pid=st.integers(1, 2**31 - 1),
    born=st.none() | COUNTS,
    config_read=st.none() | SECONDS,
    reload=made(LastReload, at=st.none() | SECONDS, code=st.integers(0, 255)),
    activity=ACTIVITY,
    form=st.just(1),
)

PLAIN = make_snapshot()


@settings(deadline=None, max_examples=50)
@given(snapshot=SNAPSHOT)
def test_what_is_packed_is_unpacked(snapshot: Snapshot) -> None:
    """Every value survives the way through the file, which is one line of JSON."""
    packed = snapshot.pack()
    assert Snapshot.unpack(packed) == snapshot
    assert packed.count(b"\n") == 1


def test_what_echod_reload_reads_stands_at_the_top() -> None:
    """`echod reload` of one version asks the echod of another: these names never move."""
    reported = json.loads(PLAIN.pack())
    assert {"pid", "reloads_begun", "reloads_finished"} <= reported.keys()
    assert reported["reload"] == {"at": None, "code": 0, "text": ""}


def test_a_number_that_a_later_version_adds_is_passed_over() -> None:
    """The reader takes what it knows."""
    reported = json.loads(PLAIN.pack()) | {"novelty": [1]}
    assert Snapshot.unpack(json.dumps(reported).encode()) == PLAIN


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": 1}', PLAIN.pack().replace(b'"form":1', b'"form":2')])
def test_what_another_version_wrote_is_refused(text: bytes) -> None:
    """Half a file, one without what is needed, or of a later form, is reported in one sentence."""
    with pytest.raises(ValueError, match=r"^it was written by another version of echod$"):
        Snapshot.unpack(text)


def test_what_an_accelerator_wrote_is_read() -> None:
    """With what a later version adds; an interface is attached by tcx unless the file says otherwise."""
    text = (
        b'{"version": "1.0", "pid": 7, "born": null, "at": 3.0, "at_monotonic": 2.0, "started": 1.0, "config": "/a", '
        b'"interfaces": [{"name": "eth\\u001b0", "ifindex": 2, "kind": "ethernet", "novelty": 1}], "novelty": []}'
    )
    read = Kernel.unpack(text)
    assert read.interfaces == (KernelInterface(name="eth\N{REPLACEMENT CHARACTER}0", ifindex=2, kind="ethernet"),)
    assert read.interfaces[0].driver == "tcx"
    assert (read.pid, read.paths, read.traffic) == (7, 0, ())
    with pytest.raises(ValueError, match=r"^it was written by another version of echod$"):
        Kernel.unpack(text.replace(b'"pid": 7', b'"pid": 0'))


def test_what_ended_in_the_kernel_was_replied_to_or_dropped_there() -> None:
    """What it passed ends in the sockets."""
    traffic = KernelTraffic(family="ipv4", port=7, replied=5, passed=100, slipped=9, dropped={"access": 2, "rate": 1})
    assert traffic.ended == 8


def test_a_worker_is_well_if_it_has_a_process_whose_heartbeat_is_fresh() -> None:
    """Else the sources that the kernel gives to it get no reply."""
    well = WorkerState(worker=1, pid=7, cpu_seconds=0.0, heartbeat_age_seconds=0, restarts=0, connections=0)
    assert well.problem == ""
    assert dataclasses.replace(well, heartbeat_age_seconds=3).problem == "heartbeat age 3 s"
    assert dataclasses.replace(well, pid=None).problem == "it has no process, and is being replaced"


def test_what_was_lost_is_the_sum_of_all_that_was_not_answered() -> None:
    """The kernel's drops, echod's, failures to send and what a dead worker held; nothing else."""
    busy, idle = BUSY.udp
    assert (busy.lost, idle.lost) == (1312, 0)


UNSAFE = "red \x1b[31m, bell \x07, 8-bit \x9b31m, return \r, tab \t, line \u2028, backwards \u202e, zero \x00"


def test_text_from_the_file_cannot_control_the_terminal() -> None:
    """Who may write to the directory chooses it, and root reads it; only the outcome of a reload has lines."""
    reported = json.loads(PLAIN.pack())
    reported |= {"version": UNSAFE, "config": "/a\nb", "reload": {"at": 1.0, "code": 78, "text": f"one\n{UNSAFE}"}}
    udp = {"name": "udp://\x1bc", "family": "ipv4", "adopted": False, "dropped": {"\x1b]0;": 1}}
    reported["activity"] = {"udp": [udp], "top_sources": [{"source": "\x1b", "count": 1}]}
    read = Snapshot.unpack(json.dumps(reported).encode())
    mark = "\N{REPLACEMENT CHARACTER}"
    shown = (
        f"red {mark}[31m, bell {mark}, 8-bit {mark}31m, return {mark}, tab {mark}, line {mark}, backwards {mark}, "
        f"zero {mark}"
    )
    assert (read.version, read.config, read.reload.text) == (shown, f"/a{mark}b", f"one\n{shown}")
    (one,) = read.activity.udp
    assert (one.name, one.dropped, read.activity.top_sources[0].source) == (f"udp://{mark}c", {f"{mark}]0;": 1}, mark)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pid", -1),
        ("pid", 2**31),
        ("at", 1e300),
        ("started", float("inf")),
        ("started_monotonic", float("nan")),
        ("generation", 10**31),
        ("config_read", -1e300),
        ("reload", {"code": 10**10}),
        ("reload", {"at": 1e300}),
        ("activity", {"worker_restarts": 10**31}),
        ("activity", {"top_sources": [{"source": "x", "count": 10**31}]}),
    ],
)
def test_numbers_that_no_echod_has_are_refused(name: str, value: object) -> None:
    """A reader computes with them, and a time beyond the calendar would be an error that nobody expects."""
    text = json.dumps(json.loads(PLAIN.pack()) | {name: value}).encode()
    with pytest.raises(ValueError, match=r"^it was written by another version of echod$"):
        Snapshot.unpack(text)
