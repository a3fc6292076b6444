"""Sends datagrams at a steady rate to a port of loopback, and waits for no reply: PORT RATE, until it is ended.

Two each time, so that it sleeps between. Where the benchmark has a real-time priority (chrt(1)), this has the next
higher one: a load on the same CPU that never sleeps would leave it no time.
"""

import os
import socket
import sys
import time

port, rate = map(int, sys.argv[1:])
if os.sched_getscheduler(0) == os.SCHED_FIFO:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_getparam(0).sched_priority + 1))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect(("127.0.0.1", port))
    number, began = 0, time.monotonic()
    while True:
        for _ in range(2):
            sock.send(b"%064d" % number)
            number += 1
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
