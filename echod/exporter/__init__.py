"""The process that serves metrics, health and the status page over HTTP."""
