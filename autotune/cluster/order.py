"""Order: what a worker is told to run, and Result: what it sends back. Both travel as JSON."""

import os
from collections.abc import Sequence
from pathlib import Path

import autotune
from autotune.config import Config, Value
from autotune.device import Device
from autotune.devices import hub_kernels
from autotune.execution.runner import UNCOMPILED, Runner
from autotune.frozen_model import FrozenModel
from autotune.isolation import BUSY, Isolation
from autotune.measurement import Measurement, Quality
from autotune.reuse import Reuse
from autotune.target import Target
from autotune.trial import Failure, Trial
from autotune.workload import Workload


class Order(FrozenModel):
    """One run of a Runner on a card, in a scratch copy of the study's folder.

    study      names the folder of compiled code on the worker's host
    place      of the run's files, relative to the study's folder
    target     of the study; the worker puts its own card in place of the study's, if the two are alike
    version    of autotune
    niceness   of the searching process, as the kernel has it
    fetch      the worker's host may lack the weights and the hub's kernels: probe the pipeline first, which downloads
               them
    busy       the user takes timings as they come
    hub_kernels  the user allows attention kernels of the hub to run
    run_code   the user allows the function that builds the pipe to run
    timing_s   seconds of timed calls, see Runner
    breakdown  also time the parts of a call, and profile its first steps
    host_bytes of the host's memory that a trial has taken at most; None: not known yet
    earlier    those of the study's trials that the run needs, see `needed`
    draw       draw the pictures of this workload, untimed, and judge them by those in `reference`; None: measure
    reference  a folder relative to the study's
    """

    study: str
    place: str
    target: Target
    version: str
    niceness: int
    values: dict[str, Value]
    timeout_s: float
    max_memory_bytes: int | None
    baseline: dict[str, Value] | None
    isolation: Isolation | None
    fetch: bool = False
    busy: bool = False
    hub_kernels: bool = False
    run_code: bool = False
    timing_s: float | None = None
    breakdown: bool = True
    host_bytes: int | None = None
    earlier: tuple[Trial, ...] = ()
    pictures: bool = False
    reuse: Reuse | None = None
    draw: Workload | None = None
    reference: str = "trials/0000"

    @property
    def config(self) -> Config:
        return Config(self.values)

    @property
    def wants(self) -> list[str]:
        """The folders of pictures that the run reads, relative to the study's."""
        source = self.reuse.source if self.reuse else None
        judged = [self.reference] if (self.draw or self.pictures) and self.place != self.reference else []
        return [f"{folder}/images" for folder in (*judged, *([f"trials/{source.trial:04d}"] if source else []))]


class Result(FrozenModel):
    """What became of an order.

    seconds  that the run took
    outcome  None: there is none, for one of the reasons that follow
    refused  why this card is not like the study's, as a clause
    trouble  why the run could not be made, which is not its config's fault: a sentence
    """

    device: Device | None = None
    seconds: float = 0.0
    outcome: Measurement | Failure | Quality | None = None
    refused: str | None = None
    trouble: str | None = None


def make_order(
    runner: Runner, place: Path, config: Config, *, earlier: Sequence[Trial] = (), reuse: Reuse | None = None
) -> Order:
    """The order of what `runner` would run in this place, a folder of its study."""
    return Order(
        study=runner.folder.cache.name,
        place=place.relative_to(runner.folder.path).as_posix(),
        target=runner.target_of(config, earlier),
        version=autotune.__version__,
        niceness=os.nice(0),
        values=dict(config),
        timeout_s=runner.timeout_s,
        max_memory_bytes=runner.max_memory_bytes,
        baseline=None if runner.baseline is None else dict(runner.baseline),
        isolation=runner.isolation,
        timing_s=runner.timing_s,
        breakdown=runner.breakdown,
        busy=os.environ.get(BUSY) == "accept",
        hub_kernels=hub_kernels.allowed(),
        run_code=runner.target.pipeline.factory is not None,  # the search has refused to begin without the user's leave
        host_bytes=max((t.measured.host.peak_bytes for t in earlier if t.measured and t.measured.host), default=None),
        earlier=needed(earlier, reuse),
        reuse=reuse,
    )


def needed(trials: Sequence[Trial], reuse: Reuse | None) -> tuple[Trial, ...]:
    """The trials that a Runner looks at, by number: a thousand would be megabytes for each order.

    Those whose work is reused, and of each kind that learns time limits of its own (see Runner.time_limit_s) the
    longest that was measured and the longest that was stopped.
    """
    numbers = {reuse.compiler, reuse.source.trial if reuse.source else None} if reuse else set[int | None]()
    kept = {trial.number: trial for trial in trials if trial.number in numbers}
    longest: dict[tuple[bool, bool], Trial] = {}
    for trial in trials:
        stopped = isinstance(trial.outcome, Failure) and trial.outcome.cause == "timeout"
        kind = (trial.config.get("compile", "off") in UNCOMPILED, stopped)
        if (trial.measured or stopped) and (kind not in longest or trial.seconds > longest[kind].seconds):
            longest[kind] = trial
    kept |= {trial.number: trial for trial in longest.values()}
    return tuple(kept[number] for number in sorted(kept))
