"""judge(): the verdict on a check, from its pictures.

The picture of a config is compared with that of its reference: the same config without the knobs that say that they
don't change the picture (`changes_output`).

How far the two may differ is measured for each reference on the device. In plain float32, another order of the same
arithmetic changed the pictures 0.2 to 0.5 times as much as a relative change of all weights by 1e-6, the "nudge" (a
hundred pairs on a CPU). Some schedulers in pixel space amplify both a thousandfold. Coarser formats round differently
in another order. There both pictures differ from the exact one by about the same amount (0.9 to 1.1 times; up to 2.3
times where 1x1 convolutions as linear layers let quantization reach more of the weights).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.compat.plan import PLAIN, Check
from autotune.compat.record import Made, Verdict
from autotune.config import Config
from autotune.frozen_model import read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXACT = 1e-3  # the difference of a pixel, from 0 to 1, that is always allowed; a grey level is 4e-3
NUDGED = 4.0  # the allowed difference, as a multiple of the change by the nudge
ROUNDED = 3.0  # the allowed difference, as a multiple of the change by rounding, on average over the pixels


class Pictures:
    """The pictures that the child processes have drawn of the configs of one pipeline.

    folder  for each config DIGEST.json and, where it worked, DIGEST.npy
    exact   the folder with the plain config's picture without rounding, where the plain config itself rounds (TF32)
    """

    def __init__(self, folder: Path, exact: Path | None = None) -> None:
        self.folder, self.exact = folder, exact or folder
        self._known: dict[Config, Made] = {}

    def made(self, config: Config) -> Made | None:
        """The outcome of a config; None: it was not tried yet."""
        path = self.folder / f"{config.digest}.json"
        if config not in self._known and path.exists():
            self._known[config] = Made.parse(read_json(path, "outcome"), str(path))
        return self._known.get(config)

    def missing(self, check: Check) -> list[Config]:
        """The configs that the check needs and that were not tried yet."""
        return [config for config in check.needs if self.made(config) is None]

    def distance(self, one: Config, other: Config) -> tuple[float, float]:
        """(the largest difference of any pixel, the mean difference of the picture that differs most), from 0 to 1."""
        return _distance(_pixels(self.folder, one), _pixels(self.folder, other))

    def rounding(self, config: Config) -> tuple[float, float]:
        """The distance between the picture of a config and the exact picture."""
        return _distance(_pixels(self.folder, config), _pixels(self.exact, PLAIN))


def _pixels(folder: Path, config: Config) -> "NDArray[np.float32]":
    """The pictures of a config, from 0 to 1: pictures x height x width x 3."""
    import numpy as np

    pixels: NDArray[np.float32] = np.load(folder / f"{config.digest}.npy")
    return pixels


def _distance(first: "NDArray[np.float32]", second: "NDArray[np.float32]") -> tuple[float, float]:
    difference = abs(first - second)
    return float(difference.max()), float(difference.mean(axis=(1, 2, 3)).max())


def judge(check: Check, pictures: Pictures) -> Verdict:
    """The verdict on a check. All configs that it needs must have been tried."""
    outcomes: Mapping[Config, Made] = {c: made for c in check.needs if (made := pictures.made(c)) is not None}
    made, seconds = outcomes[check.config], round(outcomes[check.config].seconds, 1)
    if made.failure:
        return Verdict(outcome="failed", cause=made.failure.cause, reason=made.failure.reason)
    failure = next((outcome.failure for outcome in outcomes.values() if outcome.failure), None)
    if failure:
        return Verdict(outcome="failed", cause=failure.cause, reason=f"its reference fails: {failure.reason}")
    apart = None if check.reference == check.config else pictures.distance(check.config, check.reference)
    difference = None if apart is None else float(f"{apart[0]:.0e}")
    fault = _fault(check, pictures, made, apart)
    if fault:
        cause, reason = fault
        return Verdict(outcome="failed", cause=cause, reason=reason, difference=difference, seconds=seconds)  # type: ignore[arg-type]
    return Verdict(outcome="fine", difference=difference, seconds=seconds)


def _fault(check: Check, pictures: Pictures, made: Made, apart: tuple[float, float] | None) -> tuple[str, str] | None:
    """(cause, sentence) where the pictures of a config are wrong.

    apart  the distance from the reference's pictures; None: the config is its own reference
    """
    if made.given_up:
        return "unsupported", f"torch.compile gave up on {made.given_up} functions, which run uncompiled"
    if made.repeat_difference > EXACT and made.unordered is None:
        return "broken_output", f"a repeated call differs by up to {made.repeat_difference:.2g} in a pixel"
    for name, rest in check.without.items():
        changes = pictures.distance(check.config, rest)[0]
        if changes == 0:
            return "no_effect", f"{name} changes nothing here"
        if made.repeat_difference > max(EXACT, changes):
            return "broken_output", (
                f"a repeated call differs by up to {made.repeat_difference:.2g} in a pixel, as {made.unordered} adds "
                f"in any order; {name} changes {changes:.2g}"
            )
    return None if apart is None else _too_far(check, pictures, made, apart)


def _too_far(check: Check, pictures: Pictures, made: Made, apart: tuple[float, float]) -> tuple[str, str] | None:
    """(cause, sentence) where the pictures differ more from the reference's than is allowed."""
    reference = pictures.made(check.reference)
    assert reference is not None, "the reference was not tried yet"
    largest, mean = apart
    if made.rounded or reference.rounded:
        off, limit, how = mean, ROUNDED * pictures.rounding(check.reference)[1], "on average"
    else:
        moved = max(NUDGED * reference.nudge_difference, ROUNDED * pictures.rounding(PLAIN)[0])
        off, limit, how = largest, moved, "in a pixel"
    # Where the device adds in any order, neither picture is nearer to the other than to its own repetition.
    limit = max(limit, made.repeat_difference, reference.repeat_difference)
    if off <= max(EXACT, limit):
        return None
    return "differs", f"the picture differs by {off:.2g} {how} from its reference's, {max(EXACT, limit):.2g} is allowed"
