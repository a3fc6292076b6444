"""What goes round, on real sockets: a datagram that is looked at twice dies there, and costs nobody else anything."""

import socket

import pytest
from support.loopback import ANY, assert_got, assert_nothing_more, queue, udp_client, udp_server
from support.peers import limit
from support.udp_worker import GAP, UdpWorker, send, send_as_train

from echod.admission.loops import PERIOD
from echod.linux.mmsg_layout import SLOTS


def seen(served: UdpWorker) -> set[int]:
    """Return the marks of all that is remembered."""
    assert served.admission.loop_detector is not None
    return {mark for peer in served.admission.loop_detector._seen.values() for mark in peer.hashes}


def marks(*payloads: bytes) -> set[int]:
    """Return those of these datagrams."""
    return set(map(hash, payloads))


# -- single datagrams


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("batches", [[SLOTS, SLOTS], [1, 2, 3, 5, 8, 13]])
def test_each_so_manieth_is_looked_at_in_whatever_batches(host: str, batches: list[int]) -> None:
    """Each fifth is the same: the first of these is answered; all others are different, and answered too."""
    with udp_server(host) as server, udp_client(host) as client:
        served, number, expected = UdpWorker(server), 0, []
        for datagrams in batches:
            for _ in range(datagrams):
                number += 1
                data = b"round" if number % GAP == 0 else b"%05d" % number
                if data != b"round" or number == GAP:
                    expected.append(data)
                send(served, client, data)
            row = served.turn()
        looks = sum(batches) // GAP
        assert (row["dropped_loop"], row["replied"]) == (looks - 1, sum(batches) - looks + 1)
        assert seen(served) == marks(b"round")
        assert_got(client, *expected)


def test_in_a_batch_of_many_it_is_taken_from_its_own_peer(server: socket.socket) -> None:
    """Of clients that send in turns, in batches that are alike, the one whose datagram goes round loses that one."""
    with udp_client() as one, udp_client() as other:
        served = UdpWorker(server, gap=2)
        for batch in range(4):
            send(served, one, b"1 %d" % batch)
            send(served, other, b"round")
            send(served, one, b"2 %d" % batch)
            send(served, other, b"2 %d" % batch)
            served.turn()
        assert served.turn()["dropped_loop"] == 3
        assert_got(one, *(b"%d %d" % (number, batch) for batch in range(4) for number in (1, 2)))
        assert_got(other, b"round", *(b"2 %d" % batch for batch in range(4)))


def test_what_is_refused_is_not_remembered(server: socket.socket, client: socket.socket) -> None:
    """Who is over his limit may send the same later; nothing of it was looked at."""
    served = UdpWorker(server, gap=1, limit=limit(1))
    send(served, client, b"one", b"two")
    assert served.turn(100.0)["dropped_rate"] == 1
    assert seen(served) == marks(b"one")
    send(served, client, b"two")
    assert served.turn(101.0)["replied"] == 2
    assert_got(client, b"one", b"two")


def test_without_the_loop_breaker_all_is_answered(server: socket.socket, client: socket.socket) -> None:
    """Switched off, the same bytes are answered for ever."""
    served = UdpWorker(server, gap=1, loop_breaker=False)
    for _ in range(3 * PERIOD // SLOTS):
        send(served, client, *[b"round"] * SLOTS)
        row = served.turn()
        assert [client.recv(16) for _ in range(SLOTS)] == [b"round"] * SLOTS
    assert (row["received"], row["replied"]) == (3 * PERIOD, 3 * PERIOD)


# -- trains


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("gap", "cut"), [(1, [1, 2, 3, 4, 5]), (16, [1, 2, 3, 4, 5]), (40, [4]), (48, [5]), (33, [4])])
def test_of_a_train_that_goes_round_one_datagram_is_cut(host: str, gap: int, cut: list[int]) -> None:
    """Where one that is due is in it, its last alone is left out, though several be due; all others are whole."""
    with udp_server(host) as server, udp_client(host) as client:
        served, answers = UdpWorker(server, gap=gap), []
        for _ in range(6):
            send_as_train(served, client, b"xy" * 16)
            before = served.row.tolist()
            row = served.turn()
            answers.append(row["replied"] - before[2])
            assert [client.recv(16) for _ in range(answers[-1])] == [b"xy"] * answers[-1]
        assert [index for index, replied in enumerate(answers) if replied == 15] == cut
        assert row["dropped_loop"] == len(cut) == 6 * 16 - sum(answers)
        assert_nothing_more(client)


def test_among_trains_and_single_ones_each_is_found_in_its_slot(server: socket.socket, client: socket.socket) -> None:
    """Of slots that hold 1, 10, 1, 1 and 10 datagrams, the 5th, 10th, 15th and 20th are in three."""
    served = UdpWorker(server)
    send(served, client, b"0")
    send_as_train(served, client)
    send(served, client, b"1", b"2")
    send_as_train(served, client, b"kkllmmnnooppqqrrsst")
    send(served, client, b"3")
    assert served.turn()["replied"] == 24
    assert seen(served) == marks(b"j", b"t")
    send(served, client, *(b"%d" % number for number in range(4, 9)))
    served.turn()
    assert seen(served) == marks(b"j", b"t", b"4")


def test_a_train_of_one_that_is_left_over_may_go_round_too(server: socket.socket, client: socket.socket) -> None:
    """Cut to one datagram by the rate, and that one being found: nothing of the train is answered, all is counted."""
    served = UdpWorker(server, gap=1, limit=limit(2))
    send(served, client, b"aa")
    served.turn(100.0)
    send_as_train(served, client)
    row = served.turn(100.0)
    assert (row["dropped_rate"], row["dropped_loop"], row["replied"]) == (9, 1, 1)
    assert_got(client, b"aa")


def test_what_was_cut_by_the_rate_is_not_looked_at(server: socket.socket, client: socket.socket) -> None:
    """The last that is left of a train is, and a train of which all is refused is not, nor the same from elsewhere."""
    with udp_client() as other:
        served = UdpWorker(server, gap=1, limit=limit(4))
        send_as_train(served, client)
        send_as_train(served, other, b"kkllmm")
        row = served.turn(100.0)
        assert (row["replied"], row["dropped_rate"]) == (4, 9)
        assert seen(served) == marks(b"dd")
        assert_got(client, b"aa", b"bb", b"cc", b"dd")
        assert_nothing_more(other)


def test_what_was_cut_by_the_rate_does_not_count(client: socket.socket) -> None:
    """Of a train of ten four are left: the fifth is the first of somebody else."""
    with udp_server(ANY) as server, udp_client("127.0.0.2") as other:
        served = UdpWorker(server, limit=limit(4))
        send_as_train(served, client)
        served.turn(100.0)
        assert seen(served) == set()
        send(served, other, b"fifth", b"sixth")
        served.turn(100.0)
        assert seen(served) == marks(b"fifth")


def test_sockets_of_one_worker_share_what_is_left_to_the_next_look(client: socket.socket) -> None:
    """What goes round over two listeners is looked at as what goes round over one."""
    with udp_server() as one, udp_server() as other:
        first, second = UdpWorker(one, gap=4), UdpWorker(other)
        second.echo._admission = first.admission
        for number in range(2):
            send(first, client, b"1 %d" % number)
            first.turn()
            queue(client, other, b"2 %d" % number)
            second.turn()
        assert seen(first) == marks(b"2 1")
