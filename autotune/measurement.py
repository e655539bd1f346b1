"""Measurement: latency, memory and quality of one config on one device. Raw samples are stored, the rest is derived.

Units are in the names: `_s` seconds, `_bytes`, `_db` decibels, `_j` joules.
"""

import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, renamed
from autotune.isolation import Isolation
from autotune.knob import Effect
from autotune.reuse import SpotCheck
from autotune.target import Calibrations
from autotune.workload import Shape

# Limits of `spread`: torch.utils.benchmark warns of "system fluctuation" above the first, and of "significant
# environmental influence" above the second (torch/utils/benchmark/utils/common.py).
NOISY = 0.10
REJECTED = 0.25
LAUNCH_BOUND = 0.8  # a GPU that works for less than this share of a step waits for the host: our choice


# Figures that no run can have are refused where a file is read: a hand-edited or damaged one would win every search.
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Samples = Annotated[tuple[Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)], ...], Field(min_length=2)]
Bytes = Annotated[int, Field(ge=0, le=2**50)]


class Quality(FrozenModel):
    """How good the pictures of a trial are, against the baseline's pictures of the same seeds. One number per prompt.

    metric       what the quality loss is computed from: CLIP scores, or "likeness" (SSIM) where no CLIP model is given
    scorer       the CLIP model, its revision and the digest of its weights; None: no CLIP model
    clip_scores  100 x the cosine of picture and prompt; None: the CLIP model can't read so long a prompt
    ssim         to the baseline's picture; 1 is the same
    psnr_db      to the baseline's picture; None: the same bit for bit
    lpips        to the baseline's picture; 0 is the same; empty where the weights of LPIPS are not on the disk
    worst_*_levels
                 the mean difference to the baseline's picture in the worst cell of 16 x 16 pixels, row or column of
                 pixels, in levels of 0 to 255; empty: a study of an earlier version
    worst_frame_ssim, temporal_levels, motion_levels
                 of clips: SSIM of the frame that is least like the baseline's; the mean difference of the changes from
                 frame to frame to those of the baseline's clip; the mean of these changes, both in levels of 0 to 255

    Of a clip, `ssim`, `psnr_db` and the worst places are of all frames (mean, of the mean squared error, the worst),
    CLIP scores and LPIPS the mean of frames that are spread over it.
    """

    metric: Literal["clip", "likeness"]
    scorer: str | None
    clip_scores: tuple[Annotated[float, Field(ge=-101, le=101, allow_inf_nan=False)] | None, ...] = ()
    ssim: Annotated[tuple[Annotated[float, Field(ge=-1.01, le=1.01, allow_inf_nan=False)], ...], Field(min_length=1)]
    psnr_db: tuple[float | None, ...]
    lpips: tuple[float, ...] = ()
    worst_cell_levels: tuple[float, ...] = ()
    worst_row_levels: tuple[float, ...] = ()
    worst_column_levels: tuple[float, ...] = ()
    worst_frame_ssim: tuple[float, ...] = ()
    temporal_levels: tuple[float, ...] = ()
    motion_levels: tuple[float, ...] = ()

    @property
    def temporal_mean_levels(self) -> float | None:
        """The mean difference of the changes from frame to frame to the baseline's; None: these are pictures."""
        return statistics.fmean(self.temporal_levels) if self.temporal_levels else None

    @property
    def worst_place_levels(self) -> float | None:
        """The difference at the worst place of all pictures; None: not known."""
        return max((*self.worst_cell_levels, *self.worst_row_levels, *self.worst_column_levels), default=None)

    @property
    def ssim_mean(self) -> float:
        return statistics.fmean(self.ssim)

    @property
    def ssim_worst(self) -> float:
        return min(self.ssim)

    @property
    def psnr_worst_db(self) -> float | None:
        """None: every picture is the baseline's, bit for bit."""
        return min((p for p in self.psnr_db if p is not None), default=None)

    @property
    def psnr_mean_db(self) -> float | None:
        """The mean over the pictures that differ from the baseline's; None: no picture differs."""
        different = [p for p in self.psnr_db if p is not None]
        return statistics.fmean(different) if different else None

    @property
    def lpips_mean(self) -> float | None:
        return statistics.fmean(self.lpips) if self.lpips else None

    @property
    def lpips_worst(self) -> float | None:
        return max(self.lpips, default=None)

    def drops(self, baseline: "Quality") -> tuple[float, ...]:
        """The quality loss of each scored prompt: CLIP points, or 100 x (1 - SSIM) where the metric is likeness.

        Raises UserError where the two were scored by different models, whose scores can't be compared.
        """
        if (self.metric, self.scorer) != (baseline.metric, baseline.scorer):
            raise UserError(
                f"pictures judged by {self.scorer or self.metric} can't be compared with pictures judged by "
                f"{baseline.scorer or baseline.metric}: begin another study."
            )
        if self.metric == "likeness":
            return tuple(100 * (1 - s) for s in self.ssim)
        pairs = zip(baseline.clip_scores, self.clip_scores, strict=True)
        return tuple(b - c for b, c in pairs if b is not None and c is not None)

    def loss(self, baseline: "Quality") -> float:
        """The objective: the mean paired drop, at least 0, so that a config can't win by scoring above the baseline."""
        return max(0.0, statistics.fmean(self.drops(baseline)))


class Compilation(FrozenModel):
    """What torch.compile did during all calls of a measurement."""

    graphs: int
    graph_breaks: int
    recompilations: int  # graphs of a function after its first one
    fallbacks: int  # functions that torch could not compile and runs uncompiled
    seconds: float
    uncached: int | None = None  # graphs whose code was in no cache; None: not known
    cuda_graphs: int = 0  # captured
    cuda_graph_skips: int = 0  # graphs that run without a CUDA graph although the mode asks for one


class Discarded(FrozenModel):
    """A timed call that was discarded and repeated: the device was throttled or used by others, or calls scattered."""

    latency_s: float
    why: Literal["throttled", "contended", "noisy"]
    reason: str


class Health(FrozenModel):
    """The state of the device while the calls that count were timed. None: not known on this device."""

    load_average: float | None = None  # of the last minute
    others_cpu_share: float | None = None  # the share of the cores' time that went to others, with steal time
    waited_share: float | None = None  # GPU: of the calls' time, the host's thread that launches waited for a core
    sm_clock_mhz: float | None = None  # mean
    sm_clock_max_mhz: float | None = None  # the highest that NVML gives for this card
    temperature_c: float | None = None  # maximum
    power_w: float | None = None  # mean
    throttle_reasons: tuple[str, ...] = ()  # seen during the calls; SwPowerCap is usual at full load
    slowed_steadily: bool = False  # the GPU was slowed down in the same way in all calls: its steady state at this load
    others_memory_bytes: int | None = None  # GPU memory of other processes, maximum
    others_utilisation: float | None = None  # of the busiest other process on the GPU, per cent, mean
    not_told: tuple[str, ...] = ()  # what the watch could not see: NVML's questions without an answer, or in words


class Phases(FrozenModel):
    """The time of the parts of one call at the main size. None: the pipe has no such part, or too few steps."""

    text_encoding_s: float | None = None
    denoising_step_s: float | None = None  # median
    vae_encode_s: float | None = None
    vae_decode_s: float | None = None
    early_step_s: float | None = None  # mean of the 2nd and 3rd step
    early_step_device_s: float | None = None  # in which the GPU worked in such a step, by the profiler; None: no GPU

    @property
    def launch_bound(self) -> bool | None:
        """Does the GPU wait for the host, which can't launch its work fast enough? None: not known, or no GPU."""
        if self.early_step_s is None or self.early_step_device_s is None:
            return None
        return self.early_step_device_s < LAUNCH_BOUND * self.early_step_s


class Peaks(FrozenModel):
    """The peak memory of one phase: loading, the first call, later calls ("run"), and the parts of the latter.

    `device_bytes` decides whether it fits. In the parts of a call it includes what torch's allocator keeps of the parts
    before, so `allocated_bytes` tells which part needs how much.
    """

    allocated_bytes: int | None = None  # of torch's allocator: tensors
    reserved_bytes: int | None = None  # of torch's allocator: memory that it took from the device
    device_bytes: int  # GPU: reserved, plus the CUDA context and libraries; CPU: resident memory


class HostMemory(FrozenModel):
    """What one process took of the machine's memory, in bytes.

    peak_resident_bytes  the largest resident memory (the kernel's VmHWM), the libraries' code included
    peak_pinned_bytes    the largest page-locked memory of torch's allocator for transfers to a GPU, which resident
                         memory leaves out where the driver has allocated it; None: no GPU was used
    cgroup_limit_bytes   what the container or the service may take; None: no limit
    """

    peak_resident_bytes: int
    peak_pinned_bytes: int | None = None
    cgroup_limit_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        return self.peak_resident_bytes + (self.peak_pinned_bytes or 0)


class ShapeCost(FrozenModel):
    """The latency of the same pipe at another size of the workload."""

    shape: Shape
    first_call_s: Seconds
    warmup_s: tuple[float, ...]
    latency_samples_s: Samples
    graphs_added: int  # compiled for this size

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latency_samples_s)

    @property
    def latency_spread(self) -> float:
        return spread(self.latency_samples_s)


class CompiledAs(FrozenModel):
    """The cost of compiling, taken from the trial that compiled the same graphs and whose code this one ran."""

    trial: int
    first_calls_s: tuple[float, ...]  # at each size: that trial's time to compile, plus a call of this trial
    compile_s: float


class Measurement(FrozenModel):
    """What one config costs and what its pictures are worth.

    Latency is of one call, which makes `workload.batch` pictures. GPU memory is the peak that torch's allocator
    reserved, plus the CUDA context. CPU memory is the peak resident memory of the process, less that before loading.
    """

    load_s: Seconds
    apply_s: Seconds
    first_call_s: Seconds  # with compilation, unless compiled_as is set
    warmup_s: tuple[float, ...]
    latency_samples_s: Samples
    load_peak_memory_bytes: Bytes
    run_peak_memory_bytes: Bytes  # after the first call; with compiled_as, at least that of the trial that compiled
    peak_memory_bytes: Bytes  # of loading and all calls; with compiled_as, at least that of the trial that compiled
    effects: dict[str, Effect]
    calibrations: Calibrations = Field(default_factory=dict)  # measured, or taken over, before the first call
    attention_kernels: dict[str, int]  # of the denoiser: name -> launches in the first steps; empty: none was seen
    quality: Quality | None = None
    also: tuple[ShapeCost, ...] = ()  # the workload's other sizes
    compilation: Compilation | None = None
    stopped_by: Literal["spread", "plateau", "precision", "budget", "race"] | None = None  # what ended the timed calls
    discarded: tuple[Discarded, ...] = ()  # at the main size
    health: Health | None = None
    phases: Phases | None = None
    peaks: dict[str, Peaks] = Field(default_factory=dict)  # "load", "first", "run" and its parts -> their peaks
    host: HostMemory | None = None  # of the machine's memory; None: not known, or an earlier version
    energy_per_picture_j: float | None = None  # a rough figure, see measure/watch_gpu.py
    start_s: float | None = None  # from the parent's request for a process until it began to load the pipe
    isolation: Isolation | None = None  # how the process was started; None: by hand, or not known
    score_s: float | None = None  # scoring the pictures, in a process of its own; None: not done, or not known
    # One picture, compared with that of the source trial
    spot_check: SpotCheck | None = renamed("spot_check", "look", default=None)
    compiled_as: CompiledAs | None = None  # set where it ran the compiled code of an earlier trial
    quality_of: int | None = None  # the source trial, whose quality it took over; None: its own pictures were scored
    stopped: str | None = None  # why the trial was stopped before its pictures were drawn; then it has no quality

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """The median latency of a call at each size of the workload, the main size first."""
        return (statistics.median(self.latency_samples_s), *(cost.latency_s for cost in self.also))

    @property
    def latency_s(self) -> float:
        """The sum of the median latencies over the sizes of the workload."""
        return sum(self.latencies_s)

    @property
    def first_calls_s(self) -> tuple[float, ...]:
        """The first call at each size of the workload, with the time to compile."""
        own = (self.first_call_s, *(cost.first_call_s for cost in self.also))
        return self.compiled_as.first_calls_s if self.compiled_as else own

    @property
    def compile_s(self) -> float | None:
        """Seconds that torch.compile took during all calls; None: nothing was compiled, or not known."""
        own = self.compilation.seconds if self.compilation else None
        return self.compiled_as.compile_s if self.compiled_as else own

    @property
    def latency_spread(self) -> float:
        """`spread` of the timed calls at the main size."""
        return spread(self.latency_samples_s)

    @property
    def is_noisy(self) -> bool:
        """Is the spread of the timed calls above NOISY at any size? The median is then doubtful."""
        return max(self.latency_spread, *(cost.latency_spread for cost in self.also), 0.0) > NOISY

    def seconds_per_picture(self, batch: int) -> float:
        """The latency per picture at the main size, where each call makes `batch` pictures."""
        return self.latencies_s[0] / batch


def spread(samples_s: Sequence[float]) -> float:
    """The interquartile range over the median, of at least 2 samples."""
    low, middle, high = statistics.quantiles(samples_s, n=4)
    return (high - low) / middle


class ChainCost(FrozenModel):
    """What a chain of pipes costs. A call goes from the prompt to the last pipe's pictures."""

    first_call_s: float
    warmup_s: tuple[float, ...]
    latency_samples_s: tuple[float, ...]
    peak_memory_bytes: int

    @property
    def latency_s(self) -> float:
        return statistics.median(self.latency_samples_s)
