"""Metrics as values, as text, and the HTTP server that serves them; for any process of echod."""
