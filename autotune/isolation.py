"""Isolation: how a child is started, and the words in its environment by which it and all that it starts are known."""

from typing import Literal

# "fork": off a process that has loaded the libraries and nothing else; "spawn": an interpreter of its own, as in
# production, that loads them anew. What a config costs and gives is the same either way.
Isolation = Literal["fork", "spawn"]
ISOLATIONS: tuple[Isolation, ...] = ("fork", "spawn")

MARK = "AUTOTUNE_JOB"  # which job's process this is, see isolate/traces.py
BLANK = "-" * 64  # its value in a process that is no job's, with room for a job's
LIFELINE = "AUTOTUNE_LIFELINE"  # the file descriptor of a pipe whose other end closes when the parent dies
HOW = "AUTOTUNE_ISOLATION"  # the Isolation of this child
ASKED_AT = "AUTOTUNE_ASKED_AT"  # when the parent wanted it: time.monotonic(), which all processes share
