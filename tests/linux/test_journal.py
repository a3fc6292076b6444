"""Entries by the journal's native protocol, received as journald receives them: from a datagram socket."""

import fcntl
import os
import socket
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from echod.linux.journal import Journal, encode


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where the journal listens."""
    return str(tmp_path / "journal")


@pytest.fixture
def journald(path: str) -> Iterator[socket.socket]:
    """Be the journal that listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(15)
        yield sock


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    """Return the sender to it."""
    journal = Journal("echod", path)
    yield journal
    journal._socket.close()


def test_an_entry_has_a_line_for_each_field_and_the_binary_form_for_lines() -> None:
    """A value with a newline has its length before it: 64 bits, little-endian."""
    entry = encode({"MESSAGE": "one\ntwo", "PRIORITY": 3, "ECHOD_NAME": "\u00fc=\udcff"})
    assert entry == (b"MESSAGE\n\x07\x00\x00\x00\x00\x00\x00\x00one\ntwo\nPRIORITY=3\nECHOD_NAME=\xc3\xbc=\\udcff\n")


def test_an_entry_is_one_datagram(journal: Journal, journald: socket.socket) -> None:
    """The identifier is added: journalctl -t echod finds it."""
    assert journal.send({"MESSAGE": "hi"})
    assert journald.recv(4096) == b"MESSAGE=hi\nSYSLOG_IDENTIFIER=echod\n"


def test_an_entry_too_large_for_a_datagram_is_a_sealed_file(journal: Journal, journald: socket.socket) -> None:
    """It arrives as a descriptor of a memfd that nobody can change any more, and that the sender has closed."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone
    text = "x" * 3_000_000
    assert journal.send({"MESSAGE": text})
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
    data, (fd,), _flags, _address = socket.recv_fds(journald, 4096, 4)
    assert data == b""
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == 0x0F  # SEAL, SHRINK, GROW and WRITE (fcntl(2))
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        assert file.read() == f"MESSAGE={text}\nSYSLOG_IDENTIFIER=echod\n".encode()


def test_what_the_journal_did_not_accept_is_counted_and_the_next_entry_has_the_number(
    path: str, journal: Journal
) -> None:
    """Without a journal, and with one whose queue is full, no entry waits; one that came anew is found."""
    assert not journal.send({"\udcff": "a name that is no text"})
    assert not journal.send({"MESSAGE": "nobody"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(path)
        assert journal.send({"MESSAGE": "here"})
        assert first.recv(4096) == b"MESSAGE=here\nSYSLOG_IDENTIFIER=echod\nECHOD_LOST_ENTRIES=2\n"
        accepted = list(takewhile(lambda _: journal.send({"MESSAGE": "more"}), range(10_000)))
        assert 0 < len(accepted) < 10_000  # net.unix.max_dgram_qlen
        assert not journal.send({"MESSAGE": "more"})
        Path(path).unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
            second.bind(path)
            assert journal.send({"MESSAGE": "again"})
            assert second.recv(4096) == b"MESSAGE=again\nSYSLOG_IDENTIFIER=echod\nECHOD_LOST_ENTRIES=2\n"
            assert journal.send({"MESSAGE": "all"})
            assert second.recv(4096) == b"MESSAGE=all\nSYSLOG_IDENTIFIER=echod\n"
