"""Look: one picture of a config beside the same prompt's of an earlier trial, from which it should not differ.

A finding is what a look has found out: a knob that says it only computes otherwise draws another picture here.
"""

from pydantic import Field

from autotune.config import Value
from autotune.noun import Noun

ONE_LEVEL = 1  # of 255: rounded to 8 bits, pictures whose pixels differ by less than a level may differ by one
# Whatever rounding does: what cache-dit (github.com/vipshop/cache-dit) asks of every picture that is to stay the same.
LEAST_PSNR_DB = 30.0
LEAST_SSIM = 0.90


class Look(Noun):
    """How like the two pictures are; of a call that makes several, the two that are least alike.

    suspects       the knobs (and this config's values) that should change nothing, and do where the pictures differ
    least_psnr_db  what rounding otherwise may make of the picture; None: that is not known here
    """

    trial: int  # whose picture it was compared with
    prompt: int
    suspects: dict[str, Value] = Field(default_factory=dict)
    ssim: float
    psnr_db: float | None  # None: the same bit for bit
    largest_levels: int  # of 255, in any pixel
    least_psnr_db: float | None = None
    can_tell: bool = True  # do the limits say enough to blame a knob?

    @property
    def same(self) -> bool:
        """No pixel differs by more than a level, or all of them by no more than rounding makes."""
        if self.psnr_db is None or self.largest_levels <= ONE_LEVEL:
            return True
        return self.least_psnr_db is not None and self.psnr_db >= self.least_psnr_db and self.ssim >= LEAST_SSIM

    @property
    def finding(self) -> str | None:
        """ "compile=denoiser changed the picture here: SSIM 0.910, PSNR 24.1 dB to trial 3's"; None: nothing found."""
        if self.same or not self.can_tell:
            return None
        names = [f"{name}={value}" for name, value in self.suspects.items()]
        who = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
        return (
            f"{who} changed the picture here: SSIM {self.ssim:.3f}, PSNR {self.psnr_db:.1f} dB to trial {self.trial}'s"
        )
