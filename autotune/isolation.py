"""Isolation: how a child process is started, and the environment variables that the parent gives it.

A process inherits these variables, so they also identify every process that a child starts.
"""

import sys
from typing import Literal

# "fork": forked off the fork server, which has imported the libraries and done nothing else.
# "spawn": a new interpreter, as in production, which imports the libraries itself.
# Measurements agree between the two.
Isolation = Literal["fork", "spawn"]
ISOLATIONS: tuple[Isolation, ...] = ("fork", "spawn")

# Names of environment variables
MARK = "AUTOTUNE_JOB"  # the job that this process belongs to, see execution/traces.py
LIFELINE = "AUTOTUNE_LIFELINE"  # the file descriptor of a pipe whose other end closes when the parent dies
STARTED_BY = "AUTOTUNE_ISOLATION"  # the Isolation of this child
RUN_CODE = "AUTOTUNE_RUN_CODE"  # the user's functions (FILE.py:FUNCTION) that may build the pipe, see pipelines/factory
REQUESTED_AT = "AUTOTUNE_REQUESTED_AT"  # when the parent requested it: time.monotonic(), which all processes share
TIMED = "AUTOTUNE_TIMED"  # a file that the child makes when it has loaded and compiled: its timed calls follow
BUSY = "AUTOTUNE_BUSY"  # "accept": timings are taken as they come, see measure/disturbance.py

# -P: code in the working directory, which may be a downloaded checkpoint, is never imported. The variable says the same
# to the interpreters that a child starts, such as Inductor's compile workers.
INTERPRETER = (sys.executable, "-P")
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

BLANK_MARK = "-" * 64  # MARK's value in the fork server, which belongs to no job: as long as the longest mark
