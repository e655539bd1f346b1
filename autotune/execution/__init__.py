"""Execution: the parent's side of a child process: start it, wait for it, stop it, read its outcome."""
