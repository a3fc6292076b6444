"""What `echod ping --help` says around the options.

Owns these texts. Invariant: no line is longer than 80 columns, for argparse leaves them as they are.
"""

from typing import Final

DESCRIPTION: Final = """Send probes to an echo server (RFC 862) over UDP or TCP, and report what became
of each.

Each TARGET is [udp://|tcp://]HOST[:PORT]: UDP and port 7 unless it says
otherwise. Several are probed at the same time. Every probe has a number, a send
time and a checksum in it, so that loss, duplicates, reordering, damage, late
replies and replies from elsewhere are told from each other. A round-trip time
is that between the kernel's own stamps of probe and reply, without the time
that this process took."""

EPILOG: Final = """a default stands in parentheses. durations are seconds (0.2) or have a unit:
50us, 200ms, 2m.

Ctrl-C ends the run with the statistics; Ctrl-\\ prints a line of them and goes
on.

exit codes: 0 a reply came, from any TARGET; 1 none came; 2 the command line is
wrong, a name has no address, or the output cannot be written.

below 24 bytes a probe has no send time in it, below 12 no checksum; below 4 its
number repeats, so damage may be taken for another number; at 0 replies are
counted in order, and neither order nor duplicates can be told.

examples:
  echod ping -c 5 192.0.2.1               five probes to udp://192.0.2.1:7
  echod ping tcp://[2001:db8::1]:7007     over TCP, to another port
  echod ping -i 100us -c 100000 -q HOST   10,000 a second, statistics only
  echod ping -q -i 0.2 A B C              three hosts, one live line for each
  echod ping --sources 16 --json HOST     16 paths of an ECMP network, as JSON
  echod ping --mtu HOST                   path MTU
  echod ping --compare tcp HOST           is UDP filtered, or is the host down?
  echod ping -f -w 10 HOST                as fast as it goes, for ten seconds

echod-ping(1) says what each line of the output means."""
