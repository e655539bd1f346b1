"""compile_shapes: one graph for each size that is called, or one with dynamic shapes for all of them.

"dynamic" compiles once for many sizes; its kernels know no size, and may be slower. torch takes sizes that are equal in
the first call for one and the same, and would compile again where they differ. So that is switched off in each call of
the pipe (torch.fx.experimental's use_duck_shape, which torch keeps apart for each thread), as diffusers' guide has it.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.knobs.compilation._shapes import is_dynamic
from autotune.pipelines.running import workload_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OF_ONE_SIZE = "_graphs_of_one_size"  # an attribute of the pipe


def why_not(value: Value, target: Target) -> str | None:
    if value == "dynamic" and not target.workload.also:
        return "is for several sizes (--workload), and this workload has one"
    return None


def clash(config: Config, target: Target) -> str | None:
    if is_dynamic(config) and config["compile"] == "trace":
        return "torch.jit.trace has no dynamic shapes"
    return None


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The graphs that the other sizes were spared; with static shapes, each size has all graphs of its own.

    Called after the calls of the first size, whose graphs it counts, and after those of every size.
    """
    from torch._dynamo.utils import counters, get_compilation_metrics

    made = any(attempt.fail_reason is None for attempt in get_compilation_metrics())
    graphs, workload = int(counters["stats"]["unique_graphs"]) if made else 0, workload_for(pipe)
    of_one = vars(pipe).get(OF_ONE_SIZE)
    if of_one is None or workload is None:
        vars(pipe)[OF_ONE_SIZE] = graphs
        return Effect(count=graphs, what="graphs for the first size")
    others = len(workload.shapes) - 1
    added = graphs - of_one
    what = f"graphs spared, of {others * of_one} that {others} more sizes would have: they made {added}"
    return Effect(count=max(0, others * of_one - added), what=what)


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
