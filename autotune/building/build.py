"""Build: make a live pipe from a Pipeline and a Config. Measurement and production run this same code."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from autotune.building.changes import REPLACE_WEIGHTS
from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.knob import Effect, Knob, Stage
from autotune.knobs import all_knobs
from autotune.pipeline import Pipeline
from autotune.pipelines.running import calibrations_for, has_unequal_sizes, prepare_once, remember, running
from autotune.target import Calibrations
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from autotune.pipelines.chain import Chain

MOST_GRAPHS = 512  # of one function, for all sizes that are ever called (production bounds the sizes)
CALLBACK, CALLBACK_TENSORS = "callback_on_step_end", "callback_on_step_end_tensor_inputs"


class NoEffect(Exception):
    """A knob is not at its default, but changed nothing."""

    def __init__(self, knob: str, value: object, what: str) -> None:
        super().__init__(f"{knob}={value} had no effect here: 0 {what}")
        self.knob = knob


def load(
    pipeline: Pipeline,
    config: Config,
    device: str,
    *,
    local_files_only: bool = False,
    components: Mapping[str, Any] | None = None,
) -> "DiffusionPipeline":
    """Load a pipe with the arguments of the loading knobs. The other knobs are not applied.

    device      torch's name of the device
    components  name -> component that is loaded already

    Raises UserError where the pipeline can't be loaded.
    """
    from autotune.pipelines import loading

    arguments: dict[str, Any] = {}  # of loading.load
    for knob in all_knobs().values():
        if knob.load is not None:
            arguments |= knob.load(config[knob.name])
    # A knob that places or quantizes the weights moves them from host memory: all of them may not fit on the device.
    home = "cpu" if _places(config) or _quantizes(config) else device
    places = {"device": home, "drawn_on": device}
    pipe = loading.load(pipeline, **places, local_files_only=local_files_only, given=components, **arguments)
    remember(pipe, traits=pipeline.traits, revisions=pipeline.part_revisions)
    return pipe


def chain(
    stages: Sequence[tuple[Pipeline, Config, Workload]],
    device: str,
    *,
    local_files_only: bool = False,
    calibrations: Sequence[Calibrations] = (),
) -> "Chain":
    """Load and build the pipes of several stages, each with its own config, as one Chain. Raises as load and apply.

    calibrations  of each stage, see apply(); empty: none is known
    """
    from autotune.pipelines.chain import Chain, shared_parts

    # Offload puts hooks on each pipe's components, and a component can't have the hooks of two pipes.
    offloads = any(config["offload"] != "none" for _, config, _ in stages)
    pipes: list[DiffusionPipeline] = []
    for (pipeline, config, workload), known in zip_longest(stages, calibrations):
        shared = shared_parts(pipes[0], (stages[0][0], pipeline)) if pipes and not offloads else {}
        pipe = load(pipeline, config, device, local_files_only=local_files_only, components=shared)
        apply(pipe, config, workload, device, calibrations=known)
        pipes.append(pipe)
    return Chain(pipes, [workload for _, _, workload in stages])


def raise_it(error: NoEffect) -> None:
    raise error


def apply(
    pipe: "DiffusionPipeline",
    config: Config,
    workload: Workload,
    device: str,
    *,
    no_effect: Callable[[NoEffect], None] = raise_it,
    calibrations: Calibrations | None = None,
) -> dict[str, Effect]:
    """Apply the knobs to the loaded pipe in place, in the order of their stages. Returns what each knob changed.

    device        torch's name of the device
    no_effect     called for a knob that changed nothing. Unless it raises, the other knobs are applied
    calibrations  what an earlier process has measured before its first call, see Target

    Raises NoEffect for a knob that changed nothing (by default). Raises UserError for a knob that acts only while
    loading, and for one that changes weights to which peft has attached a LoRA.
    """
    replacing = [(name, value) for name, value in acting(config) if all_knobs()[name].stage in REPLACE_WEIGHTS]
    if replacing and _has_live_lora(pipe):
        (name, value), hint = replacing[0], "pipe.fuse_lora(); pipe.unload_lora_weights()"
        raise UserError(f"{name}={value} would lose the LoRA that is on this pipe: fuse the LoRA first: {hint}.")
    remember(pipe, workload=workload, calibrations=calibrations)
    effects: dict[str, Effect] = {}
    for name, value in acting(config):
        knob = all_knobs()[name]
        if knob.apply is None:
            continue
        effects[name] = knob.apply(pipe, config, device)
        if effects[name].count == 0 and knob.load is not None:
            raise UserError(f"{name}={value} must act while loading: {_how_to_load(name, config)}.")
        if effects[name].count == 0:
            no_effect(NoEffect(name, value, effects[name].what))
    if not _places(config):
        pipe.to(device)
    set_call_defaults(pipe, call_arguments(pipe, config, workload))
    remember(pipe, prepare=[functools.partial(_prepare, name, config) for name in dict(acting(config))])
    return effects


def _prepare(name: str, config: Config, pipe: "DiffusionPipeline") -> None:
    knob = all_knobs()[name]
    if knob.prepare is None:
        return
    calibrations, kept = calibrations_for(pipe), knob.calibration(config[name])
    found = knob.prepare(pipe, config, calibrations.get(kept or "", ()))
    if kept is not None and found:
        remember(pipe, calibrations={**calibrations, kept: found})


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int] | None) -> dict[str, Effect]:
    """The effects that only a call of the pipe can show, after such calls.

    kernels  attention kernel -> how often it ran in a call; None: not known yet, so the knobs that read it are left out

    Raises NoEffect for a knob that did nothing.
    """
    effects = {}
    for name, value in acting(config):
        knob = all_knobs()[name]
        if knob.verify is None or (kernels is None and knob.reads_kernels):
            continue
        effects[name] = knob.verify(pipe, config, kernels or {})
        if effects[name].count == 0:
            raise NoEffect(name, value, effects[name].what)
    return effects


def call_arguments(pipe: "DiffusionPipeline", config: Config, workload: Workload) -> dict[str, Any]:
    """The default arguments of the pipe's call: those of the workload, then those of the knobs that act on calls.

    Raises UserError where the call does not take an argument of the workload.
    """
    from autotune.pipelines.call import workload_values

    arguments = workload_values(pipe, workload)
    for name, value in acting(config):
        call = all_knobs()[name].call
        if call is not None:
            arguments |= call(value, pipe)
    return arguments


def set_call_defaults(pipe: "DiffusionPipeline", arguments: dict[str, Any]) -> None:
    """Make these the defaults of `pipe(...)`. Arguments that the caller passes override them.

    A single text is the prompt, also where the call has another first parameter. Lists are handed on as copies.

    The pipe becomes an instance of a subclass with the same name. It is an ordinary pipeline in every other respect.
    """
    from autotune.pipelines.call import with_prompt

    cls = type(pipe)
    signature = inspect.signature(cls.__call__)
    defaults = {name: value for name, value in arguments.items() if name in signature.parameters}

    @functools.wraps(cls.__call__)
    def call(self: "DiffusionPipeline", *args: Any, **kwargs: Any) -> Any:
        prepare_once(self)
        args, kwargs = with_prompt(cls, args, kwargs)
        bound = signature.bind_partial(self, *args, **kwargs)
        missing = {name: value for name, value in defaults.items() if name not in bound.arguments}
        missing = _for_these_prompts(missing, bound.arguments)
        with running(self), _graphs_of_many_shapes(self):
            return cls.__call__(self, *args, **(missing | kwargs | _both_callbacks(defaults, kwargs)))

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


@contextmanager
def _graphs_of_many_shapes(pipe: "DiffusionPipeline") -> Iterator[None]:
    """Let a function have a graph for each of many shapes, or one for all of them, in this call.

    Every size, batch and level of a UNet makes a graph of its own of one block. Above torch's limit of 8 it would raise
    an error, as graphs must be whole. Set for each call, because torch keeps such settings apart for each thread.
    """
    dynamo = sys.modules.get("torch._dynamo.config")  # importing it takes a second and memory: only where it is used
    limits = {"recompile_limit": MOST_GRAPHS, "accumulated_recompile_limit": 8 * MOST_GRAPHS}
    with ExitStack() as stack:
        if dynamo is not None:
            stack.enter_context(dynamo.patch(**limits))
        if has_unequal_sizes(pipe):
            from torch.fx.experimental import _config

            stack.enter_context(_config.patch(use_duck_shape=False))
        yield


def _for_these_prompts(missing: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults for a call with these arguments: lists are copied, negative prompts as many as prompts."""
    values = {name: list(value) if type(value) is list else value for name, value in missing.items()}
    if "negative_prompt" in values and "negative_prompt_embeds" in given:
        del values["negative_prompt"]
    elif "negative_prompt" in values and isinstance(given.get("prompt"), list):
        values["negative_prompt"] = [values["negative_prompt"]] * len(given["prompt"])
    return values


def _both_callbacks(defaults: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments that let the caller's callback run after a knob's, instead of replacing it.

    Both callbacks get the tensors that either requests. A caller who passes None for the callback switches off both.
    """
    knobs, callers = defaults.get(CALLBACK), kwargs.get(CALLBACK)
    if knobs is None or (callers is None and CALLBACK in kwargs):
        return {}
    requested = getattr(callers, "tensor_inputs", None) or kwargs.get(CALLBACK_TENSORS, ("latents",))
    names = sorted({*defaults.get(CALLBACK_TENSORS, ("latents",)), *requested})
    if callers is None:
        return {CALLBACK_TENSORS: names}

    def both(pipe: "DiffusionPipeline", step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors = tensors | knobs(pipe, step, timestep, tensors)
        return tensors | (callers(pipe, step, timestep, dict(tensors)) or {})

    return {CALLBACK: both, CALLBACK_TENSORS: names}


def _has_live_lora(pipe: "DiffusionPipeline") -> bool:
    """Does a model have layers that peft has wrapped? Tested by the name of their base class, without loading peft."""
    models = [model for model in getattr(pipe, "components", {}).values() if hasattr(model, "modules")]
    classes = {cls.__name__ for model in models for module in model.modules() for cls in type(module).__mro__}
    return "BaseTunerLayer" in classes


def acting(config: Config) -> list[tuple[str, Value]]:
    """(name, value) of the knobs that act, in order: those not at their default, and those with loading arguments."""

    def acts(knob: Knob) -> bool:
        return config[knob.name] != knob.default or bool(knob.load and knob.load(knob.default))

    return [(name, config[name]) for name, knob in all_knobs().items() if name in config and acts(knob)]


def _places(config: Config) -> bool:
    """Does a knob of the config decide where the weights are?"""
    return any(all_knobs()[name].stage is Stage.PLACEMENT for name, _ in acting(config))


def _quantizes(config: Config) -> bool:
    """Does a knob of the config make the weights smaller?"""
    return any(
        all_knobs()[name].stage is Stage.QUANTIZE and value != all_knobs()[name].default
        for name, value in acting(config)
    )


def _how_to_load(name: str, config: Config) -> str:
    arguments = all_knobs()[name].load(config[name])  # type: ignore[misc]
    return "load the pipeline with " + ", ".join(f"{key}={value}" for key, value in arguments.items())
