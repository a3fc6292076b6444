"""echod.measurement.flood: it counts as `InFlight` and `Statistics` do, but a train at a time; the window; the ring."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from echod.measurement.events import Event, Kind, Moment
from echod.measurement.flood import Flood
from echod.measurement.flood_ring import Ring
from echod.measurement.in_flight import InFlight, ProbeError
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Response
from echod.measurement.statistics import Statistics

SIZE, TRAIN, WINDOW, KEPT = 32, 4, 8, 16
MILLISECOND = 10**6
TIMEOUT = 1000 * MILLISECOND
WALL = 10**18
PEER = "192.0.2.1:7"
END = 10**6 * MILLISECOND  # when no probe can be in flight any more


def at(clock: int, step: int = 0) -> Moment:
    """Return the moment of a monotonic time; the wall clock was set forward by `step`."""
    return Moment(wall=WALL + clock + step, clock=clock)


class Flow:
    """A flood, its statistics, and the payloads of the probes it sent: by default a train each millisecond."""

    def __init__(self) -> None:
        """Send nothing yet."""
        self.statistics = Statistics()
        ring = Ring(Payloads(0xCAFE), size=SIZE, train=TRAIN, kept=KEPT)
        self.flood = Flood(ring, self.statistics, window=WINDOW, timeout=TIMEOUT)
        self.probes: list[bytes] = []

    def send(self, trains: int = 1) -> None:
        """Send whole trains."""
        for _ in range(trains):
            self.send_train(at(len(self.probes) // TRAIN * MILLISECOND))

    def send_train(self, sent: Moment, count: int = TRAIN) -> None:
        """Send a train of `count` probes. The time in the payloads is that of a wall clock that is never set."""
        train = bytes(self.flood.next_train(WALL + sent.clock, count))
        self.flood.sent(sent, count)
        self.probes += [train[start : start + SIZE] for start in range(0, len(train), SIZE)]

    def reply(self, data: bytes, clock: int = 100 * MILLISECOND) -> Event:
        """Receive a single reply from the target."""
        return self.flood.received(Response(data=data, stamp=at(clock).wall, read=at(clock), address=PEER))

    def replies(self, first: int, clock: int, count: int = TRAIN) -> bool:
        """Receive replies to consecutive probes as one train."""
        data = b"".join(self.probes[first : first + count])
        return self.flood.received_train(data, SIZE, at(clock).wall, at(clock))

    @property
    def filled(self) -> int:
        """Return how many probes fill the window: those in flight from its start on."""
        flood = self.flood
        states = [flood._ring.states(number, 1)[0] for number in range(flood._window_start, len(self.probes))]
        assert flood._filled == states.count(1)
        return flood._filled

    @property
    def outage(self) -> tuple[int, int, int, bool]:
        """Return the first and the last probe of the longest outage, its duration, and whether it is open."""
        longest = self.statistics.outages.longest
        assert longest
        return longest.first, longest.last, longest.duration, longest.open


class Pair(Flow):
    """A flood, and an `InFlight` with statistics of its own, which are given the same probes, replies and errors."""

    def __init__(self) -> None:
        """Send nothing yet. Both give their first probe the number zero."""
        super().__init__()
        self.in_flight = InFlight(Payloads(0xCAFE), timeout=TIMEOUT, history=KEPT * TRAIN, offset=WALL)
        self.in_flight.next_sequence = 0
        self.expected = Statistics()
        self.now = at(0)

    def outcome(self, sequence: int) -> Kind | None:
        """Return the outcome of a probe so far."""
        return self.in_flight._probes[sequence].outcome

    def send_train(self, sent: Moment, count: int = TRAIN) -> None:
        """Send a train from both."""
        super().send_train(sent, count)
        for probe in self.probes[-count:]:
            assert self.in_flight.payload(sent.clock, SIZE) == probe
            self.in_flight.sent(probe, sent.clock, sent)
        self.expected.sent += count

    def receive(self, response: Response) -> None:
        """Give both a single reply, and compare their events."""
        event, expected = self.flood.received(response), self.in_flight.received(response)
        self.expected.add(expected)
        for name in ("sequence", "size", "expected", "sent", "rtt", "address", "offset", "count", "time"):
            assert getattr(event, name) == getattr(expected, name), name
        assert event.kind is (Kind.REPLY if expected.kind is Kind.LATE else expected.kind)

    def receive_train(self, response: Response, first: int, count: int) -> None:
        """Give the flood a train of replies, and `InFlight` each of them."""
        probes = self.probes[first : first + count]
        uniform = {self.outcome(first + index) for index in range(count)} in ({None}, {Kind.LOST})
        assert self.flood.received_train(b"".join(probes), SIZE, response.stamp, response.read) is uniform
        for probe in probes:
            if uniform:
                self.expected.add(self.in_flight.received(replace(response, data=probe)))
            else:
                self.receive(replace(response, data=probe))

    def fail(self, sequence: int, *, unsent: bool) -> None:
        """Give both an error that quotes a probe."""
        quote = self.probes[sequence][:8]
        event = self.in_flight.failed(ProbeError(reason="x", address="", moment=self.now, data=quote, unsent=unsent))
        self.expected.add(event)
        assert self.flood.failed(quote, unsent=unsent) == (sequence if event.settles else None)

    def expire(self, patience: int | None = None) -> None:
        """Let both give up what has been in flight for too long, and compare when the next is due."""
        self.flood.expire(self.now.clock, patience)
        for event in self.in_flight.expire(self.now, patience):
            self.expected.add(event)
        assert self.flood.next_expiry() == self.in_flight.next_expiry()

    def take(self, action: str, probe: int, count: int, place: int, *, flag: bool) -> None:
        """Let something happen; `probe` and `count`, modulo what there is, name the probes that it is about."""
        first = probe % len(self.probes)
        outcome, payload = self.outcome(first), self.probes[first]
        stamp = self.now.wall - 1000 if flag else None
        response = Response(data=payload, stamp=stamp, read=self.now, address=PEER)
        if action == "send" and len(self.probes) < (KEPT - 1) * TRAIN:
            if not self.flood.room:
                self.flood.stalled()
            self.send_train(self.now)
        elif action == "train":
            self.receive_train(response, first, min(count, TRAIN - first % TRAIN))
        elif action == "reply":
            answered = outcome in (Kind.REPLY, Kind.LATE)
            self.receive(replace(response, from_target=flag or answered))
        elif action == "damage":
            # A flood knows more of probes that were given up, and less of those with a reply: see the next tests.
            places = {None: 0, Kind.LOST: 4}
            damaged = [payload[: max(4, place)], payload + bytes(place + 1)]
            if place >= places.get(outcome, SIZE):
                damaged.append(payload[:place] + bytes([payload[place] ^ 0x55]) + payload[place + 1 :])
            self.receive(replace(response, data=damaged[count % len(damaged)], from_target=flag))
        elif action == "error":
            self.fail(first, unsent=flag and outcome is None)
        elif action == "expire":
            self.expire((count - 1) * 500 * MILLISECOND if flag else None)

    def compare(self) -> None:
        """Compare the numbers of both."""
        found, expected = self.statistics, self.expected
        for name in ("sent", "received", "outcomes", "in_flight", "loss", "patience"):
            assert getattr(found, name) == getattr(expected, name), name
        assert found.latency.weights() == expected.latency.weights()
        assert {**found.counts, Kind.ERROR: 0} == {**expected.counts, Kind.ERROR: 0}  # `FloodSession` counts errors
        assert found.first_damage.keys() == expected.first_damage.keys()
        for name in ("arrived", "reordered", "max_extent", "max_late"):
            assert getattr(found.order, name) == getattr(expected.order, name), name
        assert 0 <= self.filled <= found.in_flight == self.in_flight.count


STEP = st.tuples(
    st.sampled_from(["send", "send", "train", "train", "reply", "damage", "damage", "error", "expire", "expire"]),
    st.integers(0, KEPT * TRAIN - 1),
    st.integers(1, TRAIN),
    st.integers(0, SIZE - 1),
    st.booleans(),
    st.sampled_from([1, MILLISECOND, 350 * MILLISECOND]),  # ns since the step before
    st.sampled_from([0, 0, 0, -(3600 * 10**9), 10**9]),  # how far the wall clock is set
)


@given(steps=st.lists(STEP, max_size=80), last=st.integers(1, TRAIN))
def test_a_flood_counts_what_is_counted_for_single_probes(
    steps: list[tuple[str, int, int, int, bool, int, int]], last: int
) -> None:
    """Whatever comes back, and however the wall clock is set: outcomes, events, latency, order, outages and expiry."""
    pair, step = Pair(), 0
    pair.send_train(pair.now)
    for action, probe, count, place, flag, passed, forward in steps:
        step += forward
        pair.now = at(pair.now.clock + passed, step)
        pair.take(action, probe, count, place, flag=flag)
        pair.compare()
    pair.send_train(at(pair.now.clock + 1, step), last)
    pair.now = at(END)
    pair.expire()
    pair.compare()
    assert pair.statistics.in_flight == 0
    outages = [each.outages.longest for each in (pair.statistics, pair.expected)]
    assert len({outage.duration if outage else 0 for outage in outages}) == 1


def test_a_train_of_replies_is_taken_only_if_every_byte_is_that_of_one_train() -> None:
    """Another size, half a probe, a wrong byte, parts of two trains, probes never sent, and a second copy are not."""
    flow = Flow()
    flow.send(2)
    train = b"".join(flow.probes[:TRAIN])
    assert not flow.flood.received_train(train, SIZE - 1, None, at(0))
    assert not flow.flood.received_train(train[:-1], SIZE, None, at(0))
    assert not flow.flood.received_train(train[:-1] + b"!", SIZE, None, at(0))
    assert not flow.replies(1, 0)
    assert not flow.flood.received_train(Payloads(0xCAFE).encode(99, 0, SIZE), SIZE, None, at(0))
    assert flow.replies(0, 5 * MILLISECOND)
    assert not flow.replies(0, 5 * MILLISECOND)
    assert (flow.statistics.received, flow.statistics.latency.min, flow.flood.room) == (4, 5 * MILLISECOND, 4)


def test_a_damaged_number_is_recognized_by_the_rest_of_the_payload() -> None:
    """Also after the probe was given up. A reply that resembles no probe is unmatched."""
    flow = Flow()
    flow.send(2)
    flow.flood.expire(END)
    corrupt, unmatched = flow.reply(b"\xff" + flow.probes[7][1:]), flow.reply(b"\xff" * 40)
    assert (corrupt.kind, corrupt.sequence, unmatched.kind) == (Kind.CORRUPT, 7, Kind.UNMATCHED)
    assert (flow.statistics.outcomes[Kind.LOST], flow.outage[:2]) == (7, (0, 6))


def test_an_error_without_the_number_of_a_remembered_probe_changes_nothing() -> None:
    """The probe is then given up after its timeout."""
    flow = Flow()
    flow.send()
    assert [flow.flood.failed(data) for data in (b"", b"abc", b"\xff" * 8)] == [None, None, None]
    assert flow.flood.failed(flow.probes[1][:4]) == 1
    flow.flood.expire(END)
    assert flow.flood.failed(flow.probes[2]) == 2
    assert (flow.statistics.outcomes[Kind.ERROR], flow.statistics.outcomes[Kind.LOST], flow.outage[:2]) == (
        2,
        2,
        (0, 3),
    )


def test_a_probe_is_remembered_until_the_ring_comes_round() -> None:
    """It is then lost, if it was in flight. A later reply to it is stale, and the outage has ended."""
    flow = Flow()
    flow.send(2)
    flow.reply(flow.probes[1])
    for train in range(2, 40):
        flow.flood.stalled()
        flow.send()
        flow.replies(train * TRAIN, (train + 1) * MILLISECOND)
    assert flow.statistics.outcomes[Kind.LOST] == 7
    assert flow.outage == (2, 7, 2 * MILLISECOND, False)
    stale = flow.reply(flow.probes[5])
    assert (stale.kind, stale.sequence, flow.statistics.counts[Kind.STALE]) == (Kind.STALE, 5, 1)


def test_an_outage_ends_when_the_next_train_is_sent() -> None:
    """Until then it is open, and lasts from its first train to its last: the wait for replies does not count."""
    flow = Flow()
    flow.send(2)
    flow.replies(0, MILLISECOND)
    assert flow.flood.next_expiry() == TIMEOUT + MILLISECOND
    flow.send(3)
    flow.flood.expire(END)
    assert flow.outage == (4, 19, 3 * MILLISECOND, True)
    flow.send()
    assert flow.outage == (4, 19, 4 * MILLISECOND, False)


def test_probes_lost_between_two_replies_to_one_train_are_no_outage() -> None:
    """No time passes between them. At the ends of a train they are a part of one."""
    flow = Flow()
    flow.send(2)
    for sequence in (0, 3, 5):
        flow.reply(flow.probes[sequence])
    flow.flood.expire(END)
    assert flow.outage == (4, 4, 0, False)
    assert flow.statistics.outcomes[Kind.LOST] == 5


def test_probes_that_this_host_did_not_send_are_no_outage() -> None:
    """They are errors, and no part of the outage after them."""
    flow = Flow()
    flow.send(2)
    assert [flow.flood.failed(probe, unsent=True) for probe in flow.probes[:6]] == [*range(6)]
    flow.flood.expire(END)
    assert (flow.statistics.outcomes[Kind.ERROR], flow.outage) == (6, (6, 7, 0, True))


def test_replies_after_the_timeout_are_late_and_undo_the_loss() -> None:
    """A train of replies that came in time but was read later is not late."""
    flow = Flow()
    flow.send(2)
    flow.flood.expire(END)
    assert flow.replies(0, TIMEOUT)
    assert flow.flood.received_train(b"".join(flow.probes[TRAIN:]), SIZE, at(5 * MILLISECOND).wall, at(END))
    counts, outcomes = flow.statistics.counts, flow.statistics.outcomes
    assert (counts[Kind.LATE], counts[Kind.REPLY], counts[Kind.LOST], outcomes[Kind.LOST]) == (4, 4, 8, 0)


def test_a_loss_does_not_hold_the_window() -> None:
    """A probe that was overtaken by a window is in flight until its timeout, but fills no room."""
    flow = Flow()
    flow.send(2)
    for train, filled in ((1, 4), (2, 4), (3, 0), (4, 0)):
        flow.replies(train * TRAIN, (train + 1) * MILLISECOND)
        assert flow.filled == filled
        flow.send()
    flow.replies(5 * TRAIN, 6 * MILLISECOND)
    assert (flow.filled, flow.statistics.in_flight, flow.flood.next_expiry()) == (0, 4, TIMEOUT)
    flow.flood.expire(TIMEOUT - 1)
    assert (flow.flood.room, flow.statistics.in_flight) == (8, 4)
    flow.flood.expire(TIMEOUT)
    assert (flow.statistics.in_flight, flow.statistics.outcomes[Kind.LOST], flow.flood.next_expiry()) == (0, 4, None)


def test_after_a_stall_one_reply_to_a_later_probe_opens_the_window() -> None:
    """Probes sent before the stall then fill no room, whatever comes of them; until then they do."""
    flow = Flow()
    flow.send(2)
    flow.flood.stalled()
    flow.send()
    assert (flow.flood.room, flow.filled) == (0, 12)
    flow.replies(0, 5 * MILLISECOND)
    assert flow.filled == 8
    flow.replies(2 * TRAIN, 5 * MILLISECOND)
    assert (flow.flood.room, flow.filled, flow.statistics.in_flight) == (8, 0, 4)
    flow.reply(flow.probes[4][:20])
    flow.replies(5, 6 * MILLISECOND, 3)
    assert (flow.filled, flow.statistics.received, flow.statistics.in_flight) == (0, 11, 0)


def test_delay_variation_compares_trains() -> None:
    """A train counts once."""
    flow = Flow()
    flow.send(3)
    for train, rtt in ((0, 5), (1, 7), (2, 4)):
        flow.replies(train * TRAIN, (train + rtt) * MILLISECOND)
    variation = flow.statistics.variation
    assert (variation.count, variation.pairs, variation.sum, variation.max) == (3, 2, 5 * MILLISECOND, 3 * MILLISECOND)
