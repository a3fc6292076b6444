"""What a listener replies with, where that is not the same bytes: a module for each mode."""
