"""What an echoed datagram costs: echod beside plain C loops, on loopback, in the same run.

From the repository root: `python -m tests.bench`. Standard library only, and gcc for the C peers.
"""
