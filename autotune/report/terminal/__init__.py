"""Terminal: how each command looks in a terminal."""
