"""`echod accelerate`: the process that has the kernel repeat what the daemon replied."""
