"""echod.config.keys: the keys that a config names, as bytes."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from echod.config.keys import read_key, read_keys
from echod.errors import KeyUnreadableError
from echod.net.listener import Listener, parse_listener
from echod.net.mode import PLAIN, ListenerOptions, Mode

(LISTENER,) = parse_listener("udp://127.0.0.1:862")
(OTHER,) = parse_listener("udp://127.0.0.1:863")


def keyed(name: str) -> Mapping[Listener, ListenerOptions]:
    """Return a listener with a key, and one without."""
    return {LISTENER: ListenerOptions(mode=Mode.STAMP, hmac_key=name), OTHER: PLAIN}


def refusal(name: str) -> str:
    """Return why a key cannot be had."""
    with pytest.raises(KeyUnreadableError) as caught:
        read_keys(keyed(name))
    return str(caught.value)


def write(path: Path, content: bytes) -> str:
    """Write a file; return its path."""
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b" \x00\xff\r\n", b" \x00\xff\r"),
        (b"k" * 1024, b"k" * 1024),
        (b"k" * 1024 + b"\n", b"k" * 1024),
    ],
)
def test_a_key_is_the_content_of_its_file(content: bytes, key: bytes, tmp_path: Path) -> None:
    """Any bytes, without the newline that an editor leaves at the end; of a listener without a key there is none."""
    assert read_keys(keyed(write(tmp_path / "key", content))) == {LISTENER: key}


def test_a_credential_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the directory that systemd gives (systemd.exec(5)). A path is not looked for there."""
    write(tmp_path / "stamp.key", b"secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_keys(keyed("stamp.key")) == {LISTENER: b"secret"}
    assert refusal("/stamp.key").startswith("hmac_key of udp://127.0.0.1:862: /stamp.key cannot be read: No such file")


def test_a_service_without_credentials_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line for its unit."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert refusal("stamp.key") == (
        "hmac_key of udp://127.0.0.1:862: the service has no credentials: write LoadCredential=stamp.key:FILE into the "
        "service unit, or an absolute path into the config"
    )


def test_a_credential_that_the_service_does_not_have_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has others."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert refusal("stamp.key") == (
        f"hmac_key of udp://127.0.0.1:862: {tmp_path}/stamp.key cannot be read: No such file or directory: write "
        "LoadCredential=stamp.key:FILE into the service unit, and restart it"
    )


def test_what_is_no_key_is_refused_with_its_reason(tmp_path: Path) -> None:
    """A file that is absent, a directory, an empty file and one that is too long. A FIFO does not block."""
    begin = f"hmac_key of udp://127.0.0.1:862: {tmp_path}"
    remedy = "write the path of the file that has the key"
    assert refusal(f"{tmp_path}/none") == f"{begin}/none cannot be read: No such file or directory: {remedy}"
    assert refusal(str(tmp_path)) == f"{begin} cannot be read: Is a directory: {remedy}"
    many, none = "has more: a key has 1 to 1,024 bytes", "has no bytes: a key has 1 to 1,024 bytes"
    assert refusal(write(tmp_path / "long", b"k" * 1025)) == f"{begin}/long {many}"
    assert refusal(write(tmp_path / "longer", b"k" * 1024 + b"\nk")) == f"{begin}/longer {many}"
    for number, content in enumerate((b"", b"\n")):
        assert refusal(write(tmp_path / f"{number}", content)) == f"{begin}/{number} {none}"
    os.mkfifo(tmp_path / "fifo")
    assert refusal(f"{tmp_path}/fifo") == f"{begin}/fifo {none}"


def test_no_error_has_a_byte_of_the_key(tmp_path: Path) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"^has more: a key has 1 to 1,024 bytes$"):
        read_key(Path(write(tmp_path / "key", b"secret" * 500)))
