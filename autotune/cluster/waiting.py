"""Waiting: the work that waits for a card: what was lost, and what is kept for a card that is not off."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from autotune.cluster.cards import Card
from autotune.config import Config

ATTEMPTS = 2  # of a trial that is lost, and of a card's baseline


@dataclass(frozen=True)
class Work:
    """What one card is given. `origin` None: an anchor, whose `number` is its `before`.

    lost_on  the card of the attempt before
    leads    it is expected to be picked: no card that is off measures it
    homes    the hosts that have compiled its graphs, or do so now; empty: none, or nothing is compiled
    """

    number: int
    config: Config
    origin: str | None
    attempt: int = 1
    lost_on: Card | None = None
    leads: bool = False
    homes: frozenset[str] = frozenset()

    def again(self, lost_on: Card) -> "Work":
        return replace(self, attempt=self.attempt + 1, lost_on=lost_on)


class Waiting(list[Work]):
    """Work in the order in which it is given out, as far as it fits the card that is free."""

    def take(self, card: Card, cards: Iterable[Card], *, anywhere: bool = False) -> Work | None:
        """The first that fits this card, which is taken off the list. `anywhere`: it may have to compile anew."""
        found = next((work for work in self if fits(work, card, cards, anywhere=anywhere)), None)
        if found is not None:
            self.remove(found)
        return found

    def has_room(self, card: Card, cards: Iterable[Card]) -> bool:
        """May more be asked for this card?

        One that is off keeps at most one config for each of the others, and any keeps one for the host that has
        compiled its graphs: what is asked early is asked with less knowledge.
        """
        if sum(bool(work.homes) and card.host not in work.homes for work in self) > 1:
            return False
        others = [other for other in cards if other.takes_part and other.off is None]
        return card.off is None or not others or sum(work.leads for work in self) < len(others)


def fits(work: Work, card: Card, cards: Iterable[Card], *, anywhere: bool = False) -> bool:
    """May the card be given this work?

    What was lost goes to another host than before or, where there is none, to another card: a node that has died may be
    taken for alive for some seconds. What is expected to be picked goes to one of these that is not off, where there is
    one. What is compiled goes to a host that has the code, but `anywhere`. So there is a card for all work as long as a
    card takes part.
    """
    there, lost = [other for other in cards if other.takes_part], work.lost_on
    if lost is not None:
        others = [other for other in there if other is not lost]
        there = [other for other in others if other.host != lost.host] or others or there
    if work.leads:
        there = [other for other in there if other.off is None] or there
    if work.homes and not anywhere:
        there = [other for other in there if other.host in work.homes] or there
    return any(card is other for other in there)
