"""ladder(): a recipe measured rung by rung, its first rung again in between, in fresh processes.

Loads no torch, prints nothing: `listen` hears the events. After every run the folder holds everything that was measured
(ladder.json), so that the same call goes on with a ladder that was stopped.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

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
from autotune.tuning.search import default_folder
from autotune.workload import read_prompts, request_workload

PROMPTS_IN_LADDER = 8


@dataclass(frozen=True)
class Begun:
    folder: Path
    record: LadderRecord  # with the runs of an earlier call that this one continues


@dataclass(frozen=True)
class Climbing:
    number: int
    name: str
    config: Config


@dataclass(frozen=True)
class Reached:
    run: Run
    again: bool  # the first rung, once more
    record: LadderRecord  # with this run


Event = Begun | Climbing | Reached
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
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
    batch: int = 1,
    seed: int = 0,
    timeout_s: float = 1800.0,
    weights: Weights = "pretrained",
    task: str | None = None,
    controlnet: str | None = None,
    lora: str | None = None,
    scorer: str | None = None,
    device: str | None = None,
    command: str = "autotune.research.ladder.ladder(...)",
    listen: Listener = lambda event: None,
) -> Result:
    """Measure the rungs of a recipe one by one, each against the first; leaves ladder.json.

    recipe    a shipped one ("fast-diffusion", "memory", "tome", "torch2") or the path of a TOML file
    output    the ladder's folder; the same call continues a ladder that was cut short
    The others are as in search(). Raises UserError for input that can't be used, and where the first rung fails.
    """
    described = resolve(pipeline, weights, task=task, controlnet=controlnet, lora=lora)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    where, steps_of = find_device(device), read_recipe(recipe)
    texts = read_prompts(Path(prompts)) if prompts else default_prompts(described).first(PROMPTS_IN_LADDER)
    request = request_workload(texts, steps=steps, size=size, batch=batch, seed=seed)
    default = default_folder(described, where)
    folder = LadderFolder(Path(output) if output else default.with_name(f"{default.name}-{steps_of.name}"))
    folder.create()
    with folder.lock():
        try:
            target = probe(folder.probe, described, where, request)
        except UserError as error:
            if str(folder.probe / "log.txt") not in str(error):  # otherwise it tells the user to look there
                folder.discard()
            raise
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = _agree(folder, LadderRecord(created=now, command=command, target=target, recipe=steps_of))
        climb = _Climb(folder, record, timeout_s, listen)
        listen(Begun(folder.path, record))
        climb.climb()
        shutil.rmtree(folder.cache, ignore_errors=True)
        return Result(folder.path, climb.record)


def _agree(folder: LadderFolder, record: LadderRecord) -> LadderRecord:
    """The record of the ladder in this folder, or this one if it is new. Raises UserError where it is another's."""
    if not folder.study.exists():
        write_ladder(folder, record)
        return record
    old = read_ladder(folder)
    difference = old.difference(record)
    if difference:
        raise UserError(f"{str(folder.path)!r} holds a ladder of another kind ({difference}); use another -o.")
    return old


class _Climb:
    """One call of ladder(): what every step of it needs, and how far it has come."""

    def __init__(self, folder: LadderFolder, record: LadderRecord, timeout_s: float, listen: Listener) -> None:
        self.folder, self.record, self.listen = folder, record, listen
        self.runner, self.space = Runner(folder, record.target, timeout_s), SearchSpace(record.target, {})
        self.at_first = False  # is the latest process of this call one of the first rung?

    def climb(self) -> None:
        """Every rung that was not measured yet, with the first rung before and after it."""
        rungs = self.record.recipe.rungs
        for number in range(len(rungs)):
            if self.record.run_of(number) is not None:
                continue
            if number and not self.at_first:
                self.first_again()
            self.reach(number)
        measured = [run.rung for run in self.record.runs if run.measured]
        if measured[-1] != 0:
            self.first_again()

    def reach(self, number: int) -> None:
        """Measure this rung; where it can't act, or a setting of it turns out to do nothing, the next choice."""
        rung, below = self.record.recipe.rungs[number], self.foothold(number)
        base = self.config_of(below) if below is not None else complete({})
        placed, trial = place(rung, base, self.space), None
        while isinstance(placed, Placed):
            trial = self.measure(number, rung.name, placed.config, self.folder.trial(number), pictures=True)
            if not self.learn(rung, trial):
                break
            placed, trial = place(rung, base, self.space), None
        if isinstance(placed, Placed):
            run = Run(rung=number, below=below, stands_in=placed.stands_in, trial=trial)
        else:
            run = Run(rung=number, below=below, why_not=placed)
        if number == 0 and run.measured is None:
            raise UserError(self.no_first(run))
        self.keep(run, again=False)

    def foothold(self, number: int) -> int | None:
        """The rung that this one builds on: the recipe's, or where that one can't act, what it would have built on."""
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

    def learn(self, rung: Rung, trial: Trial) -> bool:
        """Was it a setting of this rung that did nothing? Then this value is out, and another may stand in."""
        outcome = trial.outcome
        if not isinstance(outcome, Failure) or outcome.cause != "no_effect" or outcome.knob not in rung.set:
            return False
        self.space.no_effect.add((outcome.knob, trial.values[outcome.knob]))
        return True

    def first_again(self) -> None:
        first = self.record.run_of(0)
        assert first is not None
        assert first.trial is not None
        place = self.folder.again(sum(run.rung == 0 for run in self.record.runs))
        trial = self.measure(0, first.trial.origin, first.trial.config, place, pictures=False)
        self.keep(first.model_copy(update={"trial": trial}), again=True)

    def measure(self, number: int, name: str, config: Config, place: Path, *, pictures: bool) -> Trial:
        self.listen(Climbing(number, name, config))
        started = time.monotonic()
        # Earlier runs set no shorter limit: a compiled rung may take many times as long as those before it.
        outcome = self.runner.run(place, config, pictures=pictures, earlier=())
        self.at_first = number == 0
        seconds = time.monotonic() - started
        return Trial(number=number, origin=name, values=dict(config), outcome=outcome, seconds=seconds)

    def keep(self, run: Run, *, again: bool) -> None:
        """On disk before anybody hears of it."""
        self.record = self.record.model_copy(update={"runs": (*self.record.runs, run)})
        write_ladder(self.folder, self.record)
        self.listen(Reached(run, again, self.record))

    def no_first(self, run: Run) -> str:
        name, trial = self.record.recipe.rungs[0].name, run.trial
        if trial is None or not isinstance(trial.outcome, Failure):
            return f"the first rung, {name!r}, can't act here: {run.why_not}."
        log = self.folder.trial(0) / "log.txt"
        return f"the first rung, {name!r}, failed ({trial.outcome.cause}): {trial.outcome.reason}; see {log}."
