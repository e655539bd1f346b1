"""_cfg_cache: the half of a guided batch without the prompt is computed in one later step of N (of FasterCache).

A guided call runs the denoiser on a batch of double size. Below timestep 641 of 1000, only the half with the prompt is
computed in the other steps. What the two halves differ by is kept from the last whole step, as frequencies: low ones
are made 1.1 times as strong at each step, and high ones near the end of the call (arXiv 2410.19355). diffusers' own
(FasterCacheConfig) splits batches by the names of arguments, and fails in calls without guidance; here they are split
by their size.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.knob import Effect, Script
from autotune.knobs._half_batch import around, batch_of, each, second_half
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, integer
from autotune.knobs.caching._pab import Timestep
from autotune.pipelines import parts
from autotune.pipelines.running import running_pipe
from autotune.target import Target

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

BELOW = 641  # timesteps at which the half may be predicted; this and the next are the paper's
STRONGER, LOW_AT, HIGH_AT = 1.1, (99, 901), (-1, 301)
LOW_SHARE = 5  # frequencies up to a fifth of the shorter side are low


class Halves:
    """Runs the denoisers on half of the batch in some steps, and predicts the other half."""

    def __init__(self, pipe: "DiffusionPipeline", every: int) -> None:
        self.every, self.calls = every, Calls(pipe)
        self.timestep = Timestep(self.calls)
        self.kept: dict[str, torch.Tensor] = {}  # which call of a step -> what the halves differ by, as frequencies
        self.since: dict[str, int] = {}  # which call of a step -> calls that were made
        for denoiser in parts.denoisers(pipe).values():
            around(denoiser, self._around)

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            if self.calls.is_new():
                self.kept, self.since = {}, {}
            of_step, size, pipe = self.calls.of_step, batch_of(args, kwargs), running_pipe()
            number = self.since.get(of_step, 0)
            self.since[of_step] = number + 1
            guided = pipe is not None and bool(pipe.do_classifier_free_guidance) and size > 0 and size % 2 == 0
            at = self.timestep() if guided else 0.0
            skip = guided and of_step in self.kept and number % self.every != 0 and at < BELOW
            self.calls.count(reused=int(skip))
            if not skip:
                return each(inner(*args, **kwargs), lambda t: self._keep(t, of_step, size) if guided else t)
            self.kept[of_step] = stronger(self.kept[of_step], at)
            halved = inner(*second_half(args, size), **second_half(kwargs, size))
            return each(halved, lambda t: self._whole(t, of_step, size))

        return called

    def _keep(self, output: "torch.Tensor", of_step: str, size: int) -> "torch.Tensor":
        import torch

        if output.dim() > 3 and len(output) == size:  # pictures, or clips: the last two dimensions are places
            without, with_prompt = output.float().chunk(2)
            self.kept[of_step] = torch.fft.fft2(without - with_prompt)
        return output

    def _whole(self, output: "torch.Tensor", of_step: str, size: int) -> "torch.Tensor":
        import torch

        if output.dim() <= 3 or len(output) != size // 2:
            return output
        without = output.float() + torch.fft.ifft2(self.kept[of_step]).real
        return torch.cat([without.to(output.dtype), output])


def stronger(difference: "torch.Tensor", timestep: float) -> "torch.Tensor":
    """The frequencies of a difference, as the paper weighs them at this timestep."""
    import torch

    high, wide = difference.shape[-2:]
    rows, columns = (torch.fft.fftfreq(n, 1 / n, device=difference.device) for n in (high, wide))
    is_low = rows[:, None] ** 2 + columns**2 <= (min(high, wide) // LOW_SHARE) ** 2
    low, other = (STRONGER if first < timestep < last else 1.0 for first, last in (LOW_AT, HIGH_AT))
    return difference * torch.where(is_low, low, other)


def why_not(target: Target) -> str | None:
    traits, scale = target.pipeline.known, target.workload.guidance_scale
    if traits.guided_above is None:
        return traits.guidance_fault or f"{traits.class_name} never runs its denoiser without the prompt"
    if not traits.guidance_doubles:
        return f"{traits.class_name} is not seen to guide by a batch of double size"
    if scale is None or scale <= traits.guided_above:
        return f"the workload is not guided: its guidance scale is {'unknown' if scale is None else f'{scale:g}'}"
    return None


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    denoiser = parts.denoiser(pipe)
    denoiser.halves = Halves(pipe, int(number))
    denoiser.cache_note = " (the half of the batch without the prompt)"
    return Effect(count=len(parts.denoisers(pipe)), what=f"models on a whole batch in one later step of {number}")


def script(number: str, config: Config, target: Target) -> Script:
    return Script(why_not="the batch of later steps is halved by autotune's own wrapper of the denoiser")


METHOD = Method(
    name="cfg_cache",
    numbers=("3", "5"),
    between=(2, 8),
    accepts=integer(2),
    steps=3,
    why_not=why_not,
    clash=_hooked.clash,
    apply=apply,
    script=script,
)
