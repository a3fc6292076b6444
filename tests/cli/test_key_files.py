"""echod.cli.key_files: `echod check` reads the keys that a config names by their path."""

from pathlib import Path

from support.config_mistakes import rows
from support.daemon import run_echod

from echod.cli.key_files import find, find_hidden
from echod.config.document import read
from echod.config.parse import parse_config


def config_of(*names: str) -> bytes:
    """Return a config with a listener for each key."""
    lines = (
        f"  - {{address: udp://127.0.0.1:{7000 + number}, mode: stamp, hmac_key: {name}}}\n"
        for number, name in enumerate(names)
    )
    return ("listeners:\n" + "".join(lines)).encode()


def found(text: bytes) -> tuple[list[tuple[int, int, str, str]], list[tuple[int, int, str, str]]]:
    """Return the mistakes and the warnings about the keys of a config."""
    findings = find(parse_config(text)[0], read(text))
    return rows(findings.mistakes), rows(findings.warnings)


def test_a_key_that_can_be_read_is_not_spoken_of(tmp_path: Path) -> None:
    """Nor is one that is a credential, and a listener without a key."""
    (tmp_path / "key").write_bytes(b"secret")
    assert found(config_of(f"{tmp_path}/key", "stamp.key") + b"  - udp://127.0.0.1:7\n") == ([], [])


def test_a_key_that_is_absent_is_a_mistake(tmp_path: Path) -> None:
    """It stands at the value; a file that is no key is a mistake too."""
    (tmp_path / "empty").touch()
    first = f"{tmp_path}/none cannot be read: No such file or directory: echod would not start here"
    second = f"{tmp_path}/empty has no bytes: a key has 1 to 1,024 bytes"
    assert found(config_of(f"{tmp_path}/none", f"{tmp_path}/empty")) == (
        [(2, 60, "listeners[0].hmac_key", first), (3, 60, "listeners[1].hmac_key", second)],
        [],
    )


def test_what_a_service_cannot_read_is_a_mistake(tmp_path: Path) -> None:
    """With what to write in its unit and here. It is asked once about each path, and about none that is absent."""
    (tmp_path / "key").write_bytes(b"secret")
    asked: list[str] = []

    def reason(path: str) -> str:
        asked.append(path)
        return "Permission denied"

    text = config_of(f"{tmp_path}/key", "stamp.key", f"{tmp_path}/none", f"{tmp_path}/key")
    message = (
        f"echod.service cannot read {tmp_path}/key: Permission denied: write LoadCredential=key:{tmp_path}/key into "
        "the unit, and hmac_key: key here"
    )
    hidden = tuple(find_hidden(parse_config(text)[0], read(text), "echod.service", reason))
    assert rows(hidden) == [(2, 60, "listeners[0].hmac_key", message), (5, 60, "listeners[3].hmac_key", message)]
    assert asked == [f"{tmp_path}/key"]
    assert list(find_hidden(parse_config(text)[0], read(text), "echod.service", lambda _path: "")) == []


def test_check_reports_it_with_its_place(tmp_path: Path) -> None:
    """As every other mistake."""
    path = tmp_path / "echod.yaml"
    path.write_bytes(config_of(f"{tmp_path}/none"))
    done = run_echod("check", "--config", path)
    assert (done.returncode, done.stderr) == (78, "")
    assert done.stdout.startswith(f"{path}:2:60: error: listeners[0].hmac_key: {tmp_path}/none cannot be read: ")
    assert done.stdout.endswith(f"\n{path}: 1 mistake\n")
    (tmp_path / "none").write_bytes(b"secret")
    done = run_echod("check", "--config", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: ok; listeners: udp://127.0.0.1:7000 (stamp)\n")
