"""Runner: one config in, one outcome out. Measures it in a child, has its pictures judged in another."""

from collections.abc import Sequence
from pathlib import Path

from autotune import isolate
from autotune.config import Config
from autotune.errors import UserError
from autotune.folders import StudyFolder
from autotune.job import MeasureJob, ScoreJob
from autotune.target import Target
from autotune.trial import NOT_THE_CONFIG, Failure, Measurement, Quality, Trial

SCORE_TIMEOUT_S = 1800.0
LEAST_TIMEOUT_S = 300.0
ENVIRONMENT_RETRIES = 2

Outcome = Measurement | Failure


class Runner:
    """Runs configs of one target. The pictures of trial 0 are what others are judged against."""

    def __init__(
        self, folder: StudyFolder, target: Target, timeout_s: float, *, max_memory_bytes: int | None = None
    ) -> None:
        self.folder, self.target, self.timeout_s = folder, target, timeout_s
        self.max_memory_bytes = max_memory_bytes

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: Sequence[Trial]) -> Outcome:
        """Measurement | Failure of the config, with everything that belongs to it left in the folder `place`.

        What is not the config's fault is retried. Where it persists, a device that is never at itself (NOT_THE_CONFIG)
        is the outcome; anything else raises UserError, as does what the user is to blame for.
        """
        for attempt in range(1 + ENVIRONMENT_RETRIES):
            outcome = self._run_once(place, config, pictures, self.time_limit_s(earlier))
            if isinstance(outcome, Measurement) or outcome.cause not in {*NOT_THE_CONFIG, "environment", "bad_input"}:
                break
            if outcome.cause == "bad_input":
                raise UserError(outcome.reason)
            if attempt == ENVIRONMENT_RETRIES and outcome.cause == "environment":
                raise UserError(f"trials are cut short: {outcome.reason}. Mend that, and the same command continues.")
        return outcome

    def _run_once(self, place: Path, config: Config, pictures: bool, timeout_s: float) -> Outcome:
        job = MeasureJob(
            target=self.target, values=dict(config), pictures=pictures, max_memory_bytes=self.max_memory_bytes
        )
        # Compiled code is shared between runs of the same config only: Inductor's cache does not know every setting.
        cache = str((self.folder.cache / config.digest).resolve())
        env = {"TORCHINDUCTOR_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
        fields = isolate.run(place, job, timeout_s=timeout_s, env=env)
        if isinstance(fields, Failure):
            return fields
        measured = Measurement.parse(fields, f"the outcome in {str(place)!r}")
        if not pictures:
            return measured
        quality = self._judge(place)
        return quality if isinstance(quality, Failure) else measured.model_copy(update={"quality": quality})

    def _judge(self, place: Path) -> Quality | Failure:
        job = ScoreJob(
            images=str((place / "images").resolve()),
            baseline=str((self.folder.trial(0) / "images").resolve()),
            prompts=self.target.workload.prompts,
            scorer=self.target.pipeline.scorer,
        )
        fields = isolate.run(place / "score", job, timeout_s=SCORE_TIMEOUT_S)
        if isinstance(fields, Failure):  # the config has done its part: not its fault
            return Failure(cause="environment", reason=f"scoring its pictures failed: {fields.reason}")
        return Quality.parse(fields, f"the score in {str(place)!r}")

    def time_limit_s(self, earlier: Sequence[Trial]) -> float:
        """Five times the longest trial so far, but never under LEAST_TIMEOUT_S a size nor over the user's limit."""
        longest = max((t.seconds for t in earlier if t.measured), default=self.timeout_s)
        least = LEAST_TIMEOUT_S * len(self.target.workload.shapes)  # code is compiled for each size anew
        return min(self.timeout_s, max(least, 5 * longest))
