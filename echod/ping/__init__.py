"""`echod ping`: its command line, and what it prints and writes."""
