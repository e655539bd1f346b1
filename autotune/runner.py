"""Runner: one config in, one outcome out. Measures it in a child, has its pictures judged in another."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from autotune import isolate
from autotune.config import Config
from autotune.errors import UserError
from autotune.folders import StudyFolder, picture_name
from autotune.isolation import Isolation
from autotune.job import DrawJob, MeasureJob, ScoreJob
from autotune.target import Target
from autotune.thrift import Thrift
from autotune.trial import NOT_THE_CONFIG, Failure, Measurement, Quality, Trial
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

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        thrift: Thrift | None = None,
    ) -> Outcome:
        """Measurement | Failure of the config, with everything that belongs to it left in the folder `place`.

        What is not the config's fault is retried. Where it persists, a device that is never at itself (NOT_THE_CONFIG)
        is the outcome; anything else raises UserError, as does what the user is to blame for.

        thrift  what this run is spared, by the trials that it names; None: nothing
        """
        limit = self.max_memory_bytes if config != self.baseline else None
        job = MeasureJob(
            target=self.target,
            values=dict(config),
            pictures=pictures,
            max_memory_bytes=limit,
            thrift=self._with_pictures(thrift) if thrift else None,
        )
        for attempt in range(1 + ENVIRONMENT_RETRIES):
            outcome = self._run_once(place, config, job, earlier)
            if isinstance(outcome, Measurement) or outcome.cause not in {*NOT_THE_CONFIG, "environment", "bad_input"}:
                break
            if outcome.cause == "bad_input":
                raise UserError(outcome.reason)
            if attempt == ENVIRONMENT_RETRIES and outcome.cause == "environment":
                raise UserError(f"trials are cut short: {outcome.reason}. Mend that, and the same command continues.")
            # What it has compiled goes: the seconds of a first call are those that a user would wait.
            shutil.rmtree(self._cache(config), ignore_errors=True)
        return outcome

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
        answer = isolate.run(place, job, timeout_s=limit_s, env=self._environment(config), isolation=self.isolation)
        if not isinstance(answer, Failure):
            return None
        if answer.cause == "bad_input":
            raise UserError(answer.reason)
        return answer

    def _environment(self, config: Config) -> dict[str, str]:
        """Compiled code is shared between runs of one config only: Inductor's cache does not know every setting."""
        return {"TORCHINDUCTOR_CACHE_DIR": str(self._cache(config)), **OFFLINE}

    def _cache(self, config: Config) -> Path:
        return (self.folder.cache / config.digest).resolve()

    def _run_once(self, place: Path, config: Config, job: MeasureJob, earlier: Sequence[Trial]) -> Outcome:
        limit_s, env = self.time_limit_s(earlier), self._environment(config)
        fields = isolate.run(place, job, timeout_s=limit_s, env=env, isolation=self.isolation)
        if isinstance(fields, Failure):
            return fields
        measured = Measurement.parse(fields, f"the outcome in {str(place)!r}")
        if not job.pictures or measured.stopped:
            return measured
        if measured.look and measured.look.same:
            return taken_over(measured, measured.look.trial, earlier)
        began = time.monotonic()
        quality = self._judge(place, self.folder.trial(0), self.target.workload)
        if isinstance(quality, Failure):
            return quality
        return measured.model_copy(update={"quality": quality, "score_s": time.monotonic() - began})

    def _with_pictures(self, thrift: Thrift) -> Thrift:
        """With the folder of the giver's pictures; without a giver where one of them is gone."""
        giver = thrift.giver
        if giver is None:
            return thrift
        images = self.folder.trial(giver.trial) / "images"
        whole = all((images / picture_name(i)).is_file() for i in range(len(self.target.workload.prompts)))
        found = giver.model_copy(update={"images": str(images.resolve())}) if whole else None
        return thrift.model_copy(update={"giver": found})

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


def taken_over(measured: Measurement, giver: int, earlier: Sequence[Trial]) -> Measurement:
    """With the quality of the trial of this number, whose pictures it draws."""
    theirs = next(trial.judged for trial in earlier if trial.number == giver)
    assert theirs is not None, "a giver has been judged"
    return measured.model_copy(update={"quality": theirs.quality, "quality_of": giver})
