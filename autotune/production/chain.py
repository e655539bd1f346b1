"""ChainConfig: the exported JSON of a chain of tuned stages; load() reads it, or a single config, into a pipeline.

tuning/chain.py measures a chain and makes its ChainConfig. Nothing here starts a process.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autotune.building import build
from autotune.devices import current_device, torch_name
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, absolute, write_json
from autotune.measurement import ChainCost
from autotune.pictures.own import at_hand
from autotune.pipelines.factory import Factory
from autotune.production import fingerprint, serving
from autotune.production import untrusted_input as untrusted
from autotune.production.library_messages import kept_in_log
from autotune.production.tuned_config import Confirmation, TunedConfig
from autotune.production.turns import LOADING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from autotune.pipelines.chain import Chain

SCHEMA_VERSION = 2  # rises with the schema of a stage


class ChainConfig(FrozenModel):
    """The exported JSON of a chain: the exported config of each stage, and the cost of the whole chain."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["chain"] = "chain"
    about: str
    created: str
    command: str
    stages: tuple[TunedConfig, ...]
    baseline: tuple[ChainCost, ...]  # one for each round, interleaved with those of the tuned chain
    tuned: tuple[ChainCost, ...]

    @classmethod
    def load(cls, path: str | Path) -> "ChainConfig":
        """Read and check a JSON file. Raises UserError, which says what is wrong with the file."""
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
        """The latencies of the whole chain: one median for each round."""
        return Confirmation(
            baseline_latency_s=tuple(cost.latency_s for cost in self.baseline),
            tuned_latency_s=tuple(cost.latency_s for cost in self.tuned),
        )

    def pipeline_on(
        self,
        device: str | None = None,
        *,
        local_files_only: bool = False,
        strict: bool = False,
        warmup: bool = False,
        thread_safe: bool = False,
    ) -> "Chain":
        """Load the chain. Called with a prompt, it returns the last stage's pictures; `.stages` are its pipelines.

        The arguments are those of load(). Raises UserError where a stage can't be loaded on the device.
        """
        places = [
            fingerprint.find_place(stage.target, stage.config, device, local_files_only=local_files_only)
            for stage in self.stages
        ]
        differences = [
            *(sentence for stage in self.stages for sentence in stage.edited),
            *(sentence for place in places for sentence in place.differences),
        ]
        fingerprint.report(list(dict.fromkeys(differences)), strict=strict)
        stages = [
            (stage.pipeline, place.config, at_hand(stage.workload))
            for stage, place in zip(self.stages, places, strict=True)
        ]
        with LOADING:
            name = torch_name(places[0].device)
            with current_device(name):
                chain: Chain = build.chain(
                    stages,
                    name,
                    local_files_only=local_files_only,
                    calibrations=[stage.calibrations for stage in self.stages],
                )
            for pipe, (_, config, workload) in zip(chain.stages, stages, strict=True):
                serving.serve(pipe, config, workload, thread_safe=thread_safe)
        if warmup:
            chain(next(self.stages[0].workload.calls())[0])
        return chain


def read_exported(path: str | Path) -> TunedConfig | ChainConfig:
    """Read an exported JSON: a config or a chain of configs. Raises UserError."""
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
    thread_safe: bool = False,
    factory: Factory | None = None,
) -> "DiffusionPipeline | Chain":
    """Load the diffusers pipeline of an exported config: `pipe = autotune.load("best.json")`.

    The result is an ordinary diffusers pipeline: `pipe("a prompt").images[0]` is a PIL picture. For the JSON of a chain
    it is a `Chain` of pipelines.

    device            "cuda:0", "cpu" ...; default: the device of the same name as the measured one, otherwise one of
                      the same kind, otherwise the best one of this machine
    local_files_only  download nothing
    strict            raise UserError where anything differs from the measurement, instead of logging a warning
    warmup            call the pipeline once at each measured size before returning, so that all compilation is done
    artifacts         use the compiled code beside the file. torch reads it with pickle: whoever wrote it can run any
                      code in this process. Use it only for files that you or somebody you trust made
    thread_safe       calls from several threads wait for one another. Otherwise calls that overlap are logged, as their
                      pictures may be wrong
    factory           the function that built the measured pipe, where the search was given one by --factory: a file
                      names it, and never makes it run

    Messages of the libraries that call for nothing go to the logger `autotune.libraries`, level INFO.
    Raises UserError where the file or the device can't be used.
    """
    exported = read_exported(path)
    with kept_in_log():
        if isinstance(exported, ChainConfig):
            if factory is not None:
                raise UserError("no pipe of a chain is built by a factory: leave it out.")
            return exported.pipeline_on(
                device, local_files_only=local_files_only, strict=strict, warmup=warmup, thread_safe=thread_safe
            )
        return exported.pipeline_on(
            device,
            local_files_only=local_files_only,
            strict=strict,
            warmup=warmup,
            artifacts_in=absolute(path).parent if artifacts else None,
            thread_safe=thread_safe,
            factory=factory,
        )
