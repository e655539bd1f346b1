"""ladder(): measure the rungs of a recipe one by one, in fresh processes, with the first rung again in between.

It loads no torch and prints nothing: `listen` receives the events. After every run ladder.json holds all measurements,
so that the same call continues a ladder that was stopped.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotune.config import Config
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution.probe import probe
from autotune.execution.runner import Runner
from autotune.knobs import complete
from autotune.pipeline import Weights
from autotune.pipelines import resolve
from autotune.research.ladder.recipe import Placed, Rung, place, read_recipe
from autotune.research.ladder.record import LadderFolder, LadderRecord, Run, read_ladder, write_ladder
from autotune.study.space import SearchSpace
from autotune.trial import Failure, Trial
from autotune.tuning.probe_space import default_prompts
from autotune.tuning.request import default_folder
from autotune.workload import read_prompts, request_workload

PROMPTS_IN_LADDER = 8


@dataclass(frozen=True)
class Begun:
    """The target is known, and the first run starts."""

    folder: Path
    record: LadderRecord  # with the runs of an earlier call that this call continues


@dataclass(frozen=True)
class RungStarted:
    """The measurement of a rung starts."""

    number: int
    name: str
    config: Config


@dataclass(frozen=True)
class RungEnded:
    """The measurement of a rung has ended, or the rung is not available here."""

    run: Run
    again: bool  # is this a further run of the first rung?
    record: LadderRecord  # with this run


Event = Begun | RungStarted | RungEnded
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """A finished ladder."""

    folder: Path
    record: LadderRecord


def ladder(
    pipeline: str = "demo",
    *,
    recipe: str = "fast-diffusion",
    output: str | Path | None = None,
    prompts: str | Path | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    guidance: float | None = None,
    strength: float | None = None,
    frames: int | None = None,
    negative_prompt: str | None = None,
    call: Mapping[str, Any] | None = None,
    batch: int | None = None,
    seed: int = 0,
    timeout_s: float = 1800.0,
    weights: Weights = "pretrained",
    scorer: str | None = None,
    device: str | None = None,
    command: str = "autotune.research.ladder.ladder(...)",
    listen: Listener = lambda event: None,
    **loaded: Any,
) -> Result:
    """Measure the rungs of a recipe one by one, each relative to the first, and write ladder.json.

    recipe     a shipped recipe ("fast-diffusion", "memory", "tome", "torch2") or the path of a TOML file
    output     the folder of the ladder; the same call continues a ladder that was stopped
    timeout_s  the longest that one run may take

    loaded     task, controlnet, lora ..., see resolve()

    The other arguments are those of search(). Raises UserError for input that can't be used, and where the first rung
    fails.
    """
    described = resolve(pipeline, weights, **loaded)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    found_device, found_recipe = find_device(device), read_recipe(recipe)
    texts = read_prompts(Path(prompts)) if prompts else default_prompts(described).first(PROMPTS_IN_LADDER)
    how: dict[str, Any] = {"guidance": guidance, "negative_prompt": negative_prompt, "call": call, "frames": frames}
    how["strength"] = strength
    request = request_workload(texts, steps=steps, size=size, batch=batch, seed=seed, **how)
    default = default_folder(described, found_device)
    folder = LadderFolder(Path(output) if output else default.with_name(f"{default.name}-{found_recipe.name}"))
    folder.create()
    with folder.lock():
        try:
            target = probe(folder.probe, described, found_device, request, timeout_s=timeout_s)
        except UserError as error:
            if str(folder.probe / "log.txt") not in str(error):  # otherwise the message refers to that file
                folder.discard()
            raise
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = _agree(folder, LadderRecord(created=now, command=command, target=target, recipe=found_recipe))
        ladder_run = _LadderRun(folder, record, timeout_s, listen)
        listen(Begun(folder.path, record))
        ladder_run.run()
        shutil.rmtree(folder.cache, ignore_errors=True)
        return Result(folder.path, ladder_run.record)


def _agree(folder: LadderFolder, record: LadderRecord) -> LadderRecord:
    """The record of the ladder in this folder, or `record` where there is none. Raises UserError where they differ."""
    if not folder.study.exists():
        write_ladder(folder, record)
        return record
    old = read_ladder(folder)
    difference = old.difference(record)
    if difference:
        raise UserError(f"{str(folder.path)!r} holds another ladder ({difference}); use another -o.")
    return old


class _LadderRun:
    """The state of one call of ladder()."""

    def __init__(self, folder: LadderFolder, record: LadderRecord, timeout_s: float, listen: Listener) -> None:
        self.folder, self.record, self.listen = folder, record, listen
        self.runner, self.space = Runner(folder, record.target, timeout_s), SearchSpace(record.target, {})
        self.last_was_first = False  # was the last run of this call a run of the first rung?

    def run(self) -> None:
        """Measure every rung that is not measured yet, with a run of the first rung before and after it."""
        rungs = self.record.recipe.rungs
        for number in range(len(rungs)):
            if self.record.run_of(number) is not None:
                continue
            if number and not self.last_was_first:
                self.first_again()
            self.run_rung(number)
        measured = [run.rung for run in self.record.runs if run.measured]
        if measured[-1] != 0:
            self.first_again()

    def run_rung(self, number: int) -> None:
        """Measure a rung. A value that is not available, or has no effect, is replaced by the next one."""
        rung, below = self.record.recipe.rungs[number], self.base_rung(number)
        base = self.config_of(below) if below is not None else complete({})
        placed, trial = place(rung, base, self.space, is_first=below is None), None
        while isinstance(placed, Placed):
            trial = self.measure(number, rung.name, placed.config, self.folder.trial(number), pictures=True)
            if not self.excludes_value(rung, trial):
                break
            placed, trial = place(rung, base, self.space, is_first=below is None), None
        if isinstance(placed, Placed):
            run = Run(rung=number, below=below, stands_in=placed.stands_in, trial=trial)
        else:
            run = Run(rung=number, below=below, why_not=placed)
        if number == 0 and run.measured is None:
            raise UserError(self.first_rung_error(run))
        self.save(run, again=False)

    def base_rung(self, number: int) -> int | None:
        """The rung that this one builds on: the recipe's; where that is not available, the one which that builds on."""
        if number == 0:
            return None
        below = self.record.recipe.below(number)
        run = self.record.run_of(below)
        return below if run is None or run.trial is not None else run.below

    def config_of(self, number: int) -> Config:
        run = self.record.run_of(number)
        assert run is not None
        assert run.trial is not None
        return run.trial.config

    def excludes_value(self, rung: Rung, trial: Trial) -> bool:
        """Did a value of this rung have no effect? Then the value is excluded, and the next one may replace it."""
        outcome = trial.outcome
        if not isinstance(outcome, Failure) or outcome.cause != "no_effect" or outcome.knob not in rung.set:
            return False
        self.space.no_effect.add((outcome.knob, trial.values[outcome.knob]))
        return True

    def first_again(self) -> None:
        """Measure the first rung once more, without pictures."""
        first = self.record.run_of(0)
        assert first is not None
        assert first.trial is not None
        place = self.folder.again(sum(run.rung == 0 for run in self.record.runs))
        trial = self.measure(0, first.trial.origin, first.trial.config, place, pictures=False)
        self.save(first.model_copy(update={"trial": trial}), again=True)

    def measure(self, number: int, name: str, config: Config, place: Path, *, pictures: bool) -> Trial:
        self.listen(RungStarted(number, name, config))
        started = time.monotonic()
        # No `earlier`: these would shorten the time limit, but a compiled rung may take many times as long.
        outcome = self.runner.run(place, config, pictures=pictures, earlier=())
        self.last_was_first = number == 0
        seconds = time.monotonic() - started
        return Trial(number=number, origin=name, values=dict(config), outcome=outcome, seconds=seconds)

    def save(self, run: Run, *, again: bool) -> None:
        """Write the run to the disk, then report it."""
        self.record = self.record.model_copy(update={"runs": (*self.record.runs, run)})
        write_ladder(self.folder, self.record)
        self.listen(RungEnded(run, again, self.record))

    def first_rung_error(self, run: Run) -> str:
        """A sentence why the first rung has no measurement."""
        name, trial = self.record.recipe.rungs[0].name, run.trial
        if trial is None or not isinstance(trial.outcome, Failure):
            return f"the first rung, {name!r}, is not available here: {run.why_not}."
        log = self.folder.trial(0) / "log.txt"
        return f"the first rung, {name!r}, failed ({trial.outcome.cause}): {trial.outcome.reason}; see {log}."
