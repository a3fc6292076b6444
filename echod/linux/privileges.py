"""What a process may do, and giving that up for good.

Owns the look-up of the account that processes become, and the order in which privileges are given up. Its callers
decide when. Invariant: a privilege that is given up cannot be regained, so sockets are bound and buffers forced before.
"""

import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from echod.errors import NotPermittedError, UnknownUserError
from echod.linux import prctl

AUTO: Final = "auto"
_OVERFLOW_ID: Final = 65_534
"""The id of nobody where no account has that name: the kernel's own (/proc/sys/kernel/overflowuid)."""


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
    uid, auto = os.geteuid(), user == AUTO
    if auto and uid != 0:
        return None
    name = "nobody" if auto else user
    try:
        entry = pwd.getpwnam(name)
        account = Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    except KeyError:
        if not auto:
            raise UnknownUserError(f"user: this host has no user {user}: write another, or auto") from None
        account = Account(name=name, uid=_OVERFLOW_ID, gid=_OVERFLOW_ID)
    if uid != 0:
        if account.uid == uid:
            return None
        raise NotPermittedError(
            f"user: only root can become {user}, and echod runs as user id {uid}: write auto, or start it as root"
        )
    # A process that root may not signal, if stuck, would hold its ports. Not even PR_SET_PDEATHSIG would end it: the
    # kernel checks the permission of the parent that dies.
    if account.uid != 0 and not prctl.capabilities()[0] & prctl.CAP_KILL:
        raise NotPermittedError(
            f"user: root without CAP_KILL cannot end a process that has become {account.name}: add CAP_KILL to the "
            "capabilities of echod, or write user: root"
        )
    return account


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
        with suppress(OSError):  # the last is behind; without CAP_SETPCAP none is dropped: no_new_privs has that effect
            for number in count():
                prctl.prctl(prctl.PR_CAPBSET_DROP, number)
        os.setresuid(account.uid, account.uid, account.uid)
        prctl.prctl(prctl.PR_CAP_AMBIENT, prctl.PR_CAP_AMBIENT_CLEAR_ALL)
        prctl.limit_capabilities(0)
        prctl.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise NotPermittedError(
            f"user: cannot become {account.name} (uid {account.uid}): {error.strerror}; that takes CAP_SETUID and "
            "CAP_SETGID, and a user namespace that has this id: write user: root to do without"
        ) from None


def drop_capabilities() -> None:
    """Give up all but CAP_NET_BIND_SERVICE, as far as this process may. For a process that keeps its user.

    That one is kept if present: a process may not inspect one with more capabilities (ptrace(2)), and with
    ProtectProc=invisible would not see its own supervisor and workers. It is the only capability of echod.service,
    where capset(2) is forbidden anyway.
    """
    with suppress(OSError):
        prctl.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
        prctl.limit_capabilities(prctl.CAP_NET_BIND_SERVICE)
