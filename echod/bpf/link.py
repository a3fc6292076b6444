"""The two programs for a hook, and the pair of links that attaches them to an interface.

Owns the descriptors of programs and links. Invariant: an interface has both programs or none, and they use the same
maps, but for the moment of a replacement, in which nothing is lost.
"""

import errno
import os
from contextlib import ExitStack
from typing import Final

from echod.bpf.asm import Code
from echod.bpf.layout import Driver, Hook
from echod.bpf.options import Build
from echod.bpf.program import assemble_egress, assemble_ingress
from echod.linux import bpf

_ATTACHED: Final = {Driver.TCX: bpf.INGRESS, Driver.XDP: bpf.XDP}


class DriverRefusedError(OSError):
    """The driver of an interface takes no XDP program, or has one, or the interface is gone."""


class Programs:
    """The loaded programs for one hook."""

    def __init__(self, build: Build) -> None:
        """Assemble and load both. OSError: see `linux.bpf.load_program`."""
        with ExitStack() as stack:
            self.ingress = _load(assemble_ingress(build), _ATTACHED[build.hook.driver], "echod_reply")
            stack.callback(os.close, self.ingress)
            self.egress = _load(assemble_egress(build), bpf.EGRESS, "echod_note")
            stack.pop_all()

    def close(self) -> None:
        """Close their descriptors; links keep what they attach."""
        os.close(self.ingress)
        os.close(self.egress)


def _load(code: Code, attached: int, name: str) -> int:
    btf, functions = code.btf if code.functions else (b"", b"")
    return bpf.load_program(code.instructions, attached, name=name, btf=btf, functions=functions)


class Attachment:
    """Both programs at one interface."""

    def __init__(self, ifindex: int, hook: Hook, programs: Programs) -> None:
        """Attach them. OSError: see `linux.bpf.create_link`; DriverRefusedError: what concerns XDP."""
        self.ifindex, self.hook = ifindex, hook
        with ExitStack() as stack:
            try:
                self._ingress = bpf.create_link(programs.ingress, ifindex, _ATTACHED[hook.driver])
            except OSError as error:
                if hook.driver is Driver.XDP:
                    raise DriverRefusedError(*error.args) from None
                raise
            stack.callback(os.close, self._ingress)
            self._egress = bpf.create_link(programs.egress, ifindex, bpf.EGRESS)
            stack.pop_all()

    @property
    def is_alive(self) -> bool:
        """Tell whether the interface is still there; one that was renamed, moved or is down is."""
        return bpf.linked_interface(self._ingress) != 0

    def replace_ingress(self, programs: Programs) -> None:
        """Let other programs reply; nothing is done if the interface is gone."""
        _replace(self._ingress, programs.ingress)

    def replace_egress(self, programs: Programs) -> None:
        """Let other programs note the paths; nothing is done if the interface is gone."""
        _replace(self._egress, programs.egress)

    def close(self) -> None:
        """Detach both."""
        os.close(self._ingress)
        os.close(self._egress)


def _replace(link: int, program: int) -> None:
    try:
        bpf.update_link(link, program)
    except OSError as error:
        if error.errno != errno.ENOLINK:
            raise
