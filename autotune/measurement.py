"""Measurement: what one config cost and gave on one device. Raw samples are kept, everything else is derived."""

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, renamed
from autotune.isolation import Isolation
from autotune.knob import Effect
from autotune.reuse import SpotCheck
from autotune.workload import Shape

# Interquartile range over the median from where torch.utils.benchmark warns of "system fluctuation", and of
# "significant environmental influence" (torch/utils/benchmark/utils/common.py).
NOISY = 0.10
REJECTED = 0.25


class Quality(FrozenModel):
    """How good the pictures of a trial are, one number a prompt, judged against the baseline's of the same seeds."""

    metric: Literal["clip", "likeness"]
    scorer: str | None  # the CLIP model, its revision, the digest of its weights; None: only likeness can be judged
    clip_scores: tuple[float, ...] = ()  # 100 x cosine(picture, prompt)
    ssim: tuple[float, ...]  # to the baseline's picture; 1 is the same
    psnr_db: tuple[float | None, ...]  # None: bit for bit the same picture
    lpips: tuple[float, ...] = ()  # 0 is the same; empty where its weights are not on the disk

    @property
    def ssim_mean(self) -> float:
        return statistics.fmean(self.ssim)

    @property
    def ssim_worst(self) -> float:
        return min(self.ssim)

    @property
    def psnr_worst_db(self) -> float | None:
        """None where every picture is bit for bit the baseline's."""
        return min((p for p in self.psnr_db if p is not None), default=None)

    @property
    def psnr_mean_db(self) -> float | None:
        """Of the pictures that differ from the baseline's at all; None where none does."""
        different = [p for p in self.psnr_db if p is not None]
        return statistics.fmean(different) if different else None

    @property
    def lpips_mean(self) -> float | None:
        return statistics.fmean(self.lpips) if self.lpips else None

    @property
    def lpips_worst(self) -> float | None:
        return max(self.lpips, default=None)

    def drops(self, baseline: "Quality") -> tuple[float, ...]:
        """What each prompt lost: CLIP points, or 100 x (1 - SSIM) where only likeness can be judged.

        Raises UserError where the two were judged by different scorers: their scores must not be compared.
        """
        if (self.metric, self.scorer) != (baseline.metric, baseline.scorer):
            raise UserError(
                f"pictures judged by {self.scorer or self.metric} can't be compared with pictures judged by "
                f"{baseline.scorer or baseline.metric}: begin another study."
            )
        if self.metric == "likeness":
            return tuple(100 * (1 - s) for s in self.ssim)
        return tuple(b - c for b, c in zip(baseline.clip_scores, self.clip_scores, strict=True))

    def loss(self, baseline: "Quality") -> float:
        """The objective: the mean paired drop, never below 0: a config can't win by drifting above the baseline."""
        return max(0.0, statistics.fmean(self.drops(baseline)))


class Compilation(FrozenModel):
    """What torch.compile did, all calls together."""

    graphs: int
    graph_breaks: int
    recompilations: int  # graphs beyond the first of a function
    fallbacks: int  # functions that were given up and run uncompiled
    seconds: float
    uncached: int | None = None  # graphs that no cache had the code of; None: not known


class Discarded(FrozenModel):
    """A timed call that was taken again, because the device was not at itself."""

    latency_s: float
    why: Literal["throttled", "contended"]
    reason: str


class Health(FrozenModel):
    """The device while the kept calls were timed. None: it doesn't tell, or it is of the other kind of device."""

    load_average: float | None = None  # of the last minute
    others_cpu_share: float | None = None  # CPU: of the usable cores' time, what others had (steal among it)
    sm_clock_mhz: float | None = None  # mean
    sm_clock_max_mhz: float | None = None  # the card's highest, as NVML knows it
    temperature_c: float | None = None  # highest
    power_w: float | None = None  # mean
    throttle_reasons: tuple[str, ...] = ()  # seen while timing; SwPowerCap is usual at full load
    others_memory_bytes: int | None = None  # other processes' on the GPU, highest
    not_told: tuple[str, ...] = ()  # NVML's questions that this device doesn't answer


class Phases(FrozenModel):
    """The parts of one call at the main size. None: the pipe has no such part, or too few steps."""

    text_encoding_s: float | None = None
    denoising_step_s: float | None = None  # median
    vae_decode_s: float | None = None


class Peaks(FrozenModel):
    """The most memory of a phase. `device_bytes` decides whether it fits; the others are torch's allocator's."""

    allocated_bytes: int | None = None  # tensors
    reserved_bytes: int | None = None  # what the allocator had taken from the device for them
    device_bytes: int  # a GPU: reserved, the CUDA context and libraries; a CPU: resident memory


class ShapeCost(FrozenModel):
    """What the same built pipe costs at another size of the workload."""

    shape: Shape
    first_call_s: float
    warmup_s: tuple[float, ...]
    latency_samples_s: tuple[float, ...]
    graphs_added: int  # compiled anew for this size

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latency_samples_s)

    @property
    def latency_spread(self) -> float:
        return spread(self.latency_samples_s)


class CompiledAs(FrozenModel):
    """What it would have cost to compile: as much as it has cost the trial that has compiled the same graphs."""

    trial: int
    first_calls_s: tuple[float, ...]  # at each size: what theirs took longer than their later ones, and one of its own
    compile_s: float


class Measurement(FrozenModel):
    """What a config costs and gives. Raw samples are kept, everything else is derived. Units are in the names.

    Latency is of one call, which makes `workload.batch` pictures. Memory of a GPU is what torch's allocator reserved
    at its peak plus the CUDA context; of a CPU, the process's peak resident memory above its state before loading.
    """

    load_s: float
    apply_s: float
    first_call_s: float  # compilation happens here, unless compiled_as
    warmup_s: tuple[float, ...]
    latency_samples_s: tuple[float, ...]
    load_peak_memory_bytes: int
    run_peak_memory_bytes: int  # after the first call; of compiled code, at least what it was where that was compiled
    peak_memory_bytes: int  # of everything, the first call included; likewise
    effects: dict[str, Effect]
    attention_kernels: dict[str, int]  # of the denoiser, as the profiler saw them: name -> how often in a short call
    quality: Quality | None = None
    also: tuple[ShapeCost, ...] = ()  # the workload's other sizes
    compilation: Compilation | None = None
    stopped_by: Literal["spread", "plateau", "precision", "budget", "race"] | None = None  # what ended the timing
    discarded: tuple[Discarded, ...] = ()  # at the main size
    health: Health | None = None
    phases: Phases | None = None
    peaks: dict[str, Peaks] = Field(default_factory=dict)  # of "load", "first" and "run"
    energy_per_picture_j: float | None = None  # indicative, see measure/watch_gpu.py
    start_s: float | None = None  # from the parent's wish for a process until the pipe was loaded in it
    isolation: Isolation | None = None  # how the process that measured it was started; None: by hand, or not known
    score_s: float | None = None  # judging its pictures, in a process of its own; None: not done, or not known
    spot_check: SpotCheck | None = renamed(
        "spot_check", "look", default=None
    )  # at one picture, whether it is an earlier trial's
    compiled_as: CompiledAs | None = None  # an earlier trial, whose compiled code it ran
    quality_of: int | None = None  # the trial whose pictures were judged in place of its own; None: its own were
    stopped: str | None = None  # why it was not worth drawing its pictures: then it has no quality

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """The median call at each size of the workload."""
        return (statistics.median(self.latency_samples_s), *(cost.latency_s for cost in self.also))

    @property
    def latency_s(self) -> float:
        """One call at each size of the workload: the sum of the medians."""
        return sum(self.latencies_s)

    @property
    def first_calls_s(self) -> tuple[float, ...]:
        """At each size of the workload, with all that there is to compile."""
        own = (self.first_call_s, *(cost.first_call_s for cost in self.also))
        return self.compiled_as.first_calls_s if self.compiled_as else own

    @property
    def compile_s(self) -> float | None:
        """What torch.compile took, all calls together; None: not asked for, or not known."""
        own = self.compilation.seconds if self.compilation else None
        return self.compiled_as.compile_s if self.compiled_as else own

    @property
    def latency_spread(self) -> float:
        """Interquartile range over the median, at the main size."""
        return spread(self.latency_samples_s)

    @property
    def is_noisy(self) -> bool:
        """Do the calls scatter so much, at any size, that the median is doubtful?"""
        return max(self.latency_spread, *(cost.latency_spread for cost in self.also), 0.0) > NOISY

    def seconds_per_picture(self, batch: int) -> float:
        """At the main size, whose calls make `batch` pictures each."""
        return self.latencies_s[0] / batch


def spread(samples_s: Sequence[float]) -> float:
    """Interquartile range over the median."""
    low, middle, high = statistics.quantiles(samples_s, n=4)
    return (high - low) / middle


class ChainCost(FrozenModel):
    """What a chain of pipes costs: one call of all of them, prompt in, the last one's pictures out."""

    first_call_s: float
    warmup_s: tuple[float, ...]
    latency_samples_s: tuple[float, ...]
    peak_memory_bytes: int

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latency_samples_s)
