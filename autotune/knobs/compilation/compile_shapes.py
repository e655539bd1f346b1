"""compile_shapes: one graph for each size that is called, or one with dynamic shapes for all of them.

"dynamic" compiles once for many sizes; its kernels know no size, and may be slower. torch takes sizes that are equal in
the first call for one and the same, and would compile again where they differ. So that is switched off in each call of
the pipe (torch.fx.experimental's use_duck_shape, which torch keeps apart for each thread), as diffusers' guide has it.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.knobs.compilation._shapes import is_dynamic
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value == "dynamic" and not target.workload.also:
        return "is for several sizes (--workload), and this workload has one"
    return None


def clash(config: Config, target: Target) -> str | None:
    if is_dynamic(config) and config["compile"] == "trace":
        return "torch.jit.trace has no dynamic shapes"
    return None


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The graphs of all sizes that were called so far; with static shapes, each size has its own."""
    from torch._dynamo.utils import counters, get_compilation_metrics

    made = [attempt for attempt in get_compilation_metrics() if attempt.fail_reason is None]
    recompiled = sum(attempt.recompile_reason is not None for attempt in made)
    what = f"graphs for all sizes so far, {recompiled} recompilations"
    return Effect(count=counters["stats"]["unique_graphs"] if made else 0, what=what)


KNOB = Knob(
    name="compile_shapes",
    stage=Stage.COMPILE,
    modifies="compile",
    values=("static", "dynamic"),
    changes_output=False,
    summary="a graph for each size, or one for all",
    why_not=why_not,
    clash=clash,
    verify=verify,
    reads_kernels=False,
)
