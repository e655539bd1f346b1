"""Checks: run the checks of one pipeline: draw the missing pictures in child processes, judge them, keep the verdicts.

This module loads no torch.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autotune.compat.judge import Pictures, judge
from autotune.compat.plan import PLAIN, PROMPTS, STEPS, Check, Plan, fitted, make_plan, space_of
from autotune.compat.record import PipelineVerdicts, Verdict
from autotune.compat.together import SIZES, together
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
# Each fork compiles for itself, because the keys of Inductor's caches lack some settings that a graph depends on. The
# forks share one cache folder only for binaries of identical sources.
COMPILING = {
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}
ROUND_S = 300.0  # for this long a child begins new configs; to start one takes 10 to 20 s
GRACE_S = 300.0  # for a child to start and end
LIMIT_S = 300.0  # the longest that one config may take


@dataclass(frozen=True)
class Options:
    """Which checks to run, and for how long.

    only       knobs: run only pairs with one of these; empty: all
    without    knobs: run no pair with one of these
    challenge  run pairs that the rules refuse as well
    again      run failed checks again
    captured   run graphs as they are captured, see CompatJob
    together   try many pairs in one config, see together.py
    deadline   in seconds of time.monotonic()
    at_once    the number of forks
    """

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    challenge: bool = False
    again: bool = False
    captured: bool = False
    together: bool = False
    deadline: float = float("inf")
    at_once: int = 1

    def includes(self, check: Check) -> bool:
        named = {name for name, _ in check.values}
        return not (self.only and not self.only & named) and not self.without & check.acting

    @property
    def time_left_s(self) -> float:
        return self.deadline - time.monotonic()


class Checks:
    """The checks of one pipeline, and the verdicts so far."""

    def __init__(self, folder: Path, pipeline: Pipeline, device: Device, options: Options) -> None:
        self.folder, self.options, self.rounds = folder, options, 0
        prompts = Prompts(texts=PROMPTS)
        target = probe(
            folder / "probe", pipeline, device, WorkloadRequest(prompts=prompts, steps=STEPS, batch=len(PROMPTS))
        )
        self.plan: Plan = make_plan(fitted(target))
        exact = folder / "exact" if device.is_gpu else None
        self.pictures = Pictures(folder / "pictures", exact)
        for pictures in filter(None, (self.pictures.folder, exact)):
            shutil.rmtree(pictures, ignore_errors=True)  # of an earlier run: the knobs may have changed since
            pictures.mkdir(parents=True)
        self.singles: dict[str, Verdict] = {}
        self.pairs: dict[str, Verdict] = {}

    def run(self, old: PipelineVerdicts | None) -> Iterable[PipelineVerdicts]:
        """Run the checks; yields all verdicts whenever there are new ones.

        old  the verdicts of an earlier run, which this one continues
        """
        self.begin(old)
        yield self.verdicts()
        if self.pictures.exact != self.pictures.folder:
            self.make([PLAIN], self.pictures.exact, NO_TF32)
        wanted = [check for check in self.plan.pairs if self.options.includes(check)]
        parts = {part for check in wanted for part in check.parts}
        singles = [check for check in self.plan.singles if self.options.includes(check) or check.name in parts]
        yield from self.settle([c for c in singles if self.singles[c.name].outcome == "not run"], self.singles)
        if self.options.together:
            yield from self.settle_together(wanted)
        yield from self.settle(self.pairs_to_run(wanted), self.pairs)
        if self.options.challenge:
            yield from self.challenge([check for check in wanted if check.refused])
        yield self.verdicts()

    def begin(self, old: PipelineVerdicts | None) -> None:
        """Set the verdicts that need no run: those of the rules, and those of the earlier run."""
        all_old = (*old.singles.items(), *old.pairs.items()) if old else ()
        kept = {name: v for name, v in all_old if _ran(v) and not (self.options.again and v.outcome == "failed")}
        self.singles = {n: Verdict(outcome="impossible", reason=why) for n, why in self.plan.impossible.items()}
        for checks, verdicts in ((self.plan.singles, self.singles), (self.plan.pairs, self.pairs)):
            for check in checks:
                ran = kept.get(check.name)
                if check.refused:
                    challenged = ran.challenged if ran else None
                    verdicts[check.name] = Verdict(outcome="refused", reason=check.refused, challenged=challenged)
                else:
                    verdicts[check.name] = ran if ran and ran.outcome != "refused" else Verdict(outcome="not run")

    def verdicts(self) -> PipelineVerdicts:
        """All verdicts so far."""
        target = self.plan.target
        return PipelineVerdicts(
            class_name=target.pipeline.known.class_name,
            workload=str(target.workload),
            singles=dict(self.singles),
            pairs=dict(self.pairs),
        )

    def pairs_to_run(self, wanted: list[Check]) -> list[Check]:
        """The pairs whose values work alone. The others are skipped, with the reason.

        Time may run out: pairs of the first values of their knobs come first, and cheap pairs before expensive ones.
        """
        left = [check for check in wanted if self.pairs[check.name].outcome == "not run"]
        for check in left:
            failed = next((part for part in check.parts if self.singles[part].outcome == "failed"), None)
            if failed:
                self.pairs[check.name] = Verdict(outcome="skipped", reason=f"{failed} fails alone")
        left = [check for check in left if self.pairs[check.name].outcome == "not run"]
        return sorted(left, key=lambda check: (check.rank, sum(self.singles[p].seconds or 0.0 for p in check.parts)))

    def settle(self, checks: list[Check], verdicts: dict[str, Verdict]) -> Iterable[PipelineVerdicts]:
        """Run and judge the checks as far as the time allows; yields all verdicts after each round."""
        for done in self.judged(checks):
            verdicts.update(done)
            yield self.verdicts()

    def settle_together(self, wanted: list[Check]) -> Iterable[PipelineVerdicts]:
        """Run configs that hold many pairs; the pairs of those that are fine are settled."""
        space = space_of(self.plan.target)
        for most in SIZES:
            held = together(space, self.pairs_to_run(wanted), most)
            pairs_in = {whole.name: (len(whole.values), pairs) for whole, pairs in held}
            for done in self.judged([whole for whole, _ in held]):
                for name, verdict in done.items():
                    among, pairs = pairs_in[name]
                    found = verdict.model_copy(update={"among": among if among > 2 else None})
                    self.pairs |= {pair.name: found for pair in pairs if found.outcome == "fine"}
                yield self.verdicts()

    def challenge(self, checks: list[Check]) -> Iterable[PipelineVerdicts]:
        """Run the checks that the rules refuse; yields all verdicts after each round."""
        left = [check for check in checks if self.pairs[check.name].challenged is None]
        for done in self.judged(left):
            for name, verdict in done.items():
                self.pairs[name] = self.pairs[name].model_copy(update={"challenged": verdict})
            yield self.verdicts()

    def judged(self, checks: list[Check]) -> Iterable[dict[str, Verdict]]:
        """Yields the new verdicts of each round, by name, until no check or no time is left."""
        left = list(checks)
        while left and self.options.time_left_s > 0:
            self.make(list(dict.fromkeys(c for check in left for c in self.pictures.missing(check))))
            ready = [check for check in left if not self.pictures.missing(check)]
            left = [check for check in left if self.pictures.missing(check)]
            yield {check.name: judge(check, self.pictures) for check in ready}

    def make(self, configs: list[Config], folder: Path | None = None, env: dict[str, str] | None = None) -> None:
        """Let a child draw the pictures of these configs, or of as many as it can begin in a round.

        folder  for the pictures; None: that of all pictures
        env     further environment variables

        Raises UserError where the child draws no picture.
        """
        store = folder or self.pictures.folder
        self.rounds += 1
        place, options = self.folder / "rounds" / f"{self.rounds:03d}", self.options
        job = CompatJob(
            target=self.plan.target,
            configs=tuple(dict(config) for config in configs),
            folder=str(store.resolve()),
            at_once=options.at_once,
            threads=None if options.at_once == 1 else 1,
            budget_s=max(1.0, min(ROUND_S, options.time_left_s)),
            limit_s=LIMIT_S,
            captured=options.captured,
        )
        cache = {"TORCHINDUCTOR_CACHE_DIR": str((self.folder / "compiled").resolve())}
        answer = isolate.run(
            place,
            job,
            timeout_s=ROUND_S + LIMIT_S + GRACE_S,
            env={**OFFLINE, **COMPILING, **cache, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", **(env or {})},
        )
        if configs and not any((store / f"{config.digest}.json").exists() for config in configs):
            why = answer.reason if isinstance(answer, Failure) else "the child drew no picture"
            raise UserError(f"{self.plan.target.pipeline.name} can't be checked: {why}; --keep FOLDER keeps its log.")


def _ran(verdict: Verdict) -> bool:
    """Does the verdict come from a run?"""
    return verdict.outcome in ("fine", "failed") or verdict.challenged is not None
