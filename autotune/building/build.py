"""From a Pipeline and a Config to a live pipe. What is measured and what production runs are this same code."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.config import Config
from autotune.errors import UserError
from autotune.knob import Effect, Knob, Stage
from autotune.knobs import all_knobs
from autotune.pipeline import Pipeline
from autotune.workload import Workload

CALLBACK, CALLBACK_TENSORS = "callback_on_step_end", "callback_on_step_end_tensor_inputs"


class NoEffect(Exception):
    """A knob was asked for a value other than its default, and changed nothing."""

    def __init__(self, knob: str, value: object, what: str) -> None:
        super().__init__(f"{knob}={value} had no effect here: 0 {what}")
        self.knob = knob


def load(
    pipeline: Pipeline,
    config: Config,
    device: str,
    *,
    local_files_only: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """The pipe as the loading knobs want it, nothing else done to it. `device` is torch's name of one.

    given  components that are here already, by name
    """
    from autotune.pipelines import loading

    arguments: dict[str, Any] = {}  # of loading.load
    for knob in all_knobs().values():
        if knob.load is not None:
            arguments |= knob.load(config[knob.name])
    return loading.load(pipeline, device=device, local_files_only=local_files_only, given=given, **arguments)


def chain(stages: Sequence[tuple[Pipeline, Config, Workload]], device: str, *, local_files_only: bool = False) -> Any:
    """The pipes of several stages, each with its own config, as one `pipelines.chain.Chain`."""
    from autotune.pipelines.chain import Chain, shared_parts

    # Offload moves each pipe's parts by hooks of its own: one part can't have the hooks of two.
    alone = any(config["offload"] != "none" for _, config, _ in stages)
    pipes: list[Any] = []
    for pipeline, config, workload in stages:
        shared = shared_parts(pipes[0], (stages[0][0], pipeline)) if pipes and not alone else {}
        pipe = load(pipeline, config, device, local_files_only=local_files_only, given=shared)
        apply(pipe, config, workload, device)
        pipes.append(pipe)
    return Chain(pipes, [workload for _, _, workload in stages])


def raised(error: NoEffect) -> None:
    raise error


def apply(
    pipe: Any,
    config: Config,
    workload: Workload,
    device: str,
    *,
    no_effect: Callable[[NoEffect], None] = raised,
) -> dict[str, Effect]:
    """Change the loaded pipe in place, knob by knob in the order of the stages, and say what each one changed.

    no_effect  hears of a knob that changed nothing; unless it raises, the others go on

    Raises NoEffect where nobody hears of it, UserError for a knob that could only have acted while loading, or that
    changes weights beside which peft keeps those of a LoRA.
    """
    effects: dict[str, Effect] = {}
    for name, value in acting(config):
        knob = all_knobs()[name]
        if knob.apply is None:
            continue
        if knob.stage in (Stage.SURGERY, Stage.QUANTIZE) and _has_live_lora(pipe):
            hint = "pipe.fuse_lora(); pipe.unload_lora_weights()"
            raise UserError(f"{name}={value} would lose the LoRA that is on this pipe: fuse the LoRA first: {hint}.")
        effects[name] = knob.apply(pipe, config, device)
        if effects[name].count == 0 and knob.load is not None:
            raise UserError(f"{name}={value} must act while loading: {_how_to_load(name, config)}.")
        if effects[name].count == 0:
            no_effect(NoEffect(name, value, effects[name].what))
    if not any(all_knobs()[name].stage is Stage.PLACEMENT for name, _ in acting(config)):
        pipe.to(device)
    set_call_defaults(pipe, call_arguments(pipe, config, workload))
    return effects


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> dict[str, Effect]:
    """After a call: what the knobs did that only a call can show. `kernels`: the attention kernels that ran in it.

    Raises NoEffect.
    """
    effects = {}
    for name, value in acting(config):
        knob = all_knobs()[name]
        if knob.verify is None:
            continue
        effects[name] = knob.verify(pipe, config, kernels)
        if effects[name].count == 0:
            raise NoEffect(name, value, effects[name].what)
    return effects


def call_arguments(pipe: Any, config: Config, workload: Workload) -> dict[str, Any]:
    """What the pipeline is called with when the caller says nothing else: the workload's, then the call knobs'."""
    arguments: dict[str, Any] = {
        "width": workload.width,
        "height": workload.height,
        "use_resolution_binning": False,  # PixArt and its like would draw another size than the one that was measured
        "num_inference_steps": workload.steps,
        "guidance_scale": workload.guidance_scale,
    }
    for name, value in acting(config):
        call = all_knobs()[name].call
        if call is not None:
            arguments |= call(value, pipe)
    return arguments


def set_call_defaults(pipe: Any, arguments: dict[str, Any]) -> None:
    """Make these the defaults of `pipe(...)`; arguments that a caller gives win.

    The pipe becomes an instance of a subclass of the same name: an ordinary pipeline in every other respect.
    """
    cls = type(pipe)
    signature = inspect.signature(cls.__call__)
    ours = {name: value for name, value in arguments.items() if name in signature.parameters}

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **given: Any) -> Any:
        bound = signature.bind_partial(self, *args, **given)
        missing = {name: value for name, value in ours.items() if name not in bound.arguments}
        return cls.__call__(self, *args, **(missing | given | _joined(ours, given)))

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def _joined(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A caller's own callback runs after the one of a knob, instead of taking its place without a word.

    Each sees the tensors that either asked for. `None` for a callback means none at all.
    """
    mine, theirs = ours.get(CALLBACK), given.get(CALLBACK)
    if mine is None or (theirs is None and CALLBACK in given):
        return {}
    wanted = getattr(theirs, "tensor_inputs", None) or given.get(CALLBACK_TENSORS, ("latents",))
    names = sorted({*ours.get(CALLBACK_TENSORS, ("latents",)), *wanted})
    if theirs is None:
        return {CALLBACK_TENSORS: names}

    def both(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors = tensors | mine(pipe, step, timestep, tensors)
        return tensors | (theirs(pipe, step, timestep, dict(tensors)) or {})

    return {CALLBACK: both, CALLBACK_TENSORS: names}


def _has_live_lora(pipe: Any) -> bool:
    """Has a model layers that peft has wrapped? (Their base class is known by its name: peft need not be loaded.)"""
    models = [model for model in getattr(pipe, "components", {}).values() if hasattr(model, "modules")]
    kinds = {cls.__name__ for model in models for module in model.modules() for cls in type(module).__mro__}
    return "BaseTunerLayer" in kinds


def acting(config: Config) -> list[tuple[str, Any]]:
    """The knobs that do something, in order: those not at their default, and those that say how to load even there."""

    def acts(knob: Knob) -> bool:
        return config[knob.name] != knob.default or bool(knob.load and knob.load(knob.default))

    return [(name, config[name]) for name, knob in all_knobs().items() if name in config and acts(knob)]


def _how_to_load(name: str, config: Config) -> str:
    arguments = all_knobs()[name].load(config[name])  # type: ignore[misc]
    return "load the pipeline with " + ", ".join(f"{key}={value}" for key, value in arguments.items())
