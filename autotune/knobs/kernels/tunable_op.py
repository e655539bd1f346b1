"""tunable_op: torch times the kernels of AMD's libraries for each shape of a matrix product, and takes the fastest.

It does so in the first call of each shape, with torch's TunableOp, and anew in each process. Not yet seen on a GPU.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(value: Value, target: Target) -> str | None:
    if value and not target.device.is_amd:
        return "times the kernels of rocBLAS and hipBLASLt, which need an AMD GPU"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    from torch.cuda import tunable

    tunable.enable(True)
    tunable.tuning_enable(True)
    return Effect(count=int(tunable.is_enabled() and tunable.tuning_is_enabled()), what="library with timed kernels")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    from torch.cuda import tunable

    return Effect(count=len(tunable.get_results()), what="shapes of matrix products whose kernels were timed")


def script(config: Config, target: Target) -> Script:
    return Script(lines=("torch.cuda.tunable.enable(True)", "torch.cuda.tunable.tuning_enable(True)"))


KNOB = Knob(
    name="tunable_op",
    stage=Stage.WEIGHTS,
    values=(False, True),
    changes_output=True,  # the kernels of matrix products round differently
    rounds=True,
    summary="AMD's kernels of products are timed",
    why_not=why_not,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
