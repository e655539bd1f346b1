"""Pictures -> verdicts. A config's picture is judged against that of its reference: the same config without the knobs
that say of themselves that they change nothing but how the picture is computed.

How far the two may lie apart is measured, for each reference and on this device. In plain float32 another order of the
same arithmetic moved the pictures 0.2 to 0.5 times as far as weights that are all off by a millionth (a hundred pairs
on a CPU); some schedulers of pixels amplify both a thousandfold. Coarser formats round, and another order rounds
otherwise: there both pictures lie off the exact one by about as much (0.9 to 1.1 times; up to 2.3 times where 1x1
convolutions as linear layers let quantization reach more of the weights).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.compat.plan import PLAIN, Check
from autotune.compat.record import Made, Verdict
from autotune.config import Config
from autotune.frozen_model import read_json

if TYPE_CHECKING:
    import numpy as np

EXACT = 1e-3  # the largest difference of a pixel, from 0 to 1, that always may be; a grey level is 4e-3
NUDGED = 4.0  # times what the nudge has moved the reference
ROUNDED = 3.0  # times what rounding has moved the reference itself, on average over its pixels


class Pictures:
    """What the children have made of the configs of one pipeline.

    exact  the folder with the plain config's picture without any rounding, where the plain config itself rounds (TF32)
    """

    def __init__(self, folder: Path, exact: Path | None = None) -> None:
        self.folder, self.exact = folder, exact or folder
        self._known: dict[Config, Made] = {}

    def made(self, config: Config) -> Made | None:
        """None: nobody has tried it yet."""
        path = self.folder / f"{config.digest}.json"
        if config not in self._known and path.exists():
            self._known[config] = Made.parse(read_json(path, "outcome"), str(path))
        return self._known.get(config)

    def missing(self, check: Check) -> list[Config]:
        return [config for config in check.needs if self.made(config) is None]

    def distance(self, one: Config, other: Config) -> tuple[float, float]:
        """The largest difference of any pixel, and the mean one of the picture that differs most."""
        return _distance(_pixels(self.folder, one), _pixels(self.folder, other))

    def rounding(self, config: Config) -> tuple[float, float]:
        """As `distance`, from the exact picture."""
        return _distance(_pixels(self.folder, config), _pixels(self.exact, PLAIN))


def _pixels(folder: Path, config: Config) -> "np.ndarray[Any, Any]":
    import numpy as np

    pixels: np.ndarray[Any, Any] = np.load(folder / f"{config.digest}.npy")
    return pixels


def _distance(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> tuple[float, float]:
    apart = abs(one - other)
    return float(apart.max()), float(apart.mean(axis=(1, 2, 3)).max())


def judge(check: Check, pictures: Pictures) -> Verdict:
    """The verdict on a check whose pictures are all there."""
    outcomes: Mapping[Config, Made] = {c: made for c in check.needs if (made := pictures.made(c)) is not None}
    made, seconds = outcomes[check.config], round(outcomes[check.config].seconds, 1)
    if made.failure:
        return Verdict(outcome="failed", cause=made.failure.cause, reason=made.failure.reason)
    bad = next((outcome.failure for outcome in outcomes.values() if outcome.failure), None)
    if bad:
        return Verdict(outcome="failed", cause=bad.cause, reason=f"what it is compared with fails: {bad.reason}")
    apart = None if check.reference == check.config else pictures.distance(check.config, check.reference)
    difference = None if apart is None else float(f"{apart[0]:.0e}")
    fault = _fault(check, pictures, made, apart)
    if fault:
        cause, reason = fault
        return Verdict(outcome="failed", cause=cause, reason=reason, difference=difference, seconds=seconds)  # type: ignore[arg-type]
    return Verdict(outcome="fine", difference=difference, seconds=seconds)


def _fault(check: Check, pictures: Pictures, made: Made, apart: tuple[float, float] | None) -> tuple[str, str] | None:
    """(cause, sentence) of what is wrong with a config that has made pictures."""
    if made.given_up:
        return "unsupported", f"torch.compile gave up {made.given_up} functions, which run uncompiled"
    if made.repeat_difference > EXACT:
        return "broken_output", f"the same call again gives other pictures, by up to {made.repeat_difference:.2g}"
    for name, rest in check.without.items():
        if pictures.distance(check.config, rest)[0] == 0:
            return "no_effect", f"{name} changes nothing here"
    return None if apart is None else _too_far(check, pictures, made, apart)


def _too_far(check: Check, pictures: Pictures, made: Made, apart: tuple[float, float]) -> tuple[str, str] | None:
    reference = pictures.made(check.reference)
    assert reference is not None, "judged before its pictures were there"
    largest, mean = apart
    if made.rounded or reference.rounded:
        off, limit, how = mean, ROUNDED * pictures.rounding(check.reference)[1], "on average"
    else:
        moved = max(NUDGED * reference.nudge_difference, ROUNDED * pictures.rounding(PLAIN)[0])
        off, limit, how = largest, moved, "in a pixel"
    if off <= max(EXACT, limit):
        return None
    return "differs", f"the picture is {off:.2g} {how} off its reference's, {max(EXACT, limit):.2g} may be"
