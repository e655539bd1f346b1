"""Runner: one config in, one outcome out. Measures it in a child, has its pictures judged in another."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.reused import with_compilation_of, with_quality_of
from autotune.isolation import Isolation
from autotune.job import DrawJob, MeasureJob, ScoreJob
from autotune.knobs import different
from autotune.measurement import Measurement, Quality
from autotune.reuse import Reuse
from autotune.study_folder import StudyFolder, picture_name
from autotune.target import Target
from autotune.trial import NOT_THE_CONFIG, Failure, Trial
from autotune.workload import Workload

SCORE_TIMEOUT_S = 1800.0
LEAST_TIMEOUT_S = 300.0
ENVIRONMENT_RETRIES = 2
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # the probe has downloaded all that there is to load

Outcome = Measurement | Failure


class Runner:
    """Runs configs of one target. The pictures of trial 0 are what others are judged against.

    max_memory_bytes  what a GPU's allocator is capped to
    baseline          the config that is spared the cap: it is what others are compared with, whatever it needs
    isolation         how its children are started, see isolate.choose. What is exported, or is a verdict, comes from
                      spawned ones: forks share the layout of their memory, and differ by less than processes in use do
    """

    def __init__(
        self,
        folder: StudyFolder,
        target: Target,
        timeout_s: float,
        *,
        max_memory_bytes: int | None = None,
        baseline: Config | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self.folder, self.target, self.timeout_s, self.isolation = folder, target, timeout_s, isolation
        self.max_memory_bytes, self.baseline = max_memory_bytes, baseline
        self._in_graphs: set[str] = set()  # knobs that were seen to change the graphs though they say that they don't

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        reuse: Reuse | None = None,
    ) -> Outcome:
        """Measurement | Failure of the config, with everything that belongs to it left in the folder `place`.

        Where an earlier trial has compiled its graphs, that one's code is taken. If that fails, or turns out not to be
        all that is needed, the config is measured again from nothing: of half of it nobody can tell what it costs.

        What is not the config's fault is retried. Where it persists, a device that is never at itself (NOT_THE_CONFIG)
        is the outcome; anything else raises UserError, as does what the user is to blame for.

        reuse  what this run is spared, by the trials that it names; None: nothing
        """
        limit = self.max_memory_bytes if config != self.baseline else None
        job = MeasureJob(
            target=self.target,
            values=dict(config),
            pictures=pictures,
            max_memory_bytes=limit,
            reuse=self._with_pictures(reuse) if reuse else None,
        )
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

    def _attempts(self, place: Path, config: Config, job: MeasureJob, earlier: Sequence[Trial], cache: Path) -> Outcome:
        """What is not the config's fault is retried."""
        for attempt in range(1 + ENVIRONMENT_RETRIES):
            outcome = self._run_once(place, job, earlier, cache)
            if isinstance(outcome, Measurement) or outcome.cause not in {*NOT_THE_CONFIG, "environment", "bad_input"}:
                break
            if outcome.cause == "bad_input":
                raise UserError(outcome.reason)
            if attempt == ENVIRONMENT_RETRIES and outcome.cause == "environment":
                raise UserError(f"trials are cut short: {outcome.reason}. Mend that, and the same command continues.")
            if cache == self._cache(config):
                # What it has compiled goes: the seconds of a first call are those that a user would wait.
                shutil.rmtree(cache, ignore_errors=True)
        return outcome

    def _compiler(self, config: Config, reuse: Reuse | None, earlier: Sequence[Trial]) -> Trial | None:
        """The trial whose compiled code can be taken: it is still there, and what it has cost is known."""
        found = next((trial for trial in earlier if reuse and trial.number == reuse.compiler), None)
        if found is None or found.measured is None or found.measured.compile_s is None:
            return None
        if self._in_graphs & set(different(config, found.config)):
            return None
        return found if self._cache(found.config).is_dir() else None

    def draw(
        self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Sequence[Trial]
    ) -> Quality | Failure:
        """Make a picture of every prompt of this workload in the folder `place`, judged against those of `reference`.

        Nothing is timed. Raises UserError where the user is to blame.
        """
        failure = self.make_pictures(place, config, workload, earlier=earlier)
        return failure or self._judge(place, reference, workload)

    def make_pictures(
        self, place: Path, config: Config, workload: Workload, *, earlier: Sequence[Trial]
    ) -> Failure | None:
        """A picture of every prompt of this workload, in the folder `place`; the Failure where there are none.

        Raises UserError where the user is to blame.
        """
        target = self.target.model_copy(update={"workload": workload})
        longer = 1 + len(workload.prompts) / len(self.target.workload.prompts)
        job, limit_s = DrawJob(target=target, values=dict(config)), longer * self.time_limit_s(earlier)
        env, how = _environment(self._cache(config)), self.isolation
        answer = isolate.run(place, job, timeout_s=limit_s, env=env, isolation=how)
        if not isinstance(answer, Failure):
            return None
        if answer.cause == "bad_input":
            raise UserError(answer.reason)
        return answer

    def _cache(self, config: Config) -> Path:
        """Where the code is that is compiled for it. Not for others: Inductor's cache does not know every setting."""
        return (self.folder.cache / config.digest).resolve()

    def _run_once(self, place: Path, job: MeasureJob, earlier: Sequence[Trial], cache: Path) -> Outcome:
        limit_s, env = self.time_limit_s(earlier), _environment(cache)
        fields = isolate.run(place, job, timeout_s=limit_s, env=env, isolation=self.isolation)
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
        """With the folder of the source's pictures; without a source where one of them is gone."""
        source = reuse.source
        if source is None:
            return reuse
        images = self.folder.trial(source.trial) / "images"
        whole = all((images / picture_name(i)).is_file() for i in range(len(self.target.workload.prompts)))
        found = source.model_copy(update={"images": str(images.resolve())}) if whole else None
        return reuse.model_copy(update={"source": found})

    def _judge(self, place: Path, reference: Path, workload: Workload) -> Quality | Failure:
        job = ScoreJob(
            images=str((place / "images").resolve()),
            baseline=str((reference / "images").resolve()),
            prompts=workload.prompts,
            scorer=self.target.pipeline.scorer,
        )
        where, how = place / "score", self.isolation
        fields = isolate.run(where, job, timeout_s=SCORE_TIMEOUT_S, env=OFFLINE, isolation=how)
        if isinstance(fields, Failure):  # the config has done its part: not its fault
            return Failure(cause="environment", reason=f"scoring its pictures failed: {fields.reason}")
        return Quality.parse(fields, f"the score in {str(place)!r}")

    def time_limit_s(self, earlier: Sequence[Trial]) -> float:
        """Five times the longest trial so far, but never under LEAST_TIMEOUT_S a size nor over the user's limit."""
        longest = max((t.seconds for t in earlier if t.measured), default=self.timeout_s)
        least = LEAST_TIMEOUT_S * len(self.target.workload.shapes)  # code is compiled for each size anew
        return min(self.timeout_s, max(least, 5 * longest))


def _environment(cache: Path) -> dict[str, str]:
    return {"TORCHINDUCTOR_CACHE_DIR": str(cache), **OFFLINE}


def _same_graphs(measured: Measurement, compiler: Trial) -> bool:
    """Were its graphs all there, and are they as many as the compiler's? Others may have left theirs in that cache."""
    mine, theirs = measured.compilation, compiler.measured.compilation if compiler.measured else None
    return mine is not None and theirs is not None and mine.uncached == 0 and mine.graphs == theirs.graphs
