"""The TCP echo: every byte back, within the limits."""
