"""The probing engine: sockets, sessions, floods and the search for the path MTU, over UDP and TCP."""
