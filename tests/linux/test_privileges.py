"""Who the processes of an echod are that root has started, and what they may do: nothing but their work."""

import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, ask, children
from support.loopback import NOBODY, needs_root
from support.ports import free_port
from support.scraping import answers, exporters, fetch, metered
from support.waiting import wait_until

from echod.errors import NotPermittedError, UnknownUserError
from echod.linux.privileges import Account, find_account

EchodFactory = Callable[..., Daemon]

pytestmark = needs_root

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def standing(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process: /proc/PID/status, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def is_nothing_but(pid: int, uid: int, gid: int) -> bool:
    """Tell whether a process is this user in all respects, in this group alone, and can never be more."""
    found = standing(pid)
    return (
        found["Uid"].split() == [str(uid)] * 4
        and found["Gid"].split() == [str(gid)] * 4
        and not found["Groups"].strip()
        and all(int(found[name], 16) == 0 for name in CAPABILITIES)
        and found["NoNewPrivs"] == "1"
    )


def nobody() -> pwd.struct_passwd:
    """Return the account of nobody."""
    return pwd.getpwnam("nobody")


def test_workers_exporter_and_self_test_of_root_are_nobody(echod: EchodFactory) -> None:
    """Not one capability, no group of root's, and no way back; the supervisor stays root, and all is served."""
    port = free_port()
    config, http = metered(f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}")
    daemon = echod(config, prefix=["setpriv", "--groups", "1,2"])
    wait_until(lambda: answers(http), "the exporter served")
    (exporter,) = exporters(daemon)
    workers = daemon.workers()
    for pid in (exporter, *workers):
        assert is_nothing_but(pid, nobody().pw_uid, nobody().pw_gid), standing(pid)
    assert standing(daemon.pid)["Uid"].split() == ["0"] * 4
    assert ask(port) == b"hi"
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # so that the test waits for its answers
    with socket.create_connection(("127.0.0.1", http)) as asking:
        asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        (test_process,) = wait_until(lambda: children(exporter), "a self test ran")
        assert is_nothing_but(test_process, nobody().pw_uid, nobody().pw_gid), standing(test_process)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: answers(http, "/healthz"), "every listener answered the exporter")


def test_the_metrics_of_all_processes_are_still_there(echod: EchodFactory) -> None:
    """As nobody the exporter reads the CPU time and memory of the supervisor and the workers."""
    config, http = metered(f"udp://127.0.0.1:{free_port()}")
    daemon = echod(config)
    wait_until(lambda: answers(http), "the exporter served")
    for process in ("supervisor", "exporter", "worker 1", "worker 2"):
        wait_until(
            lambda process=process: f'process_resident_memory_bytes{{process="{process}"}}' in fetch(http)[2],
            f"the memory of the {process} was reported",
        )
    assert daemon.stop() == 0


def test_a_port_below_1024_that_a_reload_adds_is_bound(echod: EchodFactory) -> None:
    """The supervisor keeps what it needs for that; a worker that replaces a killed one is nobody, too."""
    port = free_port()
    config = {"listeners": [f"udp://127.0.0.1:{port}"], "workers": 1, "udp": {"receive_buffer": "64 MiB"}}
    daemon = echod(config)
    low = next(number for number in range(1023, 512, -1) if is_free(number))
    more = [f"udp://127.0.0.1:{port}", f"udp://127.0.0.1:{low}", f"tcp://127.0.0.1:{low}"]
    assert daemon.reload({**config, "listeners": more})["event"] == "reloaded"
    assert ask(low) == b"hi"
    assert daemon.log("buffers_capped") == []  # forced with CAP_NET_ADMIN, before it was given up
    (old,) = wait_until(lambda: len(daemon.workers()) == 1 and daemon.workers(), "the old worker had gone")
    os.kill(old, signal.SIGKILL)
    (new,) = wait_until(lambda: [pid for pid in daemon.workers() if pid != old], "a new worker was there")
    wait_until(lambda: is_nothing_but(new, nobody().pw_uid, nobody().pw_gid), "it was nobody")
    assert ask(low) == b"hi"


def is_free(port: int) -> bool:
    """Tell whether nobody has a port of 127.0.0.1."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def test_another_user_is_taken_at_the_next_reload(echod: EchodFactory) -> None:
    """By name, and `root` too, which keeps the user id but no capability; an unknown name rejects the reload."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    daemon = echod(config)
    for name in ("daemon", "root"):
        before = daemon.workers()
        assert daemon.reload({**config, "user": name})["event"] == "reloaded"
        wait_until(lambda before=before: not set(before) & set(daemon.workers()), "the old worker had gone")
        entry = pwd.getpwnam(name)
        assert is_nothing_but(daemon.workers()[0], entry.pw_uid, entry.pw_gid), standing(daemon.workers()[0])
    printed = daemon.reload({**config, "user": "echod-nowhere"})["message"]
    assert printed.endswith("user: this host has no user echod-nowhere: write another, or auto")


def test_where_no_user_can_be_had_the_start_fails_with_a_sentence(echod: EchodFactory) -> None:
    """Without CAP_SETUID nobody cannot be become; `user: root` is the way to do without, and it still sheds all."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    prefix = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"]
    failed = echod(config, prefix=prefix, ready=False)
    assert failed.wait() == 70
    printed = "echod: worker 1: user: cannot become nobody (uid 65534): Operation not permitted; that takes CAP_SETUID"
    assert printed in failed.stderr
    daemon = echod({**config, "user": "root"}, prefix=prefix)
    assert is_nothing_but(daemon.workers()[0], 0, 0)


WITHOUT_KILL = ["setpriv", "--bounding-set=-all,+setuid,+setgid,+net_bind_service", "--inh-caps=-all"]


def test_root_that_could_not_end_its_workers_is_told_so_at_the_start(echod: EchodFactory) -> None:
    """Without CAP_KILL one that is stuck would hold the port for ever, also after the end of the supervisor."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    for user in ("auto", "daemon"):
        failed = echod({**config, "user": user}, prefix=WITHOUT_KILL, ready=False)
        assert failed.wait() == 77
        who = {"auto": "nobody"}.get(user, user)
        assert failed.stderr.endswith(
            f"echod: user: root without CAP_KILL cannot end a process that has become {who}: add CAP_KILL to the "
            "capabilities of echod, or write user: root\n"
        )


def test_root_without_cap_kill_ends_workers_and_exporter_that_stay_root(echod: EchodFactory) -> None:
    """With `user: root` a stopped worker is killed and replaced, and a stop is in order; no reload takes nobody."""
    config, http = metered(f"udp://127.0.0.1:{free_port()}")
    config |= {"user": "root", "workers": 1}
    daemon = echod(config, prefix=WITHOUT_KILL)
    wait_until(lambda: answers(http), "the exporter served")
    assert "CAP_KILL" in daemon.reload({**config, "user": "auto"})["message"]
    (stopped,) = daemon.workers()
    os.kill(stopped, signal.SIGSTOP)
    wait_until(lambda: daemon.workers() and stopped not in daemon.workers(), "the worker was replaced")
    assert daemon.stop() == 0


def test_only_root_can_become_another_user() -> None:
    """Whoever is not root stays who he is, may name himself, and nobody else: that is reported with what to write."""
    assert find_account("auto") == Account(name="nobody", uid=nobody().pw_uid, gid=nobody().pw_gid)
    with pytest.raises(UnknownUserError, match="has no user echod-nowhere"):
        find_account("echod-nowhere")
    os.seteuid(NOBODY)
    try:
        assert find_account("auto") is None
        assert find_account("nobody") is None
        with pytest.raises(NotPermittedError, match=r"only root can become root, and echod runs as user id 65534"):
            find_account("root")
    finally:
        os.seteuid(0)


def test_a_host_without_an_account_of_nobody_has_its_id_all_the_same(tmp_path: Path) -> None:
    """As in a container without /etc/passwd: 65534, as the kernel has it."""
    script = 'mount --bind "$0" /etc/passwd && exec "$@"'
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    ask_python = "from echod.linux.privileges import find_account; print(find_account('auto'))"
    command = ["unshare", "--mount", "sh", "-c", script, str(tmp_path / "passwd"), sys.executable, "-c", ask_python]
    reported = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert reported == "Account(name='nobody', uid=65534, gid=65534)\n"


def test_in_a_user_namespace_that_has_root_alone_root_can_be_kept(echod: EchodFactory) -> None:
    """There is no nobody to become and no group to leave; the capabilities go all the same, as the message reports."""
    config = {"listeners": [f"udp://127.0.0.1:{free_port()}"], "workers": 1}
    prefix = ["unshare", "--user", "--map-root-user"]
    failed = echod(config, prefix=prefix, ready=False)
    assert failed.wait() == 70
    assert "cannot become nobody" in failed.stderr
    assert "a user namespace that has this id: write user: root to do without" in failed.stderr
    daemon = echod({**config, "user": "root"}, prefix=prefix)
    found = standing(daemon.workers()[0])
    assert all(int(found[name], 16) == 0 for name in CAPABILITIES)
    assert found["NoNewPrivs"] == "1"
