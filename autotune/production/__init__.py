"""Production: the exported config and all that a server needs to load, check, run and export it."""
