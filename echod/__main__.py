"""The entry points of `echod`, `python -m echod` and `echod-ping`."""

import signal
import sys
from types import ModuleType


class _Asyncio(ModuleType):
    """Stands for asyncio until something of it is used: structlog imports it for loggers that await."""

    def __getattr__(self, name: str) -> object:
        """Import the real one."""
        if sys.modules.get("asyncio") is self:
            del sys.modules["asyncio"]
        import asyncio  # noqa: PLC0415

        return getattr(asyncio, name)


def main() -> None:
    """Run the command line."""
    # First of all, before the slow imports: SIGHUP without a handler would end the process, and look like a clean exit
    # (signal(7)). The supervisor unblocks it once it can act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    # Modules that others load if they find them: structlog for tracebacks and event loops that echod does not use,
    # hashlib for hashes by OpenSSL, which echod does not need either. Together with asyncio they take 10 MiB, too much
    # for a daemon. They are blocked only during the imports, so that `echod ping` can load what it needs.
    bolted = ("rich", "twisted", "ssl", "_hashlib")
    sys.modules.update(dict.fromkeys(bolted))  # type: ignore[arg-type]
    sys.modules["asyncio"] = _Asyncio("asyncio")
    # Ctrl-C before there is anybody to take it ends the process, as it ends others: without a traceback.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from echod.cli import main  # noqa: PLC0415 - after the lines above, and for no other reason

    command = main.load(sys.argv[1:])
    signal.signal(signal.SIGINT, interrupt)
    for name in bolted:
        del sys.modules[name]
    main.main(command)


def ping() -> None:
    """Run `echod ping`, by a name of its own."""
    sys.argv.insert(1, "ping")
    main()


if __name__ == "__main__":
    main()
