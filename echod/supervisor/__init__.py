"""The process that owns the sockets and the generations of workers."""
