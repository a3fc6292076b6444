"""The formats of measuring protocols: what a client makes and reads, and what a responder reads and makes."""
