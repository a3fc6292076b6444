"""Listeners, endpoints, addresses and networks as values."""
