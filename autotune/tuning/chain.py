"""chain(): measure tuned stages as one chain, interleaved with the chain of their baselines.

Each stage was searched by itself. Only a measurement of the whole chain shows how the stages work together, above all
in memory: the weights of each stage stay loaded while the next one works.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autotune.device import Device
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.runner import ENVIRONMENT_RETRIES
from autotune.execution.scratch import scratch
from autotune.job import ChainJob, Stage
from autotune.measurement import ChainCost
from autotune.production.chain import ChainConfig
from autotune.production.fingerprint import choose_same_kind
from autotune.production.tuned_config import TunedConfig
from autotune.statistics.peak_memory import memory_words
from autotune.trial import NOT_THE_CONFIG, Failure


def chain(
    stages: Sequence[str | Path],
    *,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    device: str | None = None,
    command: str = "autotune.chain(...)",
    listen: Callable[[int, str], None] = lambda number, which: None,
) -> ChainConfig:
    """Measure the exported stages as a chain, and the chain of their baselines, interleaved, in fresh processes.

    stages     the JSON files of the stages, in the order in which they run
    timeout_s  the longest that one run of a chain may take
    listen     is called with (round from 1, "baseline" or "tuned") before each run

    Raises UserError where the stages don't fit together, or where the chain can't run.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give at least 2.")
    tuned = tuple(TunedConfig.load(path) for path in stages)
    current = choose_same_kind(tuned[0].device, device) if tuned else find_device(device)
    _check(tuned, current.name)
    costs: dict[str, list[ChainCost]] = {"baseline": [], "tuned": []}
    for number in range(rounds):
        order = list(costs.items())
        for which, measured in order if number % 2 == 0 else reversed(order):  # slow drift cancels
            listen(number + 1, which)
            measured.append(_measure(_job(tuned, which, current), which, timeout_s))
    config = ChainConfig(
        about="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        stages=tuned,
        baseline=tuple(costs["baseline"]),
        tuned=tuple(costs["tuned"]),
    )
    return config.model_copy(update={"about": about(config)})


def about(config: ChainConfig) -> str:
    """One sentence: the speed and the peak memory of the tuned chain relative to its baseline."""
    verdict = config.confirmation.verdict
    assert verdict is not None
    names = " + ".join(stage.pipeline.name for stage in config.stages)
    speed = verdict.words("the speed of the stages' baselines")
    return f"{names}: {speed}, {_memory(config)}; quality was judged stage by stage."


def _memory(config: ChainConfig) -> str:
    """The change of the highest peak, where the peaks of all runs of one chain lie beyond those of the other."""
    tuned, baseline = ([cost.peak_memory_bytes for cost in costs] for costs in (config.tuned, config.baseline))
    if min(tuned) <= max(baseline) and min(baseline) <= max(tuned):
        return "the same memory"
    return memory_words(max(tuned), max(baseline))


def _check(stages: Sequence[TunedConfig], device: str) -> None:
    """Raises UserError where the stages were not tuned on this device, or not for one batch size."""
    if len(stages) < 2:
        raise UserError(f"a chain needs at least two stages, {len(stages)} given.")
    first = stages[0]
    for stage in stages:
        name = stage.pipeline.name
        if stage.device.name != device:
            raise UserError(f"{name} was tuned on {stage.device.name}, this device is {device}: tune it on this one.")
        if stage.workload.batch != first.workload.batch:
            raise UserError(
                f"{name} was tuned for a batch of {stage.workload.batch}, {first.pipeline.name} for a batch of "
                f"{first.workload.batch}: tune all stages for the same batch."
            )


def _job(tuned: Sequence[TunedConfig], which: str, device: Device) -> ChainJob:
    knobs = [config.knobs if which == "tuned" else config.baseline_knobs for config in tuned]
    targets = [config.target.on_card(device) for config in tuned]
    return ChainJob(stages=tuple(Stage(target=t, values=v) for t, v in zip(targets, knobs, strict=True)))


def _measure(job: ChainJob, which: str, timeout_s: float) -> ChainCost:
    """Run the job in a fresh process, again where the machine was to blame. Raises UserError where it fails."""
    for _ in range(1 + ENVIRONMENT_RETRIES):
        with scratch() as folder:
            answer = isolate.run(Path(folder) / "run", job, timeout_s=timeout_s)
        if not isinstance(answer, Failure) or answer.cause not in NOT_THE_CONFIG:
            break
    if isinstance(answer, Failure):
        raise UserError(f"the {which} chain failed ({answer.cause}): {answer.reason}.")
    return ChainCost.parse(answer, "the chain's outcome")
