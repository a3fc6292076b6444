"""What `echod ping` computes: payloads, probes in flight, statistics. Without I/O."""
