"""Execution: the parent's side of a child process. It starts a job, waits, kills, and reads the outcome."""
