"""GPU: run the steps that need one, each within its limit, and keep what they showed under reports/gpu-CARD/STEP.

python -m tools.gpu                  every step that has not passed on this card, one after the other
python -m tools.gpu STEP ...         these steps; one that was cut off goes on where it stopped
python -m tools.gpu --again STEP     a step that has passed, anew
python -m tools.gpu --summary        which steps have run where; needs no GPU
python -m tools.gpu --table          write the table of docs/trust/seen.md from the reports

GPU_REPORTS names another folder than reports. What a step works with is under build/gpu until the step has passed.
Exit status: 0 all passed, 1 not all, 2 there is no such step or no GPU.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

from tools.gpu_checks import GOES_ON
from tools.gpu_reports import PAGE, Outcome, Record, page, read_record, skipped, summary, words
from tools.gpu_step import Step
from tools.gpu_steps import STEPS

ROOT = Path(__file__).parent.parent
STOPPING_S = 30.0  # before the limit a step is asked to stop, as with Ctrl-C: a search then saves what it has
PROGRAMS = {"autotune": ("-m", "autotune.cli"), "python": ()}


@dataclass(frozen=True)
class Card:
    """Where the steps run, and with which versions of what."""

    name: str
    versions: Mapping[str, str]
    commit: str  # of this project; ends with "+" where files were changed

    @property
    def folder(self) -> str:
        return "gpu-" + re.sub(r"[^a-z0-9]+", "-", self.name.removeprefix("NVIDIA ").lower()).strip("-")


def find_card() -> Card:
    """The first GPU. Raises UserError where there is none."""
    from autotune.devices import find_device
    from autotune.devices.probe import versions

    device = find_device("cuda")
    known = {**versions(), **({"driver": device.driver} if device.driver else {})}
    ask = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return Card(device.name, known, done.stdout.strip() or "not known")


class Runner:
    """Runs steps on one card. reports, work: the folders in which gpu-CARD/STEP is made."""

    def __init__(self, card: Card, reports: Path, work: Path, stopping_s: float = STOPPING_S) -> None:
        self.card, self.stopping_s = card, stopping_s
        self.reports, self.work = reports / card.folder, work / card.folder

    def record(self, step: Step) -> Record | None:
        return read_record(self.reports / step.name / "step.json")

    def run(self, step: Step) -> Record:
        """Run the step until it ends or its limit is near. One that was cut off before continues with its own files."""
        before, report, work = self.record(step), self.reports / step.name, self.work / step.name
        goes_on = work.is_dir() and (before is None or before.outcome == "unfinished")
        if not goes_on:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(report, ignore_errors=True)
        for folder in (report, work):
            folder.mkdir(parents=True, exist_ok=True)
        for name, text in step.files.items():
            (work / name).write_text(text, encoding="utf-8")
        earlier_s = before.seconds if before and goes_on else ()
        left_s = max(1, round(step.search_s - sum(earlier_s)))
        places = {"work": os.path.relpath(work, ROOT), "report": os.path.relpath(report, ROOT), "search_s": left_s}
        commands = tuple(command.format(**places) for command in step.commands)
        started = time.monotonic()
        with (report / "output.txt").open("ab" if goes_on else "wb") as output:
            outcome, why = self._run_commands(commands, started + step.limit_s, output)
        cant, holes = skipped((report / "output.txt").read_text(encoding="utf-8", errors="replace"))
        if outcome == "passed" and holes:
            outcome, why = "failed", f"skipped: {'; '.join(holes)}"
        seconds = (*earlier_s, round(time.monotonic() - started, 1))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        card = self.card
        record = Record(step.name, card.name, outcome, why, now, seconds, commands, card.versions, card.commit, cant)
        for found in (path for pattern in step.keep for path in sorted(work.glob(pattern))):
            shutil.copy2(found, report / found.name)
        (report / "step.json").write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        if outcome == "passed":
            shutil.rmtree(work, ignore_errors=True)
        return record

    def _run_commands(self, commands: Sequence[str], end: float, output: BinaryIO) -> tuple[Outcome, str]:
        for command in commands:
            self._say(output, f"$ {command}\n".encode())
            status = self._run_command(command, end, output)
            if status is None:
                return "unfinished", f"the limit came during: {command}"
            if status == GOES_ON:
                return "unfinished", f"more is left to do after: {command}"
            if status:
                return "failed", f"exit status {status} of: {command}"
        return "passed", ""

    def _run_command(self, command: str, end: float, output: BinaryIO) -> int | None:
        """The exit status, or None where the command had to be stopped. `>` and a path at the end keep its output."""
        parts = shlex.split(command)
        into = open(ROOT / parts[-1], "wb") if parts[-2:-1] == [">"] else None  # noqa: SIM115 - closed below
        program, *arguments = parts[:-2] if into else parts
        strict = {name: value for name, value in os.environ.items() if name != "AUTOTUNE_BUSY"}  # a user's default
        process = subprocess.Popen(
            [sys.executable, *PROGRAMS[program], *arguments],
            cwd=ROOT,
            env=strict,
            stdin=subprocess.DEVNULL,
            stdout=into or subprocess.PIPE,
            stderr=subprocess.PIPE if into else subprocess.STDOUT,
            start_new_session=True,
        )
        stream = process.stderr if into else process.stdout
        assert stream
        copier = threading.Thread(target=self._copy, args=(stream, output), daemon=True)
        copier.start()
        try:
            return process.wait(max(end - self.stopping_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed
                process.wait(max(end - time.monotonic(), 0))
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # also what it has left running would disturb the next step
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            copier.join(10)
            if into:
                into.close()

    def _copy(self, stream: IO[bytes], output: BinaryIO) -> None:
        for line in iter(stream.readline, b""):
            self._say(output, line)
        stream.close()

    def _say(self, output: BinaryIO, line: bytes) -> None:
        output.write(line)
        output.flush()
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()


def chosen(names: Sequence[str], steps: Sequence[Step]) -> list[Step]:
    """The named steps in their order; none named: all. Raises UserError for a name that is none of them."""
    from autotune.errors import UserError, nearest

    known = {step.name: step for step in steps}
    for name in names:
        if name not in known:
            raise UserError(f"there is no step {name!r}: {nearest(name, list(known))}")
    return [known[name] for name in names] or list(steps)


def run_all(runner: Runner, steps: Sequence[Step], *, again: bool = False) -> bool:
    """Run the steps that have not passed on this card (again: these, too). Have all of them passed?"""
    for step in steps:
        before = runner.record(step)
        if before and before.outcome == "passed":
            if not again:
                print(f"{step.name}: {words(before)}; --again runs it anew")
                continue
            shutil.rmtree(runner.work / step.name, ignore_errors=True)
        print(f"== {step.name}: {step.shows}", flush=True)
        print(f"== {step.name}: {words(runner.run(step))}", flush=True)
    return all((record := runner.record(step)) is not None and record.outcome == "passed" for step in steps)


def main(arguments: Sequence[str] | None = None) -> int:
    from autotune.errors import UserError

    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP")
    for option in ("--again", "--summary", "--table"):
        parser.add_argument(option, action="store_true")
    given = parser.parse_args(arguments)
    reports = ROOT / os.environ.get("GPU_REPORTS", "reports")
    try:
        steps = chosen(given.steps, STEPS)
        if given.summary:
            print(summary(reports, steps))
            return 0
        if given.table:
            path = ROOT / PAGE
            path.write_text(page(path.read_text(encoding="utf-8"), ROOT / "reports"), encoding="utf-8")
            return 0
        passed = run_all(Runner(find_card(), reports, ROOT / "build" / "gpu"), steps, again=given.again)
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    print(summary(reports, steps))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
