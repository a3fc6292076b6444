"""What an echo costs: echod beside plain C loops and the servers a user would pick instead, in the same run.

From the repository root: `python -m tests.bench [udp|latency|tcp|rules|scaling|idle]...`. Standard library, and gcc for
the C peers; uvloop, Twisted and the chart come with `pip install -e '.[bench]'`, xinetd, socat and ncat from the
distribution. What is not there is a row that says so.
"""
