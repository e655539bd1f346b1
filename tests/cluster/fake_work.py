"""What a worker of the tests runs: work.perform, with fake_child.py in place of the child that measures."""

import errno
import functools
import json
import os
import sys
from pathlib import Path

from autotune.cluster import work
from autotune.cluster.parcel import Parcel
from autotune.execution import isolate

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("fake_child.py")))
CONTROL = "FAKE_CONTROL"


def perform(order_json: str, *parcels: Parcel) -> tuple[str, Parcel]:
    isolate.WORKER = COMMAND
    isolate.run = functools.partial(isolate.run, command=COMMAND)
    full = Path(os.environ[CONTROL]) / f"{Path(json.loads(order_json)['place']).name}.full"
    if full.exists():
        full.unlink()
        work.tempfile.mkdtemp = _full  # type: ignore[assignment]
    return work.perform(order_json, *parcels)


def _full(*args: object, **options: object) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
