"""`echod ping`: measures reachability, loss, latency and path behaviour over UDP and TCP, against any echo server.

The rooms, from the command line inwards:

    command      what `echod ping` does, from arguments to exit code
    options      the command line
    target       whom to ask: names, addresses, ports
    loop         one epoll loop: what is due, what came, what the operator wants
    course       one target on the way: schedule, probes in flight, statistics
    udp, tcp     the lines that carry probes: a datagram socket, a connection
    flood        as many datagrams as the path takes, in trains
    mtu          the search for the path MTU
    outlet       the sockets of all of them: the only module here that binds
    report       lines and statistics as text; records: JSON and CSV; picture: histogram and plot; live: the table
    names        the names of routers that complained

What is counted, and what it means, is decided in `echod.core`: probe, flight, survey and what stands below them.
"""
