"""echod: an echo daemon for Linux hosts (RFC 862).

The floors. Imports only go down; modules of one floor do not import each other (those of `core` may, and of `client`).

    __main__     9  where a process begins
    cli          8  argv to a command; the only module that prints or exits
    reload       7  ask a running echod to reload, and wait for the outcome
    supervisor   7  owns the sockets and generations: start, reload, replace, drain, stop; signals; watchdog
    generation   6  the worker processes of one config: fork, ready, heartbeat, death
    export       6  the exporter as the supervisor has it: raised, told, raised again, let go
    worker       5  one process: one loop over its services
    observer     4  what the daemon sees of its own work: the snapshot, when something has changed
    exporter     4  one process: serves metrics, health and the status page over HTTP; loaded by that process alone
    udp          4  UdpEcho: receive, admit, reply
    client       4  `echod ping`: asks echo servers and says what became of the question; loaded for that alone
    batch        3  a vector of datagrams: what came in, what goes out, trains
    tcp          3  TcpEcho: accept, within the limits; drain
    health       3  whether every listener answers, tested by a process of its own
    page         3  the status page and its policy
    books        3  totals, and the log entries made of them
    ownership    2  the addresses of this host, asked for once a second
    announce     2  what the supervisor says of itself: status line, log entries
    arrival      2  what came in with a batch: trains, ways, and what cannot be answered
    streams      2  the connections of a TCP listener: who is ready, who goes first, time
    dispatch     2  messages on their way out, and what becomes of those that the kernel refuses
    holdings     2  the listening sockets that the supervisor holds until it stops
    selftest     2  a probe through each listener, for whoever asks whether echod serves
    forking      2  a process forked by the supervisor: what it keeps, how it ends
    kernel       2  what this host makes of a config: what `echod check` warns of beyond the file
    http         2  a small HTTP server: GET and HEAD, bounded in connections and time
    vector       1  the memory and the two calls under a batch of datagrams; unsafe, as no other but the next two is
    ring         1  one receive from many streams, and one send to them, by io_uring
    crowd        1  many descriptors looked at together
    connection   1  one TCP connection: every byte back, half-close
    accepting    1  what accept(2) may end in, and the pause where there are no means
    sockets      1  open or adopt listening sockets; the only module that binds
    netlink      1  the addresses that are this host's own, as the kernel has them
    port         1  one UDP socket and what was learned about it
    refusals     1  who was refused: a few log entries, however many they are
    descriptors  1  how many file descriptors there may be
    poll         1  who is ready, by epoll and poll(2), with a callback for each descriptor
    signals      1  signals as a set of those that came, and a wake-up
    status       1  the status directory: written by the supervisor, read by `echod status` and `echod reload`
    display      1  what `echod status` shows, drawn on a terminal or as plain text
    systemd      1  sd_notify, passed sockets, the watchdog's interval
    daemonize    1  python-daemon, for hosts without systemd
    outfit       1  what an exporter is born with, and what it is told
    exposition   1  metrics as bytes; the only module that imports prometheus_client
    processes    1  what a process takes, as /proc has it
    configfile   1  where the config comes from
    logs         1  structlog to journal, console or JSON; the only module that configures it
    core/        0  pure decisions: config, admission, rates, loops, trains, counters, metrics, plan, errors

The life of a datagram:

1. `Worker.run` wakes and reads the clock once.
2. `UdpEcho.on_readable`, at most MAX_BATCHES_PER_WAKEUP batches, so that a flood on one socket starves no other.
3. `Batch.receive`: one `recvmmsg` into the slots. A slot may hold a train: many datagrams, one header.
4. `Admission.clears_all`, two looks at all ports and addresses; where they do not tell, `admit_all`, or `admit` each.
   About every 1,024th is compared with those before, lest it goes round: `Circulation`.
5. `Batch.reply`: one `sendmmsg` from the same bytes, to where they came from, from the address that was asked.

The life of a config change:

1. SIGHUP wakes the loop, which calls `Supervisor._reload`.
2. `configfile.read` makes a fresh Config, or every mistake is logged and the old config goes on.
3. `Holdings.acquire` opens what is new; a failure closes it again and rejects the reload.
4. `Generation.raise_workers` forks; a death or a timeout before all are ready rejects the reload.
5. `Supervisor._commit`: the new workers serve, the old ones drain, closed listeners close, a new exporter begins.
"""

__version__ = "0.1.0"
