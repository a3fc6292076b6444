"""The facilities of the kernel and the host, one in each module. Only this package uses ctypes."""
