"""compat(): check every tiny pipeline, and write all verdicts to a file after every round of pictures.

It prints nothing. The same call continues a run that was stopped.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from autotune.compat.checks import Checks, Options
from autotune.compat.plan import choose
from autotune.compat.record import CompatRecord, PipelineVerdicts, describe_device, read_record, write_record
from autotune.device import Device
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.knobs import find_knob


def compat(
    folder: Path,
    output: Path | None,
    *,
    device: str | None,
    pipelines: str | None,
    only: Iterable[str],
    without: Iterable[str],
    challenge: bool,
    again: bool,
    captured: bool,
    together: bool,
    limit_s: float | None,
    at_once: int | None,
    command: str,
    listen: Callable[[str, PipelineVerdicts], None],
) -> tuple[Path, CompatRecord]:
    """Run all requested checks that the file does not contain yet. Returns the file and its content.

    folder   for the pictures and logs of the child processes
    output   the file; None: reports/compat-DEVICE.json
    limit_s  begin nothing new after this many seconds
    listen   is called with (name of a pipeline, its verdicts so far) whenever there are new ones

    The other arguments are those of the command line and of Options. Raises UserError where they can't be used.
    """
    found_device, chosen = find_device(device), choose(pipelines)
    for name in (*only, *without):
        find_knob(name)
    forks = at_once or (max(1, min(8, (os.cpu_count() or 1) // 2)) if found_device.is_gpu else 1)
    options = Options(frozenset(only), frozenset(without), challenge, again, captured, together, at_once=forks)
    deadline = time.monotonic() + (float("inf") if limit_s is None else limit_s)
    path = output or Path("reports") / f"compat-{found_device.slug}.json"
    record = _agree(path, found_device, command, captured=captured)
    for number, (name, pipeline) in enumerate(chosen.items()):
        share = (deadline - time.monotonic()) / (len(chosen) - number)
        checks = Checks(folder / name, pipeline, found_device, replace(options, deadline=time.monotonic() + share))
        for verdicts in checks.run(record.pipelines.get(name)):
            record = record.having(name, verdicts)
            write_record(path, record)
            listen(name, verdicts)
    return path, record


def _agree(path: Path, device: Device, command: str, *, captured: bool) -> CompatRecord:
    """The record in the file, or a new one. Raises UserError where the file is of another device or other libraries."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {"autotune": version("diffusers-autotune"), **versions()}
    new = CompatRecord(created=now, command=command, captured=captured, device=describe_device(device), versions=known)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{str(path.parent)!r} can't be created: {error.strerror}.") from None
        return new
    old = read_record(path)
    difference = old.difference(new)
    if difference:
        raise UserError(f"{str(path)!r} holds verdicts of another run ({difference}): delete it or use another -o.")
    return old
