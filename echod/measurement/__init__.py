"""What `echod ping` computes: payloads, probes in flight, statistics. Decisions without effects."""
