"""echod.measurement.flood: a flood's ring, train by train."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from echod.measurement.events import Event, Kind, Moment
from echod.measurement.flood import Flood, Shape
from echod.measurement.payload import Payloads
from echod.measurement.round_trip import Response
from echod.measurement.statistics import Statistics

SIZE, TRAIN, WINDOW = 32, 4, 8
MILLISECOND = 10**6
PEER = "192.0.2.1:7"
END = 10**6 * MILLISECOND
"""When nothing can be in flight any more."""


def at(clock: int) -> Moment:
    """Return the moment of a monotonic time; the wall clock does not change."""
    return Moment(wall=10**18 + clock, clock=clock)


class Flow:
    """A flood, its statistics, and the trains that went, one each millisecond."""

    def __init__(self) -> None:
        """Send nothing yet."""
        self.statistics = Statistics()
        shape = Shape(size=SIZE, train=TRAIN, window=WINDOW, timeout=1000 * MILLISECOND, kept=16)
        self.flood = Flood(Payloads(0xCAFE), self.statistics, shape)
        self.trains: list[bytes] = []

    def send(self, trains: int = 1, count: int = TRAIN) -> None:
        """Send trains."""
        for _ in range(trains):
            sent = at(len(self.trains) * MILLISECOND)
            self.trains.append(bytes(self.flood.next_train(sent.wall, count)))
            self.flood.sent(sent, count)

    def probe(self, sequence: int) -> bytes:
        """Return what a probe carries."""
        at = sequence % TRAIN * SIZE
        return self.trains[sequence // TRAIN][at : at + SIZE]

    def received(self, data: bytes, clock: int = 100 * MILLISECOND, **more: object) -> Event:
        """Let a single reply arrive."""
        response = Response(data=data, stamp=at(clock).wall, read=at(clock), address=PEER)
        return self.flood.received(replace(response, **more))  # type: ignore[arg-type]

    def returns(self, train: int, clock: int) -> bool:
        """Let a whole train come back."""
        return self.flood.received_train(self.trains[train], SIZE, at(clock).wall, at(clock))

    @property
    def filled(self) -> int:
        """Return how many probes fill the window."""
        return self.flood._filled

    def balanced(self) -> bool:
        """Check the invariant of the statistics: what is in no other number is in flight."""
        waiting = self.flood._ring._state.count(1)
        outcomes = self.statistics.outcomes
        assert all(number >= 0 for number in outcomes.values())
        return self.statistics.sent == self.statistics.received + sum(outcomes.values()) + waiting


def test_a_train_that_comes_back_whole_is_counted_at_once() -> None:
    """Four replies with the round-trip time of the train; then there is room again."""
    flow = Flow()
    flow.send(2)
    assert (flow.flood.room, flow.filled) == (0, 8)
    assert flow.returns(0, 5 * MILLISECOND)
    assert (flow.statistics.received, flow.statistics.latency.max, flow.flood.room) == (4, 5 * MILLISECOND, 4)
    assert flow.flood.received_train(flow.probe(5), SIZE, None, at(6 * MILLISECOND))
    assert flow.balanced()


def test_what_is_not_whole_is_not_counted_as_a_train() -> None:
    """Another size, half a probe, one byte wrong, what came before, and what never went: look at each."""
    flow = Flow()
    flow.send(2)
    train = flow.trains[0]
    assert not flow.flood.received_train(train, SIZE - 1, None, at(0))
    assert not flow.flood.received_train(train[:-1], SIZE, None, at(0))
    assert not flow.flood.received_train(train[:-1] + b"!", SIZE, None, at(0))
    assert not flow.flood.received_train(train[SIZE:] + flow.trains[1][:SIZE], SIZE, None, at(0))
    assert not flow.flood.received_train(Payloads(0xCAFE).encode(99, 0, SIZE), SIZE, None, at(0))
    assert flow.returns(0, 0)
    assert not flow.returns(0, 0)
    assert flow.statistics.received == 4


def test_each_single_reply_is_named() -> None:
    """Reply, duplicate, damage with its place, from elsewhere, foreign."""
    flow = Flow()
    flow.send(2)
    assert flow.received(flow.probe(0)).kind is Kind.REPLY
    assert flow.received(flow.probe(0)).kind is Kind.DUPLICATE
    corrupt = flow.received(flow.probe(1)[:-1] + b"!")
    assert (corrupt.kind, corrupt.sequence, corrupt.offset, corrupt.count) == (Kind.CORRUPT, 1, SIZE - 1, 1)
    assert flow.received(b"\xff" + flow.probe(2)[1:]).sequence == 2
    assert flow.received(flow.probe(3)[:20]).kind is Kind.TRUNCATED
    assert flow.received(flow.probe(4) + b"!").kind is Kind.EXTENDED
    assert flow.received(flow.probe(5), from_target=False).kind is Kind.DIFFERENT_ADDRESS
    assert flow.received(b"\xff" * 40).kind is Kind.UNMATCHED
    assert (flow.statistics.received, flow.filled) == (1, 2)
    assert flow.balanced()


def test_what_is_damaged_is_found_by_what_is_right_of_it() -> None:
    """By its number where its send time is wrong, by its send time where its number is, by all else where both are."""
    for places, sequence in (([20], 6), ([0], 7), ([3, 20], 5)):
        flow = Flow()
        flow.send(2)
        data = bytearray(flow.probe(sequence))
        for place in places:
            data[place] ^= 0x40
        event = flow.received(bytes(data))
        assert (event.kind, event.sequence, event.offset, event.count) == (
            Kind.CORRUPT,
            sequence,
            places[0],
            len(places),
        )


def test_in_a_wide_window_the_send_time_leads_to_the_train() -> None:
    """However many trains went before it."""
    statistics = Statistics()
    shape = Shape(size=SIZE, train=TRAIN, window=8192, timeout=MILLISECOND, kept=2048)
    flood = Flood(Payloads(1), statistics, shape)
    for clock in range(2000):
        train = bytes(flood.next_train(at(clock).wall, TRAIN))
        flood.sent(at(clock), TRAIN)
    event = flood.received(Response(data=b"\x40" + train[1:SIZE], stamp=None, read=at(3000), address=PEER))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 1999 * TRAIN)


def test_what_a_third_address_has_damaged_ends_no_probe() -> None:
    """It is counted, and the probe is still waited for."""
    flow = Flow()
    flow.send()
    assert flow.received(flow.probe(1)[:20], from_target=False).kind is Kind.TRUNCATED
    assert (flow.statistics.counts[Kind.TRUNCATED], flow.statistics.outcomes[Kind.TRUNCATED], flow.filled) == (1, 0, 4)


def test_a_whole_reply_after_a_damaged_one_counts() -> None:
    """The probe is answered, the damage stays counted."""
    flow = Flow()
    flow.send()
    flow.received(flow.probe(1)[:20])
    assert flow.received(flow.probe(1)).kind is Kind.REPLY
    flow.received(flow.probe(1)[:20])
    assert (
        flow.statistics.outcomes[Kind.TRUNCATED],
        flow.statistics.counts[Kind.TRUNCATED],
        flow.statistics.received,
    ) == (0, 2, 1)
    assert flow.balanced()


def test_what_later_probes_overtook_makes_room_and_may_still_come() -> None:
    """A loss does not hold the window; a straggler is reordered."""
    flow = Flow()
    flow.send(2)
    for train in range(2, 6):
        flow.returns(train - 1, train * MILLISECOND)
        flow.send()
    assert flow.filled <= WINDOW
    assert flow.returns(0, 50 * MILLISECOND)
    assert (flow.statistics.order.reordered, flow.statistics.received) == (4, 20)
    assert flow.balanced()


def test_what_never_came_is_lost_once_the_ring_comes_round_or_at_the_end() -> None:
    """A whole train in a row without an answer is an outage of the path."""
    flow = Flow()
    flow.send(2)
    flow.received(flow.probe(1))
    for train in range(2, 40):
        flow.flood.stalled()
        flow.send()
        flow.returns(train, (train + 1) * MILLISECOND)
    assert flow.statistics.outcomes[Kind.LOST] == 7
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.last) == (2, 7)
    assert flow.statistics.outages.longest.duration == 2 * MILLISECOND
    stale = flow.received(flow.probe(5))
    assert (stale.kind, stale.sequence) == (Kind.STALE, 5)
    flow.send()
    flow.flood.expire(END)
    assert (flow.statistics.outcomes[Kind.LOST], flow.statistics.in_flight, flow.filled) == (11, 0, 0)
    assert not flow.statistics.outages.longest.open


def test_a_flood_that_ends_without_an_answer_says_how_long_that_was_at_least() -> None:
    """From the sending of the first train that was lost to that of the last: for how long was waited does not count."""
    flow = Flow()
    flow.send()
    flow.returns(0, MILLISECOND)
    for _ in range(4):
        flow.flood.stalled()
        flow.send()
    flow.flood.expire(END)
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.open, flow.statistics.outages.longest.duration) == (True, 3 * MILLISECOND)


def test_an_outage_ends_when_the_next_train_goes() -> None:
    """However late that is, and whatever becomes of it."""
    flow = Flow()
    flow.send()
    flow.flood.expire(END)
    assert flow.statistics.outages.longest
    assert flow.statistics.outages.longest.open
    flow.send()
    assert (flow.statistics.outages.longest.open, flow.statistics.outages.longest.duration) == (False, MILLISECOND)


def test_what_went_a_moment_before_the_end_is_still_in_flight() -> None:
    """It is neither received nor lost; what went a timeout before is lost."""
    flow = Flow()
    flow.send(2)
    flow.flood.expire(1000 * MILLISECOND)
    assert (flow.statistics.outcomes[Kind.LOST], flow.statistics.in_flight) == (4, 4)


def test_after_a_stall_one_answer_opens_the_window_again() -> None:
    """What went before does not count as in flight any more, but is welcome; until then nothing is given up."""
    flow = Flow()
    flow.send(2)
    flow.flood.stalled()
    flow.send()
    assert (flow.flood.room, flow.filled) == (0, 12)
    assert flow.returns(0, 5 * MILLISECOND)
    assert flow.filled == 8
    assert flow.returns(2, 5 * MILLISECOND)
    assert (flow.flood.room, flow.filled, flow.statistics.in_flight) == (8, 0, 4)
    assert flow.returns(1, 6 * MILLISECOND)
    assert (flow.filled, flow.statistics.received, flow.statistics.in_flight) == (0, 12, 0)


def test_damage_to_what_was_overtaken_leaves_the_window_alone() -> None:
    """It does not count as in flight any more."""
    flow = Flow()
    flow.send()
    flow.flood.stalled()
    flow.send(2)
    flow.returns(1, 5 * MILLISECOND)
    flow.received(flow.probe(0)[:20])
    assert (flow.filled, flow.statistics.outcomes[Kind.TRUNCATED]) == (4, 1)


def test_a_reply_after_the_timeout_is_late() -> None:
    """It is received, and named late."""
    flow = Flow()
    flow.send()
    flow.returns(0, 1000 * MILLISECOND)
    assert (flow.statistics.counts[Kind.LATE], flow.statistics.counts[Kind.REPLY], flow.statistics.received) == (
        4,
        0,
        4,
    )


def test_the_last_train_may_be_short() -> None:
    """A count need not be a multiple of the train."""
    flow = Flow()
    flow.send(count=3)
    assert flow.returns(0, MILLISECOND)
    flow.flood.expire(END)
    assert (flow.statistics.sent, flow.statistics.received, flow.statistics.in_flight) == (3, 3, 0)


def test_what_was_overtaken_is_in_flight_until_it_is_given_up() -> None:
    """It fills no window, but nobody knows yet that it is lost."""
    flow = Flow()
    flow.send(2)
    for train in range(2, 6):
        flow.returns(train - 1, train * MILLISECOND)
        flow.send()
    flow.returns(5, 6 * MILLISECOND)
    assert (flow.filled, flow.statistics.in_flight, flow.flood.next_expiry()) == (0, 4, 1000 * MILLISECOND)
    flow.flood.expire(999 * MILLISECOND)
    assert (flow.statistics.in_flight, flow.statistics.outcomes[Kind.LOST]) == (4, 0)
    flow.flood.expire(1000 * MILLISECOND)
    assert (flow.statistics.in_flight, flow.statistics.outcomes[Kind.LOST], flow.flood.next_expiry()) == (0, 4, None)


def test_what_was_answered_is_passed_over() -> None:
    """The next to be given up is the oldest in flight; and what was given up is not lost again when it is forgotten."""
    flow = Flow()
    flow.send(2)
    flow.returns(0, MILLISECOND)
    assert flow.flood.next_expiry() == 1001 * MILLISECOND
    flow.flood.expire(END)
    flow.send(16)
    assert flow.statistics.outcomes[Kind.LOST] == 4
    assert flow.balanced()


def test_what_was_given_up_may_still_come() -> None:
    """As a train or one by one, late; and what was in time after all, but read too late, is a reply. Loss is undone."""
    flow = Flow()
    flow.send(3)
    flow.flood.expire(END)
    assert (flow.statistics.outcomes[Kind.LOST], flow.filled) == (12, 0)
    assert flow.returns(0, 2000 * MILLISECOND)
    assert flow.received(flow.probe(4), 2000 * MILLISECOND).kind is Kind.REPLY
    assert flow.flood.received_train(flow.trains[2], SIZE, at(5 * MILLISECOND).wall, at(END))
    assert (
        flow.statistics.counts[Kind.LATE],
        flow.statistics.counts[Kind.REPLY],
        flow.statistics.outcomes[Kind.LOST],
    ) == (5, 4, 3)
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.last) == (5, 7)
    assert flow.balanced()


def test_damage_to_what_was_given_up_takes_the_loss_back() -> None:
    """It was not lost: it came, damaged; and the next probe after it ends an outage."""
    flow = Flow()
    flow.send(2)
    flow.flood.expire(END)
    assert flow.received(flow.probe(7)[:20]).kind is Kind.TRUNCATED
    assert flow.received(b"\xff" + flow.probe(6)[1:]).kind is Kind.CORRUPT
    outcomes = flow.statistics.outcomes
    assert (outcomes[Kind.LOST], outcomes[Kind.TRUNCATED], outcomes[Kind.CORRUPT], flow.statistics.in_flight) == (
        6,
        1,
        1,
        0,
    )
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.last) == (0, 5)


def test_an_error_is_the_end_of_the_probe_that_it_quotes() -> None:
    """Once; of a reply that came, of what never went and of what is not quoted it says nothing."""
    flow = Flow()
    flow.send(2)
    flow.received(flow.probe(0))
    assert [flow.flood.failed(flow.probe(number)[:8]) for number in (0, 1, 1)] == [None, 1, None]
    assert [flow.flood.failed(data) for data in (None, b"abc", b"\xff" * 8)] == [None, None, None]
    assert (flow.statistics.outcomes[Kind.ERROR], flow.filled) == (1, 6)
    flow.flood.expire(END)
    assert flow.flood.failed(flow.probe(2)) == 2
    assert (flow.statistics.outcomes[Kind.ERROR], flow.statistics.outcomes[Kind.LOST]) == (2, 5)
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.last) == (1, 7)
    assert flow.received(flow.probe(1)).kind is Kind.REPLY
    assert flow.statistics.outcomes[Kind.ERROR] == 1
    assert flow.balanced()


def test_what_this_host_did_not_send_is_no_outage() -> None:
    """It is an error, and no part of the gap beside it; should a reply come all the same, it is one."""
    flow = Flow()
    flow.send(2)
    for number in range(6):
        flow.flood.failed(flow.probe(number), unsent=True)
    flow.flood.expire(END)
    assert (flow.statistics.outcomes[Kind.ERROR], flow.statistics.outcomes[Kind.LOST]) == (6, 2)
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.last) == (6, 7)
    assert flow.received(flow.probe(1)).kind is Kind.REPLY
    assert (flow.statistics.outcomes[Kind.ERROR], flow.balanced()) == (5, True)


def test_between_two_answers_to_one_train_no_time_passes() -> None:
    """What is lost there is no outage; at both ends of a train it is a part of one."""
    flow = Flow()
    flow.send(2)
    for sequence in (0, 3, 5):
        flow.received(flow.probe(sequence))
    flow.flood.expire(END)
    assert flow.statistics.outages.longest
    assert (flow.statistics.outages.longest.first, flow.statistics.outages.longest.probes) == (4, 1)
    assert flow.statistics.outcomes[Kind.LOST] == 5


def test_a_clock_that_is_set_does_not_falsify_a_flood() -> None:
    """Back by an hour after the first train: round trips, outages and reordering are the monotonic clock's."""
    flow = Flow()
    hour = 3600 * 1000 * MILLISECOND
    flow.send()
    for number in (1, 2, 3):
        sent = Moment(wall=10**18 - hour * number, clock=number * MILLISECOND)
        flow.trains.append(bytes(flow.flood.next_train(sent.wall, TRAIN)))
        flow.flood.sent(sent, TRAIN)
    for train, clock in ((0, 10), (3, 11), (2, 14)):
        read = Moment(wall=10**18 - hour * clock, clock=clock * MILLISECOND)
        assert flow.flood.received_train(flow.trains[train], SIZE, read.wall, read)
    flow.flood.expire(END)
    statistics = flow.statistics
    assert (statistics.latency.min, statistics.latency.max, statistics.order.max_late) == (
        8 * MILLISECOND,
        12 * MILLISECOND,
        3 * MILLISECOND,
    )
    assert statistics.outages.longest
    assert (statistics.outages.longest.first, statistics.outages.longest.duration) == (4, MILLISECOND)


@settings(deadline=None)
@given(
    fates=st.lists(
        st.sampled_from(["whole", "lost", "apart", "twice", "damaged", "later", "refused", "given up"]), max_size=60
    )
)
def test_every_probe_ends_in_one_number(fates: list[str]) -> None:
    """Whatever becomes of the trains: sent = received + damaged + lost, and in flight while nothing is known."""
    flow = Flow()
    for number, outcome in enumerate(fates):
        if not flow.flood.room:
            flow.flood.stalled()
        flow.send()
        wall = (number + 1) * MILLISECOND
        if outcome in ("whole", "twice"):
            assert flow.returns(number, wall)
        if outcome in ("apart", "twice"):
            for sequence in range(number * TRAIN, (number + 1) * TRAIN):
                flow.received(flow.probe(sequence), wall)
        if outcome == "damaged":
            flow.received(flow.probe(number * TRAIN)[:-1] + b"!", wall)
        if outcome == "later" and number and fates[number - 1] == "lost":
            flow.returns(number - 1, wall)
        if outcome == "refused":
            flow.flood.failed(flow.probe(number * TRAIN + 1))
        if outcome == "given up":
            flow.flood.expire(wall, 2 * MILLISECOND)
        assert flow.balanced()
        assert 0 <= flow.filled <= flow.statistics.in_flight
    flow.flood.expire(END)
    statistics = flow.statistics
    assert statistics.in_flight == 0
    assert statistics.sent == statistics.received + sum(statistics.outcomes.values())
