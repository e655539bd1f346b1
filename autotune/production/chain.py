"""A chain of tuned stages: measured as a whole against the chain of their baselines, exported as one JSON.

Each stage was searched by itself. Whether the stages hold together (in memory above all, where each one's weights stay
while the next one works) only the whole chain can show.
"""

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autotune.building import build
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, write_json
from autotune.measurement import ChainCost
from autotune.production import fingerprint as production
from autotune.production import untrusted_input as untrusted
from autotune.production.tuned_config import Confirmation, TunedConfig
from autotune.target import Target
from autotune.trial import NOT_THE_CONFIG, Failure

if TYPE_CHECKING:
    from autotune.job import ChainJob  # what measures is not loaded in production

SCHEMA_VERSION = 2  # with that of its stages


class ChainConfig(FrozenModel):
    """The exported JSON of a chain: its stages as they were exported, and what the whole costs."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["chain"] = "chain"
    about: str
    created: str
    command: str
    stages: tuple[TunedConfig, ...]
    baseline: tuple[ChainCost, ...]  # one a round, in turn with those of the tuned chain
    tuned: tuple[ChainCost, ...]

    @classmethod
    def load(cls, path: str | Path) -> "ChainConfig":
        """Read and check a JSON file. Raises UserError saying what is wrong with it."""
        where = f"the chain {str(path)!r}"
        data = untrusted.read_untrusted(path, "chain")
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{where} was written by a newer autotune (schema {version}): upgrade autotune.")
        chain = cls.parse(data, where)
        try:
            for stage in chain.stages:
                stage.check()
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return chain

    def save(self, path: str | Path) -> None:
        """Write the JSON, whole or not at all. Raises UserError where it can't be written."""
        try:
            write_json(Path(path), self.to_json())
        except OSError as error:
            raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None

    @property
    def confirmation(self) -> Confirmation:
        return Confirmation(
            baseline_latency_s=tuple(cost.latency_s for cost in self.baseline),
            tuned_latency_s=tuple(cost.latency_s for cost in self.tuned),
        )

    def pipeline_on(
        self, device: str | None = None, *, local_files_only: bool = False, strict: bool = False, warmup: bool = False
    ) -> Any:
        """A `Chain`: called with a prompt, it gives the last stage's pictures; `.stages` are ordinary pipelines."""
        places = [
            production.find_place(stage.target, stage.config, device, local_files_only=local_files_only)
            for stage in self.stages
        ]
        said = [
            *(s for stage in self.stages for s in stage.edited),
            *(s for place in places for s in place.differences),
        ]
        production.tell(list(dict.fromkeys(said)), strict=strict)
        stages = [
            (stage.pipeline, place.config, stage.workload) for stage, place in zip(self.stages, places, strict=True)
        ]
        made = build.chain(stages, places[0].device.torch_name, local_files_only=local_files_only)
        if warmup:
            made(next(self.stages[0].workload.calls())[0])
        return made


def read_exported(path: str | Path) -> TunedConfig | ChainConfig:
    """Whichever kind of JSON autotune has exported there. Raises UserError."""
    data = untrusted.read_untrusted(path, "config")
    is_chain = isinstance(data, dict) and data.get("kind") == "chain"
    return ChainConfig.load(path) if is_chain else TunedConfig.load(path)


def load(
    path: str | Path,
    *,
    device: str | None = None,
    local_files_only: bool = False,
    strict: bool = False,
    warmup: bool = False,
    artifacts: bool = False,
) -> Any:
    """The diffusers pipeline of an exported config: `pipe = autotune.load("best.json"); pipe("a prompt").images[0]`.

    device            "cuda:0", "cpu" ...; left out: the one like that which was measured, or the best one here
    local_files_only  load nothing from the network
    strict            raise UserError where anything differs from what was measured, instead of logging it
    warmup            call it once at every size that was measured, so that everything is compiled when this returns
    artifacts         use the compiled code that came with the file. torch reads it with pickle: whoever made it can run
                      any code here. Only for files that you or somebody you trust has made

    Of a chain of stages, a `Chain` of them. Raises UserError where the file or the device can't be used.
    """
    exported = read_exported(path)
    if isinstance(exported, ChainConfig):
        return exported.pipeline_on(device, local_files_only=local_files_only, strict=strict, warmup=warmup)
    folder = Path(path).resolve().parent if artifacts else None
    return exported.pipeline_on(
        device, local_files_only=local_files_only, strict=strict, warmup=warmup, artifacts_in=folder
    )


def chain(
    stages: Sequence[str | Path],
    *,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    device: str | None = None,
    command: str = "autotune.chain(...)",
    listen: Callable[[int, str], None] = lambda number, which: None,
) -> ChainConfig:
    """Measure the exported stages as a chain, and the chain of their baselines, in turn, in fresh processes.

    listen  hears (round from 1, "baseline" or "tuned") before each run

    Raises UserError where the stages don't go together, or where the chain can't run.
    """
    from autotune.job import ChainJob, Stage

    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give at least 2.")
    tuned = tuple(TunedConfig.load(path) for path in stages)
    here = find_device(device or (tuned[0].device.kind if tuned else None))
    _check(tuned, here.name)
    targets = [_target(config) for config in tuned]
    costs: dict[str, list[ChainCost]] = {"baseline": [], "tuned": []}
    for number in range(rounds):
        order = list(costs.items())
        for which, measured in order if number % 2 == 0 else reversed(order):  # what drifts slowly cancels
            listen(number + 1, which)
            values = [config.knobs if which == "tuned" else config.baseline_knobs for config in tuned]
            job = ChainJob(stages=tuple(Stage(target=t, values=v) for t, v in zip(targets, values, strict=True)))
            measured.append(_measure(job, which, timeout_s))
    made = ChainConfig(
        about="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        stages=tuned,
        baseline=tuple(costs["baseline"]),
        tuned=tuple(costs["tuned"]),
    )
    return made.model_copy(update={"about": about(made)})


def about(config: ChainConfig) -> str:
    """What the chain brings, in one sentence."""
    seen = config.confirmation
    memory = max(c.peak_memory_bytes for c in config.tuned) / max(c.peak_memory_bytes for c in config.baseline) - 1
    names = " + ".join(stage.pipeline.name for stage in config.stages)
    assert seen.verdict is not None
    speed = seen.verdict.words("the speed of the stages' baselines")
    return (
        f"{names}: {speed}, {abs(memory):.0%} "
        f"{'more' if memory > 0 else 'less'} memory; quality was judged stage by stage."
    )


def _check(stages: Sequence[TunedConfig], device: str) -> None:
    if len(stages) < 2:
        raise UserError(f"a chain has two stages or more, {len(stages)} given.")
    for stage in stages:
        if stage.device.name != device:
            raise UserError(f"{stage.pipeline.name} was tuned on {stage.device.name}, this is {device}: tune it here.")
        if stage.workload.batch != stages[0].workload.batch:
            raise UserError(
                f"{stage.pipeline.name} was tuned for a batch of {stage.workload.batch}, "
                f"{stages[0].pipeline.name} for one of {stages[0].workload.batch}: tune them alike."
            )


def _target(config: TunedConfig) -> Target:
    return Target(pipeline=config.pipeline, workload=config.workload, device=config.device, versions=config.versions)


def _measure(job: "ChainJob", which: str, timeout_s: float) -> ChainCost:
    from autotune.execution import isolate
    from autotune.execution.runner import ENVIRONMENT_RETRIES

    for _ in range(1 + ENVIRONMENT_RETRIES):
        with tempfile.TemporaryDirectory() as folder:
            answer = isolate.run(Path(folder) / "run", job, timeout_s=timeout_s)
        if not isinstance(answer, Failure) or answer.cause not in NOT_THE_CONFIG:
            break
    if isinstance(answer, Failure):
        raise UserError(f"the {which} chain failed ({answer.cause}): {answer.reason}.")
    return ChainCost.parse(answer, "the chain's outcome")
