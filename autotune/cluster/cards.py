"""Cards: what a search knows of each card that it uses: when its baseline is due, and whether it is off."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autotune.cluster.order import Result
from autotune.device import UsedCard
from autotune.measurement import Measurement
from autotune.statistics.drift import ANCHOR_EVERY, process_spread, slowdowns
from autotune.trial import Anchor, Trial

SURE = 1.96 * math.sqrt(2)  # spreads between two single processes that differ by chance in one case of twenty
NO_CARD_S = 300.0  # the longest wait for a card while none is there


@dataclass
class Card:
    """One card, in a placement group of its own.

    name      "HOST/gpu-N", N counted by host in the order in which they came
    since     trials given to it since its last run of the baseline; None: it has not run the baseline
    busy      it has an order
    refused   why it takes part no more, as a clause; None: it does
    is_here   its node lives
    uuid      of the GPU, once it has run something; None: not known, or a processor
    off       by which share it is slower (above 0) or faster than the others, beyond the noise; None: it is not
    fetched   a run has found there all that it loads
    lost      orders that were lost on it, one after the other, while its node lived
    """

    index: int
    name: str
    host: str
    since: int | None = None
    busy: bool = False
    refused: str | None = None
    is_here: bool = True
    off: float | None = None
    lost: int = 0
    uuid: str | None = None
    fetched: bool = False

    @property
    def used(self) -> UsedCard:
        return UsedCard(name=self.name, uuid=self.uuid)

    def heard(self, result: Result) -> None:
        """A run on it has ended."""
        self.uuid = result.device.uuid if result.device else self.uuid
        self.fetched = self.fetched or result.outcome is not None

    def is_one_of(self, used: Iterable[UsedCard]) -> bool:
        """Has it made runs of these? Of a GPU, the name may be another one's of its host when a search goes on."""
        return any(self.name == card.name if card.uuid is None else self.uuid == card.uuid for card in used)

    @property
    def is_free(self) -> bool:
        return self.takes_part and not self.busy

    @property
    def takes_part(self) -> bool:
        return self.is_here and self.refused is None

    @property
    def needs_baseline(self) -> bool:
        return self.since is None or self.since >= ANCHOR_EVERY


def slowdown(card: str, baseline: Trial, anchors: Sequence[Anchor]) -> float | None:
    """The log of how many times slower than trial 0's card this one was last; None: it was not measured."""
    own = slowdowns(baseline, (anchor for anchor in anchors if anchor.card == card))
    return own[-1][1] if own else 0.0 if card == baseline.card else None


def off(card: str, others: Iterable[str], baseline: Trial, anchors: Sequence[Anchor]) -> float | None:
    """By which share the card is slower (above 0) than the median of the others, where it differs beyond the noise.

    None: it does not, or there is nothing to compare with. The noise counts from the middle of all cards, and of two
    from the faster one: a single slow card makes none of the others off.
    """
    own = slowdown(card, baseline, anchors)
    known = [found for other in others if (found := slowdown(other, baseline, anchors)) is not None]
    if own is None or not known:
        return None
    beyond = abs(own - statistics.median_low([own, *known])) > SURE * process_spread(baseline, anchors)
    return math.expm1(own - statistics.median(known)) if beyond else None


def compare(cards: Iterable[Card], baseline: Trial, anchors: Sequence[Anchor]) -> Iterator[tuple[str, str]]:
    """Find out which cards are off. Yields (name, what there is to say of it) of each for which that has changed."""
    there = [card for card in cards if card.refused is None]
    runs = {baseline.card: baseline.measured, **{a.card: a.measured for a in anchors if a.measured}}
    before = {card.name: card.off for card in there}
    for card in there:
        card.off = off(card.name, [other.name for other in there if other is not card], baseline, anchors)
    usual = next((runs[card.name] for card in there if card.off is None and card.name in runs), None)
    for card in there:
        if card.off is not None and before[card.name] is None:
            yield card.name, off_words(card.off, runs.get(card.name), usual)
        elif card.off is None and before[card.name] is not None:
            yield card.name, "is as fast as the other cards again"


def off_words(share: float, own: Measurement | None, other: Measurement | None) -> str:
    """ "is 6 % slower than the other cards: hotter by 14 °C"."""
    said = f"is {abs(share):.0%} {'slower' if share > 0 else 'faster'} than the other cards"
    here, there = (run.health.temperature_c if run and run.health else None for run in (own, other))
    if here is None or there is None or abs(here - there) < 1:
        return said
    return f"{said}: {'hotter' if here > there else 'cooler'} by {abs(here - there):.0f} °C"
