"""cache: the denoiser reuses blocks that it computed a step before, as their outputs differ little between steps.

A value is a method and its number, such as "deepcache:3" or "first_block:0.05". Each method has a file of its own in
this folder, which says what it keeps and what the number is.

Cached outputs belong to one call of the pipe. They are dropped when the next call begins, even if the one before was
interrupted. A call begins when the scheduler gets new timesteps. Where a step calls the denoiser twice, with and
without the prompt, each of the two has its own outputs.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.caching._calls import as_text
from autotune.knobs.caching._methods import Method, all_methods
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def _read(value: Value) -> tuple[Method | None, str]:
    """The method of a value and its number; no method for "none" and for what is no value."""
    name, _, number = str(value).partition(":")
    return all_methods().get(name), number


def ranges(target: Target) -> tuple[Range, ...]:
    """The numbers of each method."""
    ends = {method.name: method.between for method in all_methods().values() if method.between is not None}
    return tuple(
        Range(low=low, high=high, log=isinstance(low, float), prefix=f"{name}:") for name, (low, high) in ends.items()
    )


def also(value: Value) -> bool:
    method, number = _read(value)
    return method is not None and method.accepts(number)


def why_not(value: Value, target: Target) -> str | None:
    method, _ = _read(value)
    if method is None:
        return None
    steps = target.workload.steps
    why = method.why_not(target)
    if why is None and steps < method.steps:
        why = f"needs at least {method.steps} steps, and a call has {steps}"
    return why


def clash(config: Config, target: Target) -> str | None:
    method, _ = _read(config["cache"])
    if method is None:
        return None
    why = method.clash(config, target)
    if why:
        return why
    if config["compile"] not in ("off", "regional"):
        return "a cache decides at each step what to compute, which only regional compilation supports"
    if not method.blocks and config["compile"] != "off":
        return f"{method.name} decides at each step for layers inside of the blocks that are compiled"
    if config.get("compile_mode") in CUDA_GRAPHS:
        return "a cache would keep outputs in the memory of a CUDA graph, which the next graph overwrites"
    if config["offload"] == "group":
        return "group offloading prefetches layers in a fixed order, which a cache breaks by skipping blocks"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    method, number = _read(config["cache"])
    assert method is not None, "not called for the default"
    return method.apply(pipe, number)


def calibrates(value: Value) -> str | None:
    """The method's name: what is measured does not depend on its number."""
    method, _ = _read(value)
    return method.name if method is not None and method.prepare is not None else None


def prepare(pipe: "DiffusionPipeline", config: Config, known: tuple[float, ...]) -> tuple[float, ...]:
    method, _ = _read(config["cache"])
    return () if method is None or method.prepare is None else method.prepare(pipe, known)


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The steps that reused blocks, in the last call, and how many of them in each."""
    skipped = (getattr(parts.denoiser(pipe), "cached_calls", None) or [[]])[-1]
    reused = sum(number > 0 for number in skipped)
    what = f"of {len(skipped)} calls of the denoiser in a picture reused its blocks"
    if reused:
        what += f"; skipped in each: {as_text(skipped)}{getattr(parts.denoiser(pipe), 'cache_note', '')}"
    return Effect(count=reused, what=what)


def script(config: Config, target: Target) -> Script:
    method, number = _read(config["cache"])
    return Script() if method is None else method.script(number, config, target)


KNOB = Knob(
    name="cache",
    stage=Stage.PATCH,
    values=("none", *(f"{method.name}:{number}" for method in all_methods().values() for number in method.numbers)),
    changes_output=True,
    summary="blocks reused from one step to the next",
    in_graphs=lambda value: str(value).partition(":")[0],  # the numbers are not part of compiled graphs
    ranges=ranges,
    also=also,
    why_not=why_not,
    clash=clash,
    apply=apply,
    prepare=prepare,
    calibrates=calibrates,
    verify=verify,
    reads_kernels=False,
    script=script,
)
