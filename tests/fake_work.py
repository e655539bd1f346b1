"""What a worker of the tests runs: work.perform, with fake_child.py in place of the child that measures.

    python fake_work.py WORDS

is `autotune WORDS` in a process of its own that gives such orders, with a probe that loads nothing.
"""

import errno
import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from autotune.cluster import work
from autotune.cluster.gate import Gate
from autotune.cluster.parcel import Parcel
from autotune.execution import isolate

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("fake_child.py")))
CONTROL = "FAKE_CONTROL"
FUNCTION = "fake_work:perform"


def perform(order_json: str, *parcels: Parcel) -> tuple[str, Parcel]:
    isolate.WORKER = COMMAND
    isolate.run = functools.partial(isolate.run, command=COMMAND)
    order = json.loads(order_json)
    place, control = Path(order["place"]), Path(order["target"]["environment"].get(CONTROL, os.environ[CONTROL]))
    # Real searches of this machine would be waited for.
    work.Gate = functools.partial(Gate, folder=control / "gate")  # type: ignore[misc, assignment]
    full = control / f"{place.name}.full"
    if place.parent.name == "trials" and full.exists():
        full.unlink()
        work.tempfile.mkdtemp = _full  # type: ignore[assignment]
    return work.perform(order_json, *parcels)


def _full(*args: object, **options: object) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def probe(place: Path, pipeline: Any, device: Any, request: Any, **options: object) -> Any:
    """In place of execution.probe.probe: the target of tests."""
    from conftest import TRAITS

    from autotune.devices.probe import versions
    from autotune.target import Target
    from autotune.workload import Workload

    width, height = request.size or (64, 64)
    return Target(
        pipeline=pipeline.model_copy(update={"revision": "test", "traits": TRAITS}),
        workload=Workload(
            prompts=request.prompts.texts, width=width, height=height, batch=1, steps=3, guidance_scale=4.0
        ),
        device=device,
        versions=versions(),
        environment={CONTROL: os.environ[CONTROL]},  # a fleet may have a folder of its own
    )


def main() -> None:
    from autotune import cli
    from autotune.cluster import open as opens
    from autotune.tuning import search

    chosen = opens.choose_settings

    def choose(*args: Any) -> Any:
        settings = chosen(*args)
        return settings and settings.model_copy(update={"function": FUNCTION})

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    opens.choose_settings = choose
    search.probe = probe  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
