"""From the text of /etc/echod.yaml to an immutable Config, or to every mistake in it with its line and column."""
