"""Where `echod` and `python -m echod` begin."""

import signal
import sys


def main() -> None:
    """Run the command line."""
    # First of all, before the imports take their time: SIGHUP without a handler would end the process, and look like
    # a clean exit (signal(7)). The supervisor unblocks it once it can act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    # structlog loads rich where it finds it, for tracebacks that echod never shows: not into a daemon. `echod ping`
    # may have it, so the bolt is off again once the imports are through.
    sys.modules["rich"] = None  # type: ignore[assignment]
    from echod import cli  # noqa: PLC0415 - after the lines above, and for no other reason

    del sys.modules["rich"]
    cli.main()


if __name__ == "__main__":
    main()
