"""Reuse: the work that a trial may skip because an earlier trial did it, and when it may stop early.

The parent fills a Reuse from the study's trials (study/reuse_plan.py) and writes it into the job. The child decides by
it what to skip, from what it measures (measure/reuse.py). There are four savings:

source       An earlier trial that should draw the same pictures. The child draws one picture and compares it (a
             SpotCheck). If it is the same, the trial takes over the quality of the source.
compiler     An earlier trial that compiled the same graphs. The child runs its compiled code, and the trial takes over
             what compiling cost there.
incumbents   Earlier trials that lose no quality. A config that is slower and larger than one of them, beyond the noise,
             can't reach the Pareto front: the child draws no pictures of it (statistics/dominance.py).
precision    A latency need not be known better than two processes of one config agree.
"""

from pydantic import Field

from autotune.config import Value
from autotune.frozen_model import FrozenModel, renamed

MAX_ERROR = 0.02  # the standard error of a latency, as a share, however much processes differ

ONE_LEVEL = 1  # of 255: rounded to 8 bits, pictures whose pixels differ by less than a level may differ by one
# Limits whatever the rounding is: cache-dit (github.com/vipshop/cache-dit) asks this of pictures that stay the same.
MIN_PSNR_DB = 30.0
MIN_SSIM = 0.90


class SourceTrial(FrozenModel):
    """An earlier trial whose pictures should be those of this config.

    trial        its number
    prompt       the index of the prompt whose picture is compared
    suspects     the knobs in which the two configs differ, with this config's values
    min_psnr_db  how far apart rounding may put the two pictures; None: no trial shows it
    conclusive   do the limits say enough to blame a knob?
    images       the folder of its pictures
    """

    trial: int
    prompt: int
    suspects: dict[str, Value]
    min_psnr_db: float | None = renamed("min_psnr_db", "least_psnr_db")
    conclusive: bool = renamed("conclusive", "can_tell")
    images: str = ""


class Incumbent(FrozenModel):
    """An earlier trial that loses no quality.

    latencies_s  seconds of a call, as the device would take now: one value for each objective that is a latency
    error        the standard error of the median latency, as a share
    """

    trial: int
    latencies_s: tuple[float, ...]
    error: float
    peak_memory_bytes: int


class Reuse(FrozenModel):
    """What a trial may skip. The default skips nothing.

    compiler     the number of the trial whose compiled code is run
    spread       the standard deviation, as a share, of one config's latency from process to process
    same_memory  two peaks that differ by no more than this share are the same
    each         is the latency at each size an objective of its own, or their sum?
    """

    source: SourceTrial | None = renamed("source", "giver", default=None)
    compiler: int | None = None
    incumbents: tuple[Incumbent, ...] = renamed("incumbents", "rivals", default=())
    spread: float = Field(default=0.0, ge=0)
    same_memory: float = 0.0
    each: bool = False

    @property
    def precision(self) -> float:
        """The standard error of a latency, as a share, that is good enough.

        It is half the spread between processes, which widens the total error by an eighth.
        """
        return min(self.spread / 2, MAX_ERROR)


class SpotCheck(FrozenModel):
    """One picture of a config, compared with the same prompt's picture of the source trial.

    Of a call that draws several pictures, the figures are those of the pair that is least alike.

    trial           the number of the source trial
    ssim            0 to 1, where 1 is the same
    psnr_db         None: the two are the same bit for bit
    largest_levels  the largest difference of any pixel, in levels of 255
    """

    trial: int
    prompt: int
    suspects: dict[str, Value] = Field(default_factory=dict)
    ssim: float
    psnr_db: float | None
    largest_levels: int
    min_psnr_db: float | None = renamed("min_psnr_db", "least_psnr_db", default=None)
    conclusive: bool = renamed("conclusive", "can_tell", default=True)

    @property
    def same(self) -> bool:
        """Does no pixel differ by more than a level, or do all differ by no more than rounding explains?"""
        if self.psnr_db is None or self.largest_levels <= ONE_LEVEL:
            return True
        return self.min_psnr_db is not None and self.psnr_db >= self.min_psnr_db and self.ssim >= MIN_SSIM

    @property
    def mismatch(self) -> str | None:
        """A sentence that blames a knob which should not change the picture and did; None: there is none to blame.

        "compile=denoiser changed the picture here: SSIM 0.910, PSNR 24.1 dB to trial 3's"
        """
        if self.same or not self.conclusive:
            return None
        names = [f"{name}={value}" for name, value in self.suspects.items()]
        which = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
        return (
            f"{which} changed the picture here: SSIM {self.ssim:.3f}, PSNR {self.psnr_db:.1f} dB to trial "
            f"{self.trial}'s"
        )
