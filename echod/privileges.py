"""What a process may do, and giving that up for good, by prctl(2) and capset(2): an unsafe module, like `vector`.

Owns these calls, and the look-up of the account that processes become. Its callers decide when. The contract:

- It acts on the calling thread alone, so it is for processes of one thread, newly forked.
- Every buffer lives on the Python side until its call returns; the kernel keeps no pointer.
- `struct __user_cap_header_struct` is a u32 version and an int process id, 0 for the caller. In version 3 the data are
  two `struct __user_cap_data_struct` of three u32 each: effective, permitted, inheritable (capget(2)).
- What is given up cannot be had again: sockets must be bound, and buffers forced, before.
"""

import ctypes
import os
import pwd
import signal
import struct
from dataclasses import dataclass
from itertools import count
from typing import Final

from echod.core.errors import NotPermittedError, UnknownUserError

AUTO: Final = "auto"
_NOBODY: Final = "nobody"
_OVERFLOW_ID: Final = 65_534
"""The id of nobody where no account has that name: the kernel's own (/proc/sys/kernel/overflowuid)."""

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_KILL: Final = 1 << 5
_NET_BIND_SERVICE: Final = 1 << 10

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user that processes become."""

    name: str
    uid: int
    gid: int


def find_account(user: str) -> Account | None:
    """Return the account that the config's `user` means; None if processes stay who they are.

    Raises EchodError if there is no such user, only root could become it, or root could not end what has become it.
    """
    uid = os.geteuid()
    if user == AUTO:
        return _that_can_be_killed(_nobody()) if uid == 0 else None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UnknownUserError(f"user: this host has no user {user}: write another, or auto") from None
    if uid != 0:
        if entry.pw_uid == uid:
            return None
        raise NotPermittedError(
            f"user: only root can become {user}, and echod runs as user id {uid}: write auto, or start it as root"
        )
    return _that_can_be_killed(Account(name=user, uid=entry.pw_uid, gid=entry.pw_gid))


def _that_can_be_killed(account: Account) -> Account:
    """Return the account, if root may signal its processes: without that, one that is stuck would hold its ports.

    Not even PR_SET_PDEATHSIG would end it: the kernel checks the permission of the parent that dies. Raises EchodError.
    """
    if account.uid != 0 and not _capabilities()[0] & _KILL:
        raise NotPermittedError(
            f"user: root without CAP_KILL cannot end a process that has become {account.name}: add CAP_KILL to the "
            "capabilities of echod, or write user: root"
        )
    return account


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam(_NOBODY)
    except KeyError:
        return Account(name=_NOBODY, uid=_OVERFLOW_ID, gid=_OVERFLOW_ID)
    return Account(name=_NOBODY, uid=entry.pw_uid, gid=entry.pw_gid)


def become(account: Account) -> None:
    """Be this user from now on, in its group alone and without any capability. For a process of root.

    Raises EchodError if the kernel does not allow it.
    """
    try:
        try:
            os.setgroups(())
        except PermissionError:
            if account.uid != os.geteuid():
                raise
            # It stays who it is, in a user namespace whose groups cannot be left (user_namespaces(7)).
        os.setresgid(account.gid, account.gid, account.gid)
        for number in count():  # without CAP_SETPCAP none can be dropped; no_new_privs then has the same effect
            if _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
                break
        os.setresuid(account.uid, account.uid, account.uid)
        _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        _limit_capabilities(0)
        _forbid_new()
    except OSError as error:
        raise NotPermittedError(
            f"user: cannot become {account.name} (uid {account.uid}): {error.strerror}; that takes CAP_SETUID and "
            "CAP_SETGID, and a user namespace that has this id: write user: root to do without"
        ) from None


def shed() -> None:
    """Give up all but CAP_NET_BIND_SERVICE, as far as this process may. For a process that keeps its user.

    That one is kept if present: a process may not inspect one with more capabilities (ptrace(2)), and with
    ProtectProc=invisible would not see its own supervisor and workers. It is the only capability of echod.service,
    where capset(2) is forbidden anyway.
    """
    try:
        _forbid_new()
        _limit_capabilities(_NET_BIND_SERVICE)
    except OSError:
        return


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. A change of user would undo it: call it afterwards."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _forbid_new() -> None:
    """Let no program that this process executes have more privileges than it (PR_SET_NO_NEW_PRIVS)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _limit_capabilities(mask: int) -> None:
    """Keep of the effective, permitted and inheritable capabilities at most these. Raises OSError."""
    low = _capabilities()
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=IIIIII", *(each & mask for each in low), 0, 0, 0)))


def _capabilities() -> tuple[int, ...]:
    """Return the first 32 of the effective, permitted and inheritable capabilities. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets))
    return struct.unpack("=IIIIII", sets.raw)[:3]


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
