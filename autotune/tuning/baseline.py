"""Baseline: the plainest config that fits on the device, which is what a search compares with unless another is named.

The steps, each plainer than the next: the pipeline as loaded; in the checkpoint's own 16-bit format; with model
offload, VAE tiling and slicing; with group offload; with sequential offload. A step whose weights alone are larger than
the memory is not tried. Any other is tried, and runs out of memory or is the baseline.
"""

from collections.abc import Mapping
from pathlib import Path

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.goal import Goal
from autotune.knobs import all_knobs, complete, different, find_knob, footprint
from autotune.study.record import read_record
from autotune.study.space import SearchSpace
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import BaselineChoice, Failure, Rejected

OWN_FORMATS = {"F16": "fp16", "BF16": "bf16"}  # safetensors' names of the 16-bit formats -> values of dtype
OFFLOADS = ("model", "group", "sequential")
SAVERS: dict[str, Value] = {"vae_tiling": True, "vae_slicing": True}  # with an offload, where they are possible


def limit_bytes(target: Target, goal: Goal) -> int | None:
    """The memory in which the baseline must fit: the device's, or the user's limit on that of a GPU; None: unknown."""
    limits = [target.device.memory_bytes, goal.max_vram_bytes if target.device.is_gpu else None]
    return min((limit for limit in limits if limit), default=None)


def first_fitting(target: Target, memory_bytes: int | None) -> Config | None:
    """The baseline of a search, as far as the weights tell; None: the weights fit in no way."""
    return next((config for config in steps(target) if _excess(config, target, memory_bytes) is None), None)


def _excess(config: Config, target: Target, memory_bytes: int | None) -> int | None:
    """The bytes of the weights that must be on the device at the same time, if they are more than this; else None."""
    needed = footprint(config, target).resident_bytes
    return needed if memory_bytes is not None and needed > memory_bytes else None


def steps(target: Target, fixed: Mapping[str, Value] | None = None) -> list[Config]:
    """The configs that may become the baseline, the plainest first. What is not possible here is left out.

    fixed  values that the user holds; every step but the pipeline as loaded has those that save memory
    """
    held = _for_memory(fixed or {})
    dtype = sixteen_bits(target)
    smaller: dict[str, Value] = {} if dtype is None else {"dtype": dtype}
    wanted = [smaller | held, *(smaller | {"offload": how} | SAVERS | held for how in OFFLOADS)]
    found = [complete({}), *(_possible(values, target, held) for values in wanted)]
    return list(dict.fromkeys(config for config in found if config is not None))


def _for_memory(fixed: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the values that change what the weights take, or how much a VAE takes, with their modifiers."""
    saving = {name for name in fixed if find_knob(name).weighs is not None or name in SAVERS}
    return {name: value for name, value in fixed.items() if name in saving or find_knob(name).modifies in saving}


def sixteen_bits(target: Target) -> Value | None:
    """The 16-bit format of the denoiser's files, where the device computes in it. Otherwise bf16, which overflows no
    earlier than float32, then fp16. None: the device has neither."""
    pipeline = target.pipeline.known
    denoiser = next((part for part in pipeline.components if part.name == pipeline.denoiser), None)
    own = OWN_FORMATS.get(denoiser.stored_format or "") if denoiser else None
    order = dict.fromkeys(value for value in (own, "bf16", "fp16") if value is not None)
    return next((value for value in order if find_knob("dtype").why_not(value, target) is None), None)


def _possible(values: Mapping[str, Value], target: Target, held: Mapping[str, Value]) -> Config | None:
    """The config of these values, without those of SAVERS that don't go with the others. None: it can't run here."""
    space, values = SearchSpace(target, {}), dict(values)
    for name in (None, *(name for name in SAVERS if name not in held)):
        values = {n: v for n, v in values.items() if n in held or n not in SAVERS or not _fault(n, v, target)}
        values.pop(name or "", None)
        config = complete(values)
        if space.objection(config) is None:
            return config
    return None


def _fault(name: str, value: Value, target: Target) -> str | None:
    return all_knobs()[name].why_not(value, target)


class Baselines:
    """The configs that may become the baseline of a study, in turn. Those that are predicted not to fit are skipped.

    rejected  the plainer ones that don't fit, from this search and from the one that it continues
    """

    def __init__(
        self, target: Target, goal: Goal, named: Config | None, fixed: Mapping[str, Value], folder: StudyFolder
    ) -> None:
        """named: by the user, and then the only one. Raises UserError where its weights can't fit."""
        self.target, self.limit_bytes, self.named = target, limit_bytes(target, goal), named
        self.rejected: list[Rejected] = []
        self._told = 0
        begun = _begun(folder) if named is None else None
        if named is not None:
            _check_named(named, target)
        self._left = steps(target, fixed) if named is None else [named]
        if begun is not None:
            config, self.rejected = begun
            later = self._left[self._left.index(config) + 1 :] if config in self._left else []
            self._left = [config, *later]
        self._settled = begun is not None or named is not None  # the first one is not to be skipped

    def next(self) -> tuple[Config, BaselineChoice | None]:
        """The plainest config that may fit, and why it is the baseline if it does. Raises UserError: none is left."""
        while self._left:
            config = self._left.pop(0)
            needed = None if self._settled else _excess(config, self.target, self.limit_bytes)
            self._settled = False
            if needed is None:
                return config, None if self.named else self._choice()
            self._reject(config, needed)
        raise UserError(
            f"{self.target.pipeline.name} does not fit on {self.target.device.name}: {self._why()}. Take a smaller "
            "--size or pipeline, or name a smaller baseline, such as --baseline "
            "bf16,quantization=int8_weight_only,offload=sequential."
        )

    def may_follow(self, config: Config, failure: Failure) -> bool:
        """The config failed: may another one take its place? Only where it was not named and ran out of memory."""
        if self.named is not None or failure.cause != "out_of_memory":
            return False
        reason = f"{words(config)} ran out of memory ({failure.reason.rstrip('.')})"
        self.rejected.append(Rejected(values=different(config, complete({})), reason=reason))
        return True

    def _reject(self, config: Config, needed: int) -> None:
        """Not tried: it needs so many bytes."""
        memory_bytes = self.limit_bytes or 0
        reason = f"its weights alone take {needed / 1e9:.1f} GB of {memory_bytes / 1e9:.1f} GB"
        self.rejected.append(
            Rejected(
                values=different(config, complete({})),
                weight_bytes=needed,
                limit_bytes=memory_bytes,
                reason=f"{words(config)} was not tried, as {reason}",
            )
        )

    def news(self) -> list[Rejected]:
        """Those that were rejected since this was last asked."""
        new, self._told = self.rejected[self._told :], len(self.rejected)
        return new

    def _choice(self) -> BaselineChoice:
        reason = f"the plainest config that fits: {self._why()}" if self.rejected else "the pipeline as loaded fits"
        return BaselineChoice(reason=reason, rejected=tuple(self.rejected))

    def _why(self) -> str:
        return "; ".join(one.reason for one in self.rejected)


def untouched_words(runner: Runner, place: Path, config: Config, failure: Failure) -> str:
    """Sentences that tell a fault of the checkpoint itself from one of autotune or the settings; empty: not known.

    It is asked in a child process, where the baseline drew broken pictures or raised an error.
    """
    if failure.cause not in ("broken_output", "error", "unsupported"):
        return ""
    found = runner.untouched(place, config, all_prompts=failure.cause == "broken_output")
    if isinstance(found, Failure):
        return ""
    if found["seen"] is None:
        return " The checkpoint itself, untouched, draws these prompts: the fault is not its own."
    works = f"It draws {found['works']}." if found["works"] else "No other steps, scheduler or number format helped."
    return f" The checkpoint itself, untouched, fails as well: {found['seen'].rstrip('. ')}. {works}"


def _begun(folder: StudyFolder) -> tuple[Config, list[Rejected]] | None:
    """The baseline of the study in this folder, and what was rejected before; None: it is new, or it was named."""
    if not folder.study.exists():
        return None
    record, choice = read_record(folder), read_record(folder).baseline_choice
    if choice is None and record.baseline_config != complete({}):  # studies of earlier versions have no choice
        return None
    return record.baseline_config, list(choice.rejected if choice else ())


def _check_named(config: Config, target: Target) -> None:
    memory_bytes = target.device.memory_bytes
    needed = _excess(config, target, memory_bytes or None)
    if needed is not None:
        raise UserError(
            f"the baseline can't run here: its weights alone take {needed / 1e9:.1f} GB, and {target.device.name} has "
            f"{memory_bytes / 1e9:.1f} GB; without --baseline, the plainest config that fits is chosen."
        )


def words(config: Config) -> str:
    """ "the pipeline as loaded", or "dtype=bf16 offload=model"."""
    changed = different(config, complete({}))
    return " ".join(f"{name}={value}" for name, value in changed.items()) or "the pipeline as loaded"
