"""prctl(2), capget(2) and capset(2): an unsafe module. The contract:

- They act on the calling thread alone, so they are for processes of one thread.
- Every buffer lives on the Python side until its call returns; the kernel keeps no pointer.
- `struct __user_cap_header_struct` is a u32 version and an int process id, 0 for the caller. In version 3 the data are
  two `struct __user_cap_data_struct` of three u32 each: effective, permitted, inheritable (capget(2)), of which the
  second has the capabilities from 32 on.

Owns the numbers of linux/prctl.h and linux/capability.h. Its callers decide what to give up, and when.
"""

import ctypes
import os
import struct
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_DROP: Final = 24
PR_SET_TIMERSLACK: Final = 29
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CAP_KILL: Final = 1 << 5
CAP_NET_BIND_SERVICE: Final = 1 << 10
CAP_NET_ADMIN: Final = 1 << 12
CAP_BPF: Final = 1 << 39

_CAPABILITY_VERSION_3: Final = 0x20080522

_libc: Final = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, argument: int) -> None:
    """Operate on this process. Raises OSError."""
    _check(_libc.prctl(option, argument, 0, 0, 0))


def capabilities() -> tuple[int, ...]:
    """Return the effective, permitted and inheritable capabilities, as masks. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets))
    words = struct.unpack("=IIIIII", sets.raw)
    return tuple(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True))


def limit_capabilities(mask: int) -> None:
    """Keep of the effective, permitted and inheritable capabilities at most these. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    kept = [each & mask for each in capabilities()]
    words = [each >> shift & 0xFFFF_FFFF for shift in (0, 32) for each in kept]
    _check(_libc.capset(header, struct.pack("=IIIIII", *words)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
