"""echod: an echo daemon for Linux hosts (RFC 862).

The floors. A module imports only from lower floors (within `core`, and within `client`, modules import each other).

    __main__     9  the entry point
    cli          8  argv to a command; the only module that prints or exits
    reload       7  ask a running echod to reload, and wait for the outcome
    supervisor   7  owns the sockets and generations: start, reload, replace, drain, stop; signals; watchdog
    generation   6  the worker processes of one config: fork, ready, heartbeat, death
    export       6  the supervisor's side of the exporter: start, update, restart, stop
    worker       5  one process: one loop over its services
    observer     5  the daemon's snapshot of its own work, made when something has changed
    exporter     4  one process: serves metrics, health and the status page over HTTP; loaded by that process alone
    udp          4  UdpEcho: receive, admit, reply
    client       4  `echod ping`: probes echo servers and reports the outcome; loaded for that alone
    batch        3  a vector of datagrams: what came in, what goes out, trains
    tcp          3  TcpEcho: accept, within the limits; drain
    check        3  what `echod check` says
    health       3  whether every listener answers, tested by a separate process
    page         3  the status page and its policy
    books        4  totals, and the log entries made of them
    announce     3  what the supervisor reports about itself: status line, log entries
    ownership    2  the addresses of this host, read when the kernel says that they may have changed
    status       2  the status directory: written by the supervisor, read by `echod status` and `echod reload`
    arrival      2  what a receive brought: trains, interfaces, and what cannot be answered
    streams      2  the connections of a TCP listener: readiness, order of service, timeouts
    unfinished   2  what a worker had received, and not counted, when it died
    dispatch     2  outgoing messages, and what becomes of those that the kernel refuses
    holdings     3  the listening sockets that the supervisor holds until it stops
    adoption     2  the sockets that the service manager passed: what they are, and made as echod's own
    selftest     2  a probe through each listener, to test whether echod serves
    forking      2  a process forked by the supervisor: what it keeps, how it ends
    kernel       2  whether this host can do what a config asks: the warnings of `echod check` beyond the file
    service      2  what systemd makes of a config: whether the service can read it, which sockets it is passed
    http         2  a small HTTP server: GET and HEAD, bounded in connections and time
    vector       1  the memory and the two calls under a batch of datagrams; unsafe, like `ring` and `crowd`
    ring         1  one receive from many streams, and one send to them, with io_uring
    crowd        1  the readiness of many descriptors, read at once
    connection   1  one TCP connection: every byte back, half-close
    accepting    1  the errors of accept(2), and the pause when resources are exhausted
    sockets      1  open listening sockets and set them up; the only module that binds
    interface    1  the addresses of one network interface
    netlink      1  the addresses of this host, as the kernel reports them
    port         1  one UDP socket and what was learned about it
    refusals     1  refused sources in the log: few entries, however many sources
    descriptors  1  the first three file descriptors, and how many there may be
    poll         1  readiness by epoll and poll(2), with a callback for each descriptor
    signals      1  the set of signals that arrived, and a wake-up
    display      1  the output of `echod status`, for a terminal or as plain text
    systemd      1  sd_notify, passed sockets, the watchdog's interval
    daemonize    1  python-daemon, for hosts without systemd
    outfit       2  what an exporter starts with, and what it is sent later
    exposition   1  metrics as bytes; the only module that imports prometheus_client
    capacity     1  CPUs and processes that the host lets echod have, and which limit is reached
    privileges   1  what a process may do, and giving that up; unsafe, like `vector`
    instances    1  the echods of this host as processes: title, birth
    processes    1  the resources that a process uses, from /proc
    configfile   1  where the config comes from
    logs         1  structlog to journal, console or JSON; the only module that configures it
    core/        0  pure decisions: config, admission, rates, loops, trains, counters, metrics, plan, errors

The life of a datagram:

1. `Worker.run` wakes and reads the clock once.
2. `UdpEcho.on_readable` handles at most MAX_BATCHES_PER_WAKEUP batches, so that a flood on one socket starves no other.
3. `Batch.receive`: one `recvmmsg` into the slots. A slot may hold a train: many datagrams, one header.
4. `Admission.clears_all` checks all ports and addresses at once; if that does not decide, `admit_all`, or `admit` for
   each. About one datagram in 1,024 is compared with earlier ones, to detect a loop: `Circulation`.
5. `Batch.reply`: one `sendmmsg` of the same bytes, back to their senders, from the addresses they were sent to.

The life of a config change:

1. SIGHUP wakes the loop, which calls `Supervisor._reload`.
2. `configfile.read` makes a new Config, or every mistake is logged and the previous config stays in force.
3. `Holdings.acquire` opens what is new; a failure closes it again and rejects the reload.
4. `Generation.raise_workers` forks the workers; a death or a timeout before all are ready rejects the reload.
5. `Supervisor._commit`: the new workers serve, the old ones drain, removed listeners close, a new exporter starts.
"""

__version__ = "0.1.0"
