"""Production: the exported config, and what a server needs to load, check and run it."""
