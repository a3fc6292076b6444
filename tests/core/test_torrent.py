"""echod.core.torrent: a flood's ring, train by train."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from echod.core.events import Event, Kind
from echod.core.flight import Arrival
from echod.core.probe import Payloads
from echod.core.survey import Survey
from echod.core.torrent import Shape, Torrent

SIZE, TRAIN, WINDOW = 32, 4, 8
MILLISECOND = 10**6
PEER = "192.0.2.1:7"
END = 10**6 * MILLISECOND
"""When nothing can be in flight any more."""


class Flow:
    """A torrent, its survey, and the trains that went, one each millisecond."""

    def __init__(self) -> None:
        """Send nothing yet."""
        self.survey = Survey()
        shape = Shape(size=SIZE, train=TRAIN, window=WINDOW, timeout=1000 * MILLISECOND, kept=16)
        self.torrent = Torrent(Payloads(0xCAFE), self.survey, shape)
        self.trains: list[bytes] = []

    def send(self, trains: int = 1, count: int = TRAIN) -> None:
        """Send trains."""
        for _ in range(trains):
            wall = len(self.trains) * MILLISECOND
            self.trains.append(bytes(self.torrent.load(wall, count)))
            self.torrent.launch(wall, count)

    def probe(self, sequence: int) -> bytes:
        """Return what a probe carries."""
        at = sequence % TRAIN * SIZE
        return self.trains[sequence // TRAIN][at : at + SIZE]

    def land(self, data: bytes, wall: int = 100 * MILLISECOND, **more: object) -> Event:
        """Let a single reply arrive."""
        arrival = Arrival(data=data, wall=wall, clock=0, address=PEER)
        return self.torrent.land(replace(arrival, **more))  # type: ignore[arg-type]

    def returns(self, train: int, wall: int) -> bool:
        """Let a whole train come back."""
        return self.torrent.land_all(self.trains[train], SIZE, wall)

    def balanced(self) -> bool:
        """Hold the survey to its invariant."""
        waiting = sum(self.torrent._state[slot] == 1 for slot in range(self.torrent._slots))
        return self.survey.in_flight == waiting


def test_a_train_that_comes_back_whole_is_counted_at_once() -> None:
    """Four replies with the round-trip time of the train; then there is room again."""
    flow = Flow()
    flow.send(2)
    assert (flow.torrent.room, flow.torrent.in_flight) == (0, 8)
    assert flow.returns(0, 5 * MILLISECOND)
    assert (flow.survey.received, flow.survey.latency.max, flow.torrent.room) == (4, 5 * MILLISECOND, 4)
    assert flow.torrent.land_all(flow.probe(5), SIZE, 6 * MILLISECOND)
    assert flow.balanced()


def test_what_is_not_whole_is_not_counted_as_a_train() -> None:
    """Another size, half a probe, one byte wrong, what came before, and what never went: look at each."""
    flow = Flow()
    flow.send(2)
    train = flow.trains[0]
    assert not flow.torrent.land_all(train, SIZE - 1, 0)
    assert not flow.torrent.land_all(train[:-1], SIZE, 0)
    assert not flow.torrent.land_all(train[:-1] + b"!", SIZE, 0)
    assert not flow.torrent.land_all(train[SIZE:] + flow.trains[1][:SIZE], SIZE, 0)
    assert not flow.torrent.land_all(Payloads(0xCAFE).encode(99, 0, SIZE), SIZE, 0)
    assert flow.returns(0, 0)
    assert not flow.returns(0, 0)
    assert flow.survey.received == 4


def test_each_single_reply_is_named() -> None:
    """Reply, duplicate, damage with its place, from elsewhere, foreign."""
    flow = Flow()
    flow.send(2)
    assert flow.land(flow.probe(0)).kind is Kind.REPLY
    assert flow.land(flow.probe(0)).kind is Kind.DUPLICATE
    corrupt = flow.land(flow.probe(1)[:-1] + b"!")
    assert (corrupt.kind, corrupt.sequence, corrupt.offset, corrupt.settles) == (Kind.CORRUPT, 1, SIZE - 1, True)
    assert flow.land(b"\xff" + flow.probe(2)[1:]).sequence == 2
    assert flow.land(flow.probe(3)[:20]).kind is Kind.TRUNCATED
    assert flow.land(flow.probe(4) + b"!").kind is Kind.EXTENDED
    assert flow.land(flow.probe(5), asked=False).kind is Kind.ELSEWHERE
    assert flow.land(b"\xff" * 40).kind is Kind.FOREIGN
    assert (flow.survey.received, flow.torrent.in_flight) == (1, 2)
    assert flow.balanced()


def test_what_is_damaged_is_found_by_what_is_right_of_it() -> None:
    """By its number where its send time is wrong, by its send time where its number is, by all else where both are."""
    for places, sequence in (([20], 6), ([0], 7), ([3, 20], 5)):
        flow = Flow()
        flow.send(2)
        data = bytearray(flow.probe(sequence))
        for place in places:
            data[place] ^= 0x40
        event = flow.land(bytes(data))
        assert (event.kind, event.sequence, event.offset, event.count) == (
            Kind.CORRUPT,
            sequence,
            places[0],
            len(places),
        )


def test_in_a_wide_window_the_send_time_leads_to_the_train() -> None:
    """However many trains went before it."""
    survey = Survey()
    shape = Shape(size=SIZE, train=TRAIN, window=8192, timeout=MILLISECOND, kept=2048)
    torrent = Torrent(Payloads(1), survey, shape)
    for wall in range(2000):
        train = bytes(torrent.load(wall, TRAIN))
        torrent.launch(wall, TRAIN)
    event = torrent.land(Arrival(data=b"\x40" + train[1:SIZE], wall=3000, clock=0, address=PEER))
    assert (event.kind, event.sequence) == (Kind.CORRUPT, 1999 * TRAIN)


def test_a_whole_reply_after_a_damaged_one_counts() -> None:
    """The probe is answered, the damage stays counted."""
    flow = Flow()
    flow.send()
    flow.land(flow.probe(1)[:20])
    assert flow.land(flow.probe(1)).kind is Kind.REPLY
    assert flow.land(flow.probe(1)[:20]).settles is False
    assert (flow.survey.ends[Kind.TRUNCATED], flow.survey.counts[Kind.TRUNCATED], flow.survey.received) == (0, 2, 1)
    assert flow.balanced()


def test_what_later_probes_overtook_makes_room_and_may_still_come() -> None:
    """A loss does not hold the window; a straggler is reordered."""
    flow = Flow()
    flow.send(2)
    for train in range(2, 6):
        flow.returns(train - 1, train * MILLISECOND)
        flow.send()
    assert flow.torrent.in_flight <= WINDOW
    assert flow.returns(0, 50 * MILLISECOND)
    assert (flow.survey.order.reordered, flow.survey.received) == (4, 20)
    assert flow.balanced()


def test_what_never_came_is_lost_once_the_ring_comes_round_or_at_the_end() -> None:
    """A whole train in a row without an answer is an outage of the path."""
    flow = Flow()
    flow.send(2)
    flow.land(flow.probe(1))
    for train in range(2, 40):
        flow.torrent.stall()
        flow.send()
        flow.returns(train, (train + 1) * MILLISECOND)
    assert flow.survey.ends[Kind.LOST] == 7
    assert flow.survey.outages.longest
    assert (flow.survey.outages.longest.first, flow.survey.outages.longest.duration) == (1, MILLISECOND)
    stale = flow.land(flow.probe(5))
    assert (stale.kind, stale.sequence) == (Kind.STALE, 5)
    flow.send()
    flow.torrent.finish(END)
    assert (flow.survey.ends[Kind.LOST], flow.survey.in_flight, flow.torrent.in_flight) == (11, 0, 0)
    assert not flow.survey.outages.longest.open


def test_a_flood_that_ends_without_an_answer_says_how_long_that_was_at_least() -> None:
    """From the sending of the first train that was lost to that of the last: for how long was waited does not count."""
    flow = Flow()
    flow.send()
    flow.returns(0, MILLISECOND)
    for _ in range(4):
        flow.torrent.stall()
        flow.send()
    flow.torrent.finish(END)
    assert flow.survey.outages.longest
    assert (flow.survey.outages.longest.open, flow.survey.outages.longest.duration) == (True, 3 * MILLISECOND)


def test_what_went_a_moment_before_the_end_is_still_in_flight() -> None:
    """It is neither received nor lost; what went a timeout before is lost."""
    flow = Flow()
    flow.send(2)
    flow.torrent.finish(1000 * MILLISECOND)
    assert (flow.survey.ends[Kind.LOST], flow.survey.in_flight) == (4, 4)


def test_after_a_stall_one_answer_opens_the_window_again() -> None:
    """What went before does not count as in flight any more, but is welcome; until then nothing is given up."""
    flow = Flow()
    flow.send(2)
    flow.torrent.stall()
    flow.send()
    assert (flow.torrent.room, flow.torrent.in_flight) == (0, 12)
    assert flow.returns(0, 5 * MILLISECOND)
    assert flow.torrent.in_flight == 8
    assert flow.returns(2, 5 * MILLISECOND)
    assert (flow.torrent.room, flow.torrent.in_flight, flow.survey.in_flight) == (8, 0, 4)
    assert flow.returns(1, 6 * MILLISECOND)
    assert (flow.torrent.in_flight, flow.survey.received, flow.survey.in_flight) == (0, 12, 0)


def test_damage_to_what_was_overtaken_leaves_the_window_alone() -> None:
    """It does not count as in flight any more."""
    flow = Flow()
    flow.send()
    flow.torrent.stall()
    flow.send(2)
    flow.returns(1, 5 * MILLISECOND)
    assert flow.land(flow.probe(0)[:20]).settles
    assert flow.torrent.in_flight == 4


def test_a_reply_after_the_timeout_is_late() -> None:
    """It is received, and named late."""
    flow = Flow()
    flow.send()
    flow.returns(0, 1001 * MILLISECOND)
    assert (flow.survey.counts[Kind.LATE], flow.survey.counts[Kind.REPLY], flow.survey.received) == (4, 0, 4)


def test_the_last_train_may_be_short() -> None:
    """A count need not be a multiple of the train."""
    flow = Flow()
    flow.send(count=3)
    assert flow.returns(0, MILLISECOND)
    flow.torrent.finish(END)
    assert (flow.survey.sent, flow.survey.received, flow.survey.in_flight) == (3, 3, 0)


@settings(deadline=None)
@given(fates=st.lists(st.sampled_from(["whole", "lost", "apart", "twice", "damaged", "later"]), max_size=60))
def test_every_probe_ends_in_one_number(fates: list[str]) -> None:
    """Whatever becomes of the trains: sent = received + damaged + lost, and in flight while nothing is known."""
    flow = Flow()
    for number, fate in enumerate(fates):
        if not flow.torrent.room:
            flow.torrent.stall()
        flow.send()
        wall = (number + 1) * MILLISECOND
        if fate in ("whole", "twice"):
            assert flow.returns(number, wall)
        if fate in ("apart", "twice"):
            for sequence in range(number * TRAIN, (number + 1) * TRAIN):
                flow.land(flow.probe(sequence), wall)
        if fate == "damaged":
            flow.land(flow.probe(number * TRAIN)[:-1] + b"!", wall)
        if fate == "later" and number and fates[number - 1] == "lost":
            flow.returns(number - 1, wall)
        assert flow.balanced()
        assert 0 <= flow.torrent.in_flight <= flow.survey.in_flight
    flow.torrent.finish(END)
    survey = flow.survey
    assert survey.in_flight == 0
    assert survey.sent == survey.received + sum(survey.ends.values())
