"""The UDP echo: receive a batch, admit it, reply."""
