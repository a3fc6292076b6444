"""The status directory, the overview for people, and the self test."""
