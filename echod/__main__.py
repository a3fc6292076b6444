"""Where `echod` and `python -m echod` begin."""

import signal
import sys


def main() -> None:
    """Run the command line."""
    # First of all, before the imports take their time: SIGHUP without a handler would end the process, and look like
    # a clean exit (signal(7)). The supervisor unblocks it once it can act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    # What others load where they find it: structlog for tracebacks and loops that echod has not, asyncio and hashlib
    # for TLS and hashes by OpenSSL, of which none is wanted here either. Together they are 8 MiB, so not into a daemon.
    # `echod ping` may have what it wants of them: the bolts are off again once the imports are through.
    bolted = ("rich", "twisted", "ssl", "_hashlib")
    sys.modules.update(dict.fromkeys(bolted))  # type: ignore[arg-type]
    # Ctrl-C before there is anybody to take it ends the process, as it ends others: without a traceback.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from echod import cli  # noqa: PLC0415 - after the lines above, and for no other reason

    signal.signal(signal.SIGINT, interrupt)
    for name in bolted:
        del sys.modules[name]
    cli.main()


if __name__ == "__main__":
    main()
