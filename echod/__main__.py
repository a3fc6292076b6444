"""Where `echod` and `python -m echod` begin."""

import signal


def main() -> None:
    """Run the command line."""
    # First of all, before the imports take their time: SIGHUP without a handler would end the process, and look like
    # a clean exit (signal(7)). The supervisor unblocks it once it can act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    from echod import cli  # noqa: PLC0415 - after the line above, and for no other reason

    cli.main()


if __name__ == "__main__":
    main()
