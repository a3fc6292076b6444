"""What a listener does with the bytes of its connections, where that is not to echo them: a module for each mode."""
