"""Runner: one config in, one outcome out. One child measures the config, another judges its pictures."""

import shutil
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.config import Config
from autotune.device import UsedCard
from autotune.devices import environment
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.interpreter import Interpreter
from autotune.execution.reused import calibrations_of, with_compilation_of, with_quality_of
from autotune.execution.variables import OFFLINE, trial_environment
from autotune.frozen_model import read_json
from autotune.isolation import Isolation
from autotune.job import JOB, DrawJob, Job, JobOutcome, MeasureJob, PackagesJob, ScoreJob, UntouchedJob
from autotune.knobs import different
from autotune.measurement import Measurement, Quality
from autotune.reuse import Reuse
from autotune.study_folder import StudyFolder, picture_name
from autotune.target import Target
from autotune.trial import NOT_THE_CONFIG, Failure, Trial
from autotune.workload import Workload

SCORE_TIMEOUT_S = 1800.0
LEAST_TIMEOUT_S = 300.0
LEAST_COMPILE_TIMEOUT_S = 900.0  # max-autotune of a large model takes minutes, however fast the calls are then
UNCOMPILED = ("off", "trace")  # values of the knob `compile`
ENVIRONMENT_RETRIES = 2
CARD = "card.json"  # in the folder of a run: the card that has made it, of a search on several

Outcome = Measurement | Failure


class Runner:
    """Runs configs of one target. Pictures are judged against those of trial 0, the baseline.

    timeout_s         the user's limit for one trial
    max_memory_bytes  a GPU's allocator is capped so that a trial stays within it
    baseline          a config that is not capped: the user has named it, and the others are compared with it, whatever
                      it needs
    isolation         how children are started, see isolate.choose. Exported figures and verdicts come from spawned
                      children: forks share the layout of their memory, so they differ less than processes in use do
    drawing           the same, of draw(), which times nothing; None: as `isolation`
    timing_s          seconds of the warm-up, and of timed calls beyond those that draw pictures; None: as usual
    breakdown         also time the parts of a call, and profile its first steps
    interpreter       another environment, in which configs run; pictures are judged in this one. It can't be forked

    `where` is the card that has made the run that was returned last, of a search on several cards; None: this
    process's device.
    """

    where: UsedCard | None = None

    def __init__(
        self,
        folder: StudyFolder,
        target: Target,
        timeout_s: float,
        *,
        max_memory_bytes: int | None = None,
        baseline: Config | None = None,
        isolation: Isolation | None = None,
        drawing: Isolation | None = None,
        interpreter: Interpreter | None = None,
        timing_s: float | None = None,
        breakdown: bool = True,
    ) -> None:
        self.folder, self.target, self.timeout_s, self.isolation = folder, target, timeout_s, isolation
        self.max_memory_bytes, self.baseline = max_memory_bytes, baseline
        self.interpreter, self.timing_s, self.breakdown = interpreter, timing_s, breakdown
        self.drawing = drawing or isolation
        if interpreter is not None:
            self.isolation = self.drawing = "spawn"
        self._in_graphs: set[str] = set()  # knobs that change the compiled graphs although they declare that they don't

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        reuse: Reuse | None = None,
    ) -> Outcome:
        """Measure a config. All files of the run are left in the folder `place`.

        pictures  draw and judge pictures
        earlier   the trials so far
        reuse     the work that earlier trials have done already; None: reuse nothing

        With a compiler trial in `reuse`, its compiled code is run. Where that fails, or where some graphs are compiled
        anew, the config is measured again with an empty cache: the cost of half a compilation is not known.

        A failure that is not the config's fault is retried. If it persists, a disturbed device (NOT_THE_CONFIG) is
        returned as the outcome; any other such failure, and bad input, raises UserError.
        """
        reusing = self._with_pictures(reuse) if reuse else None
        job = self.job(config, pictures=pictures, earlier=earlier, reuse=reusing)
        compiler = self._compiler(config, reuse, earlier)
        if compiler is not None:
            outcome = self._attempts(place, config, job, earlier, self._cache(compiler.config))
            if isinstance(outcome, Failure) and outcome.cause in NOT_THE_CONFIG:
                return outcome
            if isinstance(outcome, Measurement):
                if _same_graphs(outcome, compiler):
                    return with_compilation_of(outcome, compiler)
                self._in_graphs |= set(different(config, compiler.config))
        return self._attempts(place, config, job, earlier, self._cache(config))

    def elsewhere(self, cards: Sequence[UsedCard | None]) -> "Runner | None":
        """A runner of the same configs on a card like these ones, but none of them; None: there is none.

        See autotune/cluster.
        """
        return None

    def target_of(self, config: Config, earlier: Sequence[Trial]) -> Target:
        """The target, with what earlier trials have calibrated for this config."""
        found = calibrations_of(config, earlier)
        return self.target.model_copy(update={"calibrations": self.target.calibrations | found})

    def job(
        self, config: Config, *, pictures: bool, earlier: Sequence[Trial] = (), reuse: Reuse | None = None
    ) -> MeasureJob:
        """The job that run() hands to a child."""
        limit = self.max_memory_bytes if config != self.baseline else None
        return MeasureJob(
            target=self.target_of(config, earlier),
            values=dict(config),
            pictures=pictures,
            max_memory_bytes=limit,
            reuse=reuse,
            timing_s=self.timing_s,
            breakdown=self.breakdown,
        )

    def finished(self, place: Path, config: Config, *, earlier: Sequence[Trial] = ()) -> Measurement | None:
        """What run() has measured in this folder before, without pictures, for the very same job; None: nothing."""
        job, outcome = place / "job.json", place / "outcome.json"
        if not (job.exists() and outcome.exists()):
            return None
        try:
            if JOB.validate_python(read_json(job, "job")) != self.job(config, pictures=False, earlier=earlier):
                return None
            result = JobOutcome.parse(read_json(outcome, "outcome"), str(outcome)).result
            card = place / CARD
            self.where = UsedCard.parse(read_json(card, "card"), str(card)) if card.exists() else None
            return Measurement.parse(result, str(outcome)) if result is not None else None
        except (UserError, ValidationError):  # cut short, or of a version with other jobs: it is measured again
            return None

    def _attempts(self, place: Path, config: Config, job: MeasureJob, earlier: Sequence[Trial], cache: Path) -> Outcome:
        """Run the job. Retry after failures that are not the config's fault. Raises UserError as run() does."""
        for attempt in range(1 + ENVIRONMENT_RETRIES):
            outcome = self._run_once(place, job, earlier, cache)
            if isinstance(outcome, Measurement) or outcome.cause not in {*NOT_THE_CONFIG, "environment", "bad_input"}:
                break
            if outcome.cause == "bad_input":
                raise UserError(outcome.reason)
            if attempt == ENVIRONMENT_RETRIES and outcome.cause == "environment":
                raise UserError(
                    f"the trials can't go on: {outcome.reason}. Fix that, then run the same command to continue."
                )
            if cache == self._cache(config):
                # Delete what it has compiled: the next attempt must measure a first call that compiles.
                shutil.rmtree(cache, ignore_errors=True)
        return outcome

    def _compiler(self, config: Config, reuse: Reuse | None, earlier: Sequence[Trial]) -> Trial | None:
        """The trial whose compiled code is run: its cache still exists, and its compile cost is known."""
        compiler = next((trial for trial in earlier if reuse and trial.number == reuse.compiler), None)
        if compiler is None or compiler.measured is None or compiler.measured.compile_s is None:
            return None
        if self._in_graphs & set(different(config, compiler.config)):
            return None
        return compiler if self._cache(compiler.config).is_dir() else None

    def draw(
        self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Sequence[Trial]
    ) -> Quality | Failure:
        """Draw a picture of every prompt of this workload in `place`, and judge them against those in `reference`.

        Nothing is timed. Raises UserError for bad input.
        """
        failure = self.make_pictures(place, config, workload, earlier=earlier)
        return failure or self._judge(place, reference, workload, self.drawing)

    def make_pictures(
        self, place: Path, config: Config, workload: Workload, *, earlier: Sequence[Trial]
    ) -> Failure | None:
        """Draw a picture of every prompt of this workload in `place`. Returns a Failure if that fails, else None.

        Raises UserError for bad input.
        """
        target = self.target_of(config, earlier).model_copy(update={"workload": workload})
        factor = 1 + len(workload.prompts) / len(self.target.workload.prompts)
        job, limit_s = DrawJob(target=target, values=dict(config)), factor * self.time_limit_s(config, earlier)
        answer = self._start(place, job, limit_s, self._cache(config), self.drawing)
        if not isinstance(answer, Failure):
            return None
        if answer.cause == "bad_input":
            raise UserError(answer.reason)
        return answer

    def _cache(self, config: Config) -> Path:
        """The folder of the config's compiled code. Each config has its own: Inductor's cache ignores some settings."""
        where = f"-{sha256(self.interpreter.path.encode()).hexdigest()[:8]}" if self.interpreter else ""
        return (self.folder.cache / f"{config.digest}{where}").resolve()

    def _start(
        self, place: Path, job: Job, limit_s: float, cache: Path, how: Isolation | None = None
    ) -> dict[str, Any] | Failure:
        """Run a job that builds the config's pipe."""
        command = self.interpreter.worker if self.interpreter else isolate.WORKER
        how, env = how or self.isolation, trial_environment(cache)
        return isolate.run(place, job, timeout_s=limit_s, env=env, isolation=how, command=command)

    def untouched(self, place: Path, config: Config, *, all_prompts: bool) -> dict[str, Any] | Failure:
        """What the pipe does as diffusers loads it, in the number format of the config, see worker/untouched.py."""
        limit_s = self.time_limit_s(config, ())
        job = UntouchedJob(target=self.target, values=dict(config), all_prompts=all_prompts, budget_s=limit_s / 2)
        return self._start(place, job, limit_s, self._cache(config))

    def packages(self, place: Path, config: Config) -> dict[str, dict[str, float]] | Failure:
        """Part of a call -> the packages that run in it, with their shares: see worker/packages.py."""
        job = PackagesJob(target=self.target, values=dict(config))
        answer = self._start(place, job, self.time_limit_s(config, ()), self._cache(config))
        return answer if isinstance(answer, Failure) else dict(answer["packages"])

    def _run_once(self, place: Path, job: MeasureJob, earlier: Sequence[Trial], cache: Path) -> Outcome:
        fields = self._start(place, job, self.time_limit_s(Config(job.values), earlier), cache)
        if isinstance(fields, Failure):
            return fields
        measured = Measurement.parse(fields, f"the outcome in {str(place)!r}")
        if not job.pictures or measured.stopped:
            return measured
        if measured.spot_check and measured.spot_check.same:
            return with_quality_of(measured, measured.spot_check.trial, earlier)
        began = time.monotonic()
        quality = self._judge(place, self.folder.trial(0), self.target.workload)
        if isinstance(quality, Failure):
            return quality
        return measured.model_copy(update={"quality": quality, "score_s": time.monotonic() - began})

    def _with_pictures(self, reuse: Reuse) -> Reuse:
        """The same with the folder of the source's pictures, or without a source if one of the pictures is gone."""
        source = reuse.source
        if source is None:
            return reuse
        images = self.folder.trial(source.trial) / "images"
        complete = all((images / picture_name(i)).is_file() for i in range(len(self.target.workload.prompts)))
        update = source.model_copy(update={"images": str(images.resolve())}) if complete else None
        return reuse.model_copy(update={"source": update})

    def _judge(
        self, place: Path, reference: Path, workload: Workload, how: Isolation | None = None
    ) -> Quality | Failure:
        job = ScoreJob(
            images=str((place / "images").resolve()),
            baseline=str((reference / "images").resolve()),
            prompts=workload.prompts,
            scorer=self.target.pipeline.scorer,
            frames=workload.frames,
        )
        # As if it ran on the target's device, which it does not: with one environment, one fork server serves both.
        where, env = place / "score", {**environment(self.target.device), **OFFLINE}
        fields = isolate.run(where, job, timeout_s=SCORE_TIMEOUT_S, env=env, isolation=how or self.isolation)
        if isinstance(fields, Failure) and fields.cause == "broken_output":  # a clip that stands still or flickers
            return fields
        if isinstance(fields, Failure):  # the pictures are drawn, so this is not the config's fault
            return Failure(cause="environment", reason=f"scoring its pictures failed: {fields.reason}")
        return Quality.parse(fields, f"the score in {str(place)!r}")

    def time_limit_s(self, config: Config, earlier: Sequence[Trial]) -> float:
        """The longest that a trial of this config may take, in seconds; at most the user's limit.

        Five times the longest trial so far, at least LEAST_TIMEOUT_S for each size. Configs that are compiled and those
        that are not learn from their own kind: how long compiling takes can't be told from trials without it. A
        compiled trial that was stopped at its limit gives the next one twice its time.
        """
        compiles = _compiles(config)
        alike = [trial for trial in earlier if _compiles(trial.config) == compiles]
        longest_s = max((trial.seconds for trial in alike if trial.measured), default=self.timeout_s)
        least_s = LEAST_COMPILE_TIMEOUT_S if compiles else LEAST_TIMEOUT_S
        taught_s = max((trial.seconds for trial in alike if compiles and _was_stopped(trial)), default=0.0)
        return min(self.timeout_s, max(least_s * len(self.target.workload.shapes), 5 * longest_s, 2 * taught_s))


def _compiles(config: Config) -> bool:
    return config.get("compile", "off") not in UNCOMPILED


def _was_stopped(trial: Trial) -> bool:
    """Did the trial end at its time limit?"""
    return isinstance(trial.outcome, Failure) and trial.outcome.cause == "timeout"


def _same_graphs(measured: Measurement, compiler: Trial) -> bool:
    """Did all graphs come from the cache, and are there as many as the compiler trial compiled?

    The count is compared because other configs that ran this trial's code may have added graphs to its cache.
    """
    own, source = measured.compilation, compiler.measured.compilation if compiler.measured else None
    return own is not None and source is not None and own.uncached == 0 and own.graphs == source.graphs
