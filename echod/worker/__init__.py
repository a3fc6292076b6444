"""The process that runs the echo loop."""
