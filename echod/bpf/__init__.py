"""The kernel repeats what the sockets replied: BPF programs at both directions of an interface, and their maps."""
