"""search(): the story of a run, top to bottom: probe, baseline, explore, confirm, export.

Loads no torch: whatever touches a pipeline happens in child processes. Prints nothing: `listen` hears the events.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from autotune.config import Config, Value
from autotune.device import Device, find_device
from autotune.errors import UserError
from autotune.export import export
from autotune.folders import StudyFolder, read_json, write_json
from autotune.front import keeps, objectives, pareto_front, pick_trial
from autotune.goal import Goal
from autotune.knobs import check_value, complete, find_knob
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import resolve
from autotune.probe import default_prompts, default_space, probe
from autotune.record import Record, read_record
from autotune.report.pictures import contact_sheet
from autotune.runner import Runner
from autotune.space import SearchSpace, make_space, read_space_file
from autotune.study import Study, check_sampler
from autotune.target import Target
from autotune.trial import Failure, Trial
from autotune.tuned import Confirmation, TunedConfig
from autotune.workload import read_prompts

CONFIRM_CANDIDATES = 3  # so many of the best are confirmed in turn until one holds
DEFAULT_QUALITY_DROP = {"clip": 0.3, "likeness": 10.0}  # CLIP points (1 % or less); 100 x (1 - SSIM of 0.9)


@dataclass(frozen=True)
class Probed:
    target: Target
    space: SearchSpace
    folder: Path
    trials: tuple[Trial, ...]  # of an earlier run that this one continues


@dataclass(frozen=True)
class Started:
    number: int
    config: Config
    origin: str


@dataclass(frozen=True)
class Ended:
    trial: Trial


@dataclass(frozen=True)
class Confirming:
    trial: Trial
    round: int  # from 1


@dataclass(frozen=True)
class Result:
    """What a search leaves: the trials, the front, and what was written to best.json."""

    folder: Path
    record: Record
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    best: Trial
    tuned: TunedConfig
    exhausted: bool  # every config that the space allows was tried


Event = Probed | Started | Ended | Confirming
Listener = Callable[[Event], None]


def search(
    pipeline: str = "demo",
    *,
    budget: int = 50,
    study: str | Path | None = None,
    time_budget_s: float | None = None,
    space: str | Path | None = None,
    fix: Mapping[str, Value] | None = None,
    exclude: Iterable[str] = (),
    max_vram_bytes: int | None = None,
    max_latency_s: float | None = None,
    max_quality_drop: float | None = None,
    prompts: str | Path | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    seed: int = 0,
    sampler: str = "tpe",
    timeout_s: float = 1800.0,
    confirm_rounds: int = 3,
    weights: Weights = "pretrained",
    scorer: str | None = None,
    device: str | None = None,
    baseline: str = "default",
    command: str = "autotune.search(...)",
    listen: Listener = lambda event: None,
) -> Result:
    """Search the settings of a pipeline on a device and export the best as `best.json` in the study's folder.

    pipeline  a preset ("demo", "sd15", "sdxl"), a hub id or a local folder
    budget    trials of the whole study, the baseline among them; a larger one continues a finished study
    study     its folder; the same call continues a study that was cut short
    fix       knobs held at a value;  exclude  knobs left at the baseline's
    size      (width, height) in pixels
    confirm_rounds  how often the pick and the baseline are measured again, in turn; 0 exports the first figures
    baseline  "default" (as from_pretrained gives it, in float32), "fp16", "bf16", or the path of an exported config
    scorer    a CLIP model of the hub, or "none" to judge pictures by their likeness to the baseline's alone

    Raises UserError for input that can't be used, before anything heavy is loaded where that can be known.
    """
    described = resolve(pipeline, weights)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    where = find_device(device)
    file = read_space_file(Path(space)) if space else default_space(described)
    start = _read_baseline(baseline)
    fixed = {name: check_value(name, value) for name, value in (fix or {}).items()}
    kept = {find_knob(name).name for name in exclude}
    texts = read_prompts(Path(prompts)) if prompts else default_prompts(described)
    check_sampler(sampler)
    if budget < 1:
        raise UserError(f"the budget is {budget} trials; give at least 1, which is the baseline.")
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    drop = _quality_drop(max_quality_drop, described)
    goal = Goal(max_vram_bytes=max_vram_bytes, max_latency_s=max_latency_s, max_quality_drop=drop)
    folder = StudyFolder(Path(study) if study else default_folder(described, where))
    folder.create()
    with folder.lock():
        try:
            target = probe(folder.probe, described, where, texts, steps=steps, size=size, batch=batch, seed=seed)
            allowed = make_space(target, file, fix=fixed, exclude=kept, baseline=start)
            objection = allowed.objection(start)
            if objection:
                raise UserError(f"the baseline can't run here: {objection}.")
        except UserError as error:
            if str(folder.probe / "log.txt") not in str(error):  # otherwise it tells the user to look there
                folder.discard()
            raise
        record = Record(target=target, goal=goal, baseline=dict(start), space=allowed.values, command=command)
        chosen = Study(folder, _agree(folder, record), allowed, recipes=file.recipes, sampler=sampler, seed=seed)
        run = _Run(folder, chosen, timeout_s, confirm_rounds, listen)
        listen(Probed(target, allowed, folder.path, tuple(run.study.trials)))
        return run.search(budget, time_budget_s)


def default_folder(pipeline: Pipeline, device: Device) -> Path:
    return Path("reports") / f"{date.today().isoformat()}-{pipeline.slug}-{device.slug}"


def _quality_drop(wish: float | None, pipeline: Pipeline) -> float:
    """The most that quality may drop, in the units of the metric that this pipeline can be judged by."""
    if wish is None:
        return DEFAULT_QUALITY_DROP["clip" if pipeline.scorer else "likeness"]
    if not 0 <= wish < float("inf"):
        raise UserError(f"the most that quality may drop is {wish}; give a number that is 0 or more.")
    return wish


def _agree(folder: StudyFolder, record: Record) -> Record:
    """The record of the study in this folder, written now if it is new. Raises UserError where it is another study."""
    if not folder.study.exists():
        write_json(folder.study, record.to_json())
        return record
    old = read_record(folder)
    difference = old.difference(record)
    if difference:
        raise UserError(f"{str(folder.path)!r} holds a study of another kind ({difference}); use another --study.")
    return old


class _Run:
    """One run of search(): what every step of it needs."""

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        timeout_s: float,
        confirm_rounds: int,
        listen: Listener,
    ) -> None:
        self.folder, self.study, self.record, self.listen = folder, study, study.record, listen
        self.runner, self.confirm_rounds = Runner(folder, study.record.target, timeout_s), confirm_rounds

    def search(self, budget: int, time_budget_s: float | None) -> Result:
        exhausted = self.explore(budget, time_budget_s)
        best, confirmation = self.confirm()
        trials = self.study.trials
        tuned = export(self.record, best, self.study.baseline, confirmation)
        tuned.save(self.folder.best)
        contact_sheet(self.folder, best.number).save(self.folder.pictures)
        shutil.rmtree(self.folder.cache, ignore_errors=True)
        front = pareto_front(trials, self.study.baseline)
        return Result(self.folder.path, self.record, tuple(trials), tuple(front), best, tuned, exhausted)

    def explore(self, budget: int, time_budget_s: float | None) -> bool:
        """Ask, run, tell, until the budget, the time or the space is used up (True: the space)."""
        end = time.monotonic() + (time_budget_s or float("inf"))
        while len(self.study.trials) < budget and (time.monotonic() < end or not self.study.trials):
            asked = self.study.ask()
            if asked is None:
                return True
            number, config, origin = asked
            self.listen(Started(number, config, origin))
            started = time.monotonic()
            outcome = self.runner.run(self.folder.trial(number), config, pictures=True, earlier=self.study.trials)
            seconds = time.monotonic() - started
            trial = Trial(number=number, origin=origin, values=dict(config), outcome=outcome, seconds=seconds)
            if number == 0 and isinstance(outcome, Failure):
                log = self.folder.trial(0) / "log.txt"
                raise UserError(f"the baseline itself failed ({outcome.cause}): {outcome.reason}; see {log}.")
            self.study.tell(trial)
            self.listen(Ended(trial))
        return False

    def confirm(self) -> tuple[Trial, Confirmation | None]:
        """The best trial that is still faster than the baseline when both are measured again, or the baseline."""
        baseline, rejected = self.study.baseline, set[int]()
        for _ in range(CONFIRM_CANDIDATES):
            left = [t for t in self.study.trials if t.number not in rejected]
            best = pick_trial(left, baseline, self.record.goal)
            if best is None or best.number == baseline.number:
                return self._keeps_the_goal(best), None
            if self.confirm_rounds == 0:
                return best, None
            confirmation = self.measure_in_turn(best)
            if confirmation is not None and self._holds_up(best, confirmation):
                return best, confirmation
            rejected.add(best.number)
        return self._keeps_the_goal(baseline if keeps(baseline, baseline, self.record.goal) else None), None

    def _keeps_the_goal(self, best: Trial | None) -> Trial:
        if best is None:
            raise UserError(
                "no config keeps the limits that were set (the trials are kept; loosen --max-vram, --max-latency or "
                "--max-quality-drop in another study, or go on with a larger --budget)."
            )
        return best

    def _holds_up(self, trial: Trial, confirmation: Confirmation) -> bool:
        """Is the trial still what it was picked for: within the limit, and faster if it was faster at first?"""
        limit = self.record.goal.max_latency_s
        if limit is not None and statistics.median(confirmation.tuned_latency_s) > limit:
            return False
        was_faster = objectives(trial, self.study.baseline)[0] < objectives(self.study.baseline, self.study.baseline)[0]
        return confirmation.is_faster or not was_faster

    def measure_in_turn(self, trial: Trial) -> Confirmation | None:
        """Baseline and trial in turn, confirm_rounds times, each in a fresh process. None where one of them fails.

        What was confirmed before, and lies on disk, is not measured again.
        """
        kept = self.folder.confirmation(trial.number)
        if kept.exists():
            return Confirmation.parse(read_json(kept, "confirmation"), f"the confirmation {str(kept)!r}")
        medians: dict[int, list[float]] = {self.study.baseline.number: [], trial.number: []}
        for number in range(self.confirm_rounds):
            self.listen(Confirming(trial, number + 1))
            for one in (self.study.baseline, trial):
                place = kept.parent / f"round-{number + 1}-trial-{one.number}"
                outcome = self.runner.run(place, one.config, pictures=False, earlier=self.study.trials)
                if isinstance(outcome, Failure):
                    return None
                medians[one.number].append(outcome.latency_s)
        confirmation = Confirmation(
            baseline_latency_s=tuple(medians[self.study.baseline.number]), tuned_latency_s=tuple(medians[trial.number])
        )
        write_json(kept, confirmation.to_json())
        return confirmation


def median_seconds(trials: Iterable[Trial]) -> float | None:
    """How long a trial takes, to tell how much time is left."""
    seconds = [trial.seconds for trial in trials]
    return statistics.median(seconds) if seconds else None


def _read_baseline(word: str) -> Config:
    """The config that `--baseline` names. Raises UserError."""
    if word in ("default", "fp16", "bf16"):
        return complete({} if word == "default" else {"dtype": word})
    if not word.endswith(".json"):
        raise UserError(f"--baseline takes default, fp16, bf16 or an exported config (FILE.json), not {word!r}.")
    return TunedConfig.load(word).config
