"""echod: an echo daemon for Linux hosts (RFC 862).

One package is one process, or one subject; `tests/test_house.py` has the arrows between them. `*`: pure, without I/O,
clock, log or mutable globals.

Commands

    __main__     the entry point
    cli/         one module for each command, imported when it is chosen; only this package prints and exits: main,
                 errors, options, run, daemonize, check, host (what this host lets echod do), host_kernel (and echod
                 accelerate), inquiry*, key_files, service_unit, config, reload, status, directory, units, accelerate,
                 ping
    errors*      the mistakes of an operator, and their exit codes
    logs         structlog to journal, console or JSON

Processes

    supervisor/  owns the sockets and the generations of workers: supervisor, generation, worker_process, listening,
                 adoption, exporter, reporter, observer, refusal_log, own_addresses, timers*, capacity*
    worker/      one process, one loop over its services: worker, channel, rules*, modes (the reply of each)
    exporter/    serves metrics, health and the status page: exporter, channel, metrics*, health, status_page
    accelerator/ `echod accelerate`: accelerator, interfaces, settings*, declaration*, changes (of the network),
                 obstacles (why the kernel refuses), publisher
    ping/        `echod ping`: command, options, contradictions, modes, usage, values*, text, far_end (what a
                 responder reports), records, charts*, live, plot, reverse_dns, reveal

Services

    udp/         receive a batch, admit it, reply: service, batch, reply, refusal, transmit, cmsg, reduction (for
                 sockets that change), sock, trains*, unfinished, arrivals*, columns* (fields of many datagrams),
                 sessions* (counts of each client), impairment*; modes/, what else a listener replies: discard, impair,
                 reveal, udpecho_plus, stamp, stamp_tlvs, tables
    tcp/         accept, every byte back: service, connections, connection, limits*; modes/: discard, impair
    bpf/         the kernel repeats what the sockets replied: asm*, layout*, options*, program* and its steps (checks*,
                 decisions*, limits*, loops*, reply*, counting*, egress*), maps*, link, datapath

Engines

    probes/      what sends probes and reads replies: settings*, loop, due_times*, session, flood, mtu, udp, tcp,
                 sockets, target, frames* (UDPEchoPlus, STAMP), exchange, detection, reveal
    status/      the status directory and the self test: files, writing, publisher, instances, kernel (what the
                 accelerator reports), overview*, tables*, selftest
    metrics/     metrics over HTTP: model*, exposition, http_server

Subjects

    admission/   may this datagram be answered: admission*, rules*, ratelimit*, loops*, selftest*
    stats/       what is counted: outcomes*, counters*, watch*, rates*, refusals*, top_sources*, totals*, traffic*,
                 snapshot*
    config/      /etc/echod.yaml: location, file, keys (files that it names), schema* (bounds, defaults), parse*,
                 lint* (warnings), fields*, listeners*, access*, document*, diagnostics* (how mistakes are shown),
                 diff*, written*, socket_unit*, json_schema*, patterns* (texts as regular expressions)
    measurement/ what probes measure: payload*, events*, in_flight*, flood*, flood_ring*, pacing*, statistics*,
                 latency*, reordering*, outages*, path_mtu*, icmp*, comparison*, round_trip*, reply_headers*,
                 responder* (what it reports), directions* (loss out and back), far_end*
    wire/        formats of measuring protocols, both sides: udpecho_plus*, stamp*, tlv*, reflection* (of TLVs), ntp*
                 (time stamps), lanes* (many at once), authentication*, reveal*

Ground

    net/         values: listener*, mode*, peers*, networks*, link* (of a limited rate)
    linux/       one facility of the kernel or host in each module, and the only package with ctypes: mmsg,
                 mmsg_layout*, io_uring, epoll_set, poll, sockets, sockopt*, accept, netlink, process,
                 procfs, prctl, privileges, cgroups, descriptors, signals, send_queue, systemd, journal, links,
                 bpf, firewall, timer, clock (how far it may be off, two read together),
                 arrival (of datagrams)

The life of a datagram:

1. `worker.worker.Worker.run` wakes and reads the clock once.
2. `udp.service.UdpEcho.on_readable` handles at most MAX_BATCHES_PER_WAKEUP batches, so that a flood on one socket
   starves no other.
3. `udp.batch.Batch.receive`: one `recvmmsg` into the slots. A slot may hold a train: many datagrams, one header.
4. `Admission.clears_all` checks all ports and addresses at once; if that does not decide, `admit_all`, or `admit` for
   each. About one datagram in 1,024 is compared with earlier ones, to detect a loop: `LoopDetector`.
5. `udp.reply.send`: one `sendmmsg` of the same bytes, back to their senders, from the addresses they were sent to. A
   listener with another mode has its own reply in this place, which ends there too: `worker.modes` chooses it.

The life of a config change:

1. SIGHUP wakes the loop, which calls `Supervisor._reload`.
2. `config.file.read` makes a new Config, or every mistake is logged and the previous config stays in force.
3. `ListeningSockets.acquire` opens what is new; a failure closes it again and rejects the reload.
4. `Generation.start_workers` forks the workers; a death or a timeout before all are ready rejects the reload.
5. `Supervisor._commit`: the new workers serve, the old ones drain, removed listeners close, a new exporter starts.
"""

__version__ = "0.1.0"
