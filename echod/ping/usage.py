"""The text of `echod ping --help` before and after the options.

Owns these texts. Invariant: no line is longer than 80 columns, because argparse does not wrap them.
"""

from typing import Final

DESCRIPTION: Final = """Send probes to echo servers (RFC 862) over UDP or TCP, and report what became of
each probe.

A TARGET is [udp://|tcp://]HOST[:PORT], by default UDP and port 7. Several
targets are probed at the same time. Each probe carries a number, a send time
and a checksum, to distinguish loss, duplicates, reordering, damage, late
replies and replies from other addresses. Round-trip times are measured between
kernel timestamps of probe and reply, without the time that this process takes."""

EPILOG: Final = """Defaults are in parentheses. A TIME is in seconds (0.2) or has a unit: 50us,
200ms, 2m, 1h.

Ctrl-C ends the run with the statistics. Ctrl-\\ prints a line of statistics for
each TARGET, and the run goes on.

exit codes:
  0  a reply came, from any TARGET
  1  no reply came
  2  the command line is wrong, a name has no address, or the output cannot be
     written

A probe below 24 bytes has no send time, below 12 no checksum. Below 4 its
number repeats, so damage may be mistaken for another number. With 0 bytes
replies are counted in order, without detection of reordering and duplicates.

examples:
  echod ping -c 5 192.0.2.1               five probes to udp://192.0.2.1:7
  echod ping tcp://[2001:db8::1]:7007     over TCP, to another port
  echod ping -i 100us -c 100000 -q HOST   10,000 a second, statistics only
  echod ping -q -i 0.2 A B C              three hosts, a live line for each
  echod ping --sources 16 --json HOST     16 paths of an ECMP network, as JSON
  echod ping --mtu HOST                   path MTU
  echod ping --compare tcp HOST           is UDP filtered, or is the host down?
  echod ping -f -w 10 HOST                flood for ten seconds

echod-ping(1) explains each line of the output."""
