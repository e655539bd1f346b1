"""The checks of one pipeline: have the pictures made that are missing, judge them, and keep the verdicts.

Loads no torch: the pictures are made in children.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autotune.compat.judge import Pictures, judge
from autotune.compat.plan import PLAIN, PROMPTS, STEPS, Check, Plan, fitted, make_plan
from autotune.compat.record import PipelineVerdicts, Verdict
from autotune.config import Config
from autotune.device import Device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.job import CompatJob
from autotune.pipeline import Pipeline
from autotune.trial import Failure
from autotune.workload import Prompts, WorkloadRequest

OFFLINE = {"HF_HUB_OFFLINE": "1"}
# Each fork compiles anew, in itself alone. Only binaries of identical sources are shared, from one folder: Inductor's
# own caches don't know every setting that a graph depends on.
COMPILING = {
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}
ROUND_S = 90.0  # how long a child begins new configs
GRACE_S = 300.0
LIMIT_S = 300.0  # of one config


@dataclass(frozen=True)
class Wishes:
    """Which checks to run, and for how long."""

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    challenge: bool = False  # what the rules refuse
    again: bool = False  # what failed
    deadline: float = float("inf")  # of time.monotonic()
    at_once: int = 1

    def want(self, check: Check) -> bool:
        named = {name for name, _ in check.values}
        return not (self.only and not self.only & named) and not self.without & check.acting

    @property
    def time_left_s(self) -> float:
        return self.deadline - time.monotonic()


class Checks:
    """The checks of one pipeline, and the verdicts as far as they have come."""

    def __init__(self, folder: Path, pipeline: Pipeline, device: Device, wishes: Wishes) -> None:
        self.folder, self.wishes, self.rounds = folder, wishes, 0
        prompts = Prompts(texts=PROMPTS)
        target = probe(
            folder / "probe", pipeline, device, WorkloadRequest(prompts=prompts, steps=STEPS, batch=len(PROMPTS))
        )
        self.plan: Plan = make_plan(fitted(target))
        exact = folder / "exact" if device.kind == "cuda" else None
        self.pictures = Pictures(folder / "pictures", exact)
        for made in filter(None, (self.pictures.folder, exact)):
            shutil.rmtree(made, ignore_errors=True)  # of an earlier run, with knobs that may have changed since
            made.mkdir(parents=True)
        self.singles: dict[str, Verdict] = {}
        self.pairs: dict[str, Verdict] = {}

    def run(self, old: PipelineVerdicts | None) -> Iterable[PipelineVerdicts]:
        """Yields the verdicts whenever there are new ones."""
        self.begin(old)
        yield self.verdicts()
        if self.pictures.exact != self.pictures.folder:
            self.make([PLAIN], self.pictures.exact, NO_TF32)
        wanted = [check for check in self.plan.pairs if self.wishes.want(check)]
        parts = {part for check in wanted for part in check.parts}
        singles = [check for check in self.plan.singles if self.wishes.want(check) or check.name in parts]
        yield from self.settle([c for c in singles if self.singles[c.name].outcome == "not run"], self.singles)
        yield from self.settle(self.pairs_to_run(wanted), self.pairs)
        if self.wishes.challenge:
            yield from self.challenge([check for check in wanted if check.refused])
        yield self.verdicts()

    def begin(self, old: PipelineVerdicts | None) -> None:
        """What is known without a run: the rules' own verdicts, and those of the file."""
        every = (*old.singles.items(), *old.pairs.items()) if old else ()
        kept = {name: v for name, v in every if _ran(v) and not (self.wishes.again and v.outcome == "failed")}
        self.singles = {n: Verdict(outcome="impossible", reason=why) for n, why in self.plan.impossible.items()}
        for checks, verdicts in ((self.plan.singles, self.singles), (self.plan.pairs, self.pairs)):
            for check in checks:
                ran = kept.get(check.name)
                if check.refused:
                    again = ran.challenged if ran else None
                    verdicts[check.name] = Verdict(outcome="refused", reason=check.refused, challenged=again)
                else:
                    verdicts[check.name] = ran if ran and ran.outcome != "refused" else Verdict(outcome="not run")

    def verdicts(self) -> PipelineVerdicts:
        target = self.plan.target
        return PipelineVerdicts(
            class_name=target.pipeline.known.class_name,
            workload=str(target.workload),
            singles=dict(self.singles),
            pairs=dict(self.pairs),
        )

    def pairs_to_run(self, wanted: list[Check]) -> list[Check]:
        """Those whose values work alone; the others are skipped with the reason. First one value of each knob with one
        of each other, and the cheap ones before the dear ones: time may run out."""
        left = [check for check in wanted if self.pairs[check.name].outcome == "not run"]
        for check in left:
            bad = next((part for part in check.parts if self.singles[part].outcome == "failed"), None)
            if bad:
                self.pairs[check.name] = Verdict(outcome="skipped", reason=f"{bad} fails alone")
        left = [check for check in left if self.pairs[check.name].outcome == "not run"]
        return sorted(left, key=lambda check: (check.rank, sum(self.singles[p].seconds or 0.0 for p in check.parts)))

    def settle(self, checks: list[Check], verdicts: dict[str, Verdict]) -> Iterable[PipelineVerdicts]:
        """Judge the checks one after the other, as far as the time allows."""
        for done in self.judged(checks):
            verdicts.update(done)
            yield self.verdicts()

    def challenge(self, checks: list[Check]) -> Iterable[PipelineVerdicts]:
        """Run what the rules refuse."""
        left = [check for check in checks if self.pairs[check.name].challenged is None]
        for done in self.judged(left):
            for name, verdict in done.items():
                self.pairs[name] = self.pairs[name].model_copy(update={"challenged": verdict})
            yield self.verdicts()

    def judged(self, checks: list[Check]) -> Iterable[dict[str, Verdict]]:
        """Rounds of verdicts by name, until there are no more checks or no more time."""
        left = list(checks)
        while left and self.wishes.time_left_s > 0:
            self.make(list(dict.fromkeys(c for check in left for c in self.pictures.missing(check))))
            ready = [check for check in left if not self.pictures.missing(check)]
            left = [check for check in left if self.pictures.missing(check)]
            yield {check.name: judge(check, self.pictures) for check in ready}

    def make(self, configs: list[Config], folder: Path | None = None, env: dict[str, str] | None = None) -> None:
        """A child makes the pictures of these configs, or of as many as it can begin in a round.

        Raises UserError where it can't even make one.
        """
        store = folder or self.pictures.folder
        self.rounds += 1
        place, wishes = self.folder / "rounds" / f"{self.rounds:03d}", self.wishes
        job = CompatJob(
            target=self.plan.target,
            configs=tuple(dict(config) for config in configs),
            folder=str(store.resolve()),
            at_once=wishes.at_once,
            threads=None if wishes.at_once == 1 else 1,
            budget_s=max(1.0, min(ROUND_S, wishes.time_left_s)),
            limit_s=LIMIT_S,
        )
        cache = {"TORCHINDUCTOR_CACHE_DIR": str((self.folder / "compiled").resolve())}
        answer = isolate.run(
            place,
            job,
            timeout_s=ROUND_S + LIMIT_S + GRACE_S,
            env={**OFFLINE, **COMPILING, **cache, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", **(env or {})},
        )
        if configs and not any((store / f"{config.digest}.json").exists() for config in configs):
            why = answer.reason if isinstance(answer, Failure) else "the child has made no picture"
            raise UserError(f"{self.plan.target.pipeline.name} can't be tried: {why}; --keep FOLDER keeps its log.")


def _ran(verdict: Verdict) -> bool:
    return verdict.outcome in ("fine", "failed") or verdict.challenged is not None
