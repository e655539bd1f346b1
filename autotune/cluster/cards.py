"""Cards: what a search knows of each card that it uses: when its baseline is due, and whether it is off."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotune.measurement import Measurement
from autotune.statistics.drift import ANCHOR_EVERY, process_spread, slowdowns
from autotune.trial import Anchor, Trial

SURE = 1.96 * math.sqrt(2)  # spreads between two single processes that differ by chance in one case of twenty


@dataclass
class Card:
    """One card, in a placement group of its own.

    name      "HOST/gpu-N", N counted by host in the order in which they came
    since     trials given to it since its last run of the baseline; None: it has not run the baseline
    busy      it has an order
    refused   why it takes part no more, as a clause; None: it does
    is_here   its node lives
    """

    index: int
    name: str
    host: str
    since: int | None = None
    busy: bool = False
    refused: str | None = None
    is_here: bool = True
    told: bool = False  # that it is off

    @property
    def is_free(self) -> bool:
        return self.is_here and not self.busy and self.refused is None

    @property
    def needs_baseline(self) -> bool:
        return self.since is None or self.since >= ANCHOR_EVERY


def slowdown(card: str, baseline: Trial, anchors: Sequence[Anchor]) -> float | None:
    """The log of how many times slower than trial 0's card this one was last; None: it was not measured."""
    own = slowdowns(baseline, (anchor for anchor in anchors if anchor.card == card))
    return own[-1][1] if own else 0.0 if card == baseline.card else None


def off(card: str, others: Iterable[str], baseline: Trial, anchors: Sequence[Anchor]) -> float | None:
    """By which share the card is slower (above 0) than the median of the others, where it differs beyond the noise.

    None: it does not, or there is nothing to compare with.
    """
    own = slowdown(card, baseline, anchors)
    known = [found for other in others if (found := slowdown(other, baseline, anchors)) is not None]
    if own is None or not known:
        return None
    by = own - statistics.median(known)
    return math.expm1(by) if abs(by) > SURE * process_spread(baseline, anchors) else None


def off_words(share: float, own: Measurement | None, other: Measurement | None) -> str:
    """ "is 6 % slower than the other cards: hotter by 14 °C"."""
    said = f"is {abs(share):.0%} {'slower' if share > 0 else 'faster'} than the other cards"
    here, there = (run.health.temperature_c if run and run.health else None for run in (own, other))
    if here is None or there is None or abs(here - there) < 1:
        return said
    return f"{said}: {'hotter' if here > there else 'cooler'} by {abs(here - there):.0f} °C"
