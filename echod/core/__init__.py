"""Decisions without effects: no I/O, no clock, no logging, no mutable globals."""
