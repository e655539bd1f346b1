"""Card runner: a Runner whose runs are made by one card, one after the other: so a search on several confirms."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from autotune.cluster.cards import NO_CARD_S, Card
from autotune.cluster.crew import Crew, keep_files
from autotune.cluster.messenger import Done, Gone, Lost, Ready, this_host
from autotune.cluster.order import Order, Result, make_order
from autotune.config import Config
from autotune.device import UsedCard
from autotune.errors import UserError
from autotune.execution.runner import CARD, Outcome, Runner
from autotune.frozen_model import write_json
from autotune.measurement import Measurement, Quality
from autotune.reuse import Reuse
from autotune.trial import Failure, Trial
from autotune.workload import Workload

ATTEMPTS = 3  # of a run of a confirmation that is lost
ARRIVES_S = 5  # how long a second card is waited for


class CardRunner(Runner):
    """A Runner whose runs are made by one card of a crew, one after the other; by another where that one is gone.

    where  the card that has made the last run, or was to
    apart  the cards that make none
    """

    def __init__(
        self,
        runner: Runner,
        crew: Crew,
        *,
        apart: Sequence[UsedCard] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            runner.folder,
            runner.target,
            runner.timeout_s,
            max_memory_bytes=runner.max_memory_bytes,
            baseline=runner.baseline,
            isolation=runner.isolation,
            timing_s=runner.timing_s,
            breakdown=runner.breakdown,
        )
        self.crew, self.apart, self._clock = crew, apart, clock
        self._card: Card | None = None  # of the last run
        self._lost = Counter[int]()  # card -> its runs that were lost

    def elsewhere(self, cards: Sequence[UsedCard | None]) -> Self | None:
        """A runner on a second card, of another host where there is one. None: none is there that is not off."""
        apart = [card for card in cards if card is not None]
        second = type(self)(self, self.crew, apart=apart, clock=self._clock)
        for _ in range(ARRIVES_S):  # where a search goes on, the second card may not have been heard of
            if not apart or any(card.takes_part and card.off is None for card in second._cards()):
                break
            self._hear_of_cards()
        else:
            return None
        return second if apart else None

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        reuse: Reuse | None = None,
    ) -> Outcome:
        order = make_order(self, place, config, earlier=earlier, reuse=reuse)
        outcome = self._ordered(place, order.model_copy(update={"pictures": pictures}))
        assert not isinstance(outcome, Quality)
        return outcome

    def draw(
        self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Sequence[Trial]
    ) -> Quality | Failure:
        order = make_order(self, place, config, earlier=earlier)
        beside = reference.relative_to(self.folder.path).as_posix()
        outcome = self._ordered(place, order.model_copy(update={"draw": workload, "reference": beside}))
        assert isinstance(outcome, Quality | Failure)
        return outcome

    def _ordered(self, place: Path, order: Order) -> Measurement | Failure | Quality:
        """What became of it, with its files in `place`. Raises UserError where it is lost again and again."""
        why = ""
        for _ in range(ATTEMPTS):
            ticket, card = next(self.crew.tickets), self._free_card()
            self.where = card.used
            fetch = not card.fetched and card.host != this_host()
            self.crew.messenger.give(ticket, card.index, order.model_copy(update={"fetch": fetch}), self.folder.path)
            result, files = self._result(ticket)
            why = result.trouble or result.refused or ""
            card.heard(result)
            if result.outcome is not None and not card.is_one_of(self.apart):
                self._card, self.where = card, card.used
                files.mkdir(parents=True, exist_ok=True)
                write_json(files / CARD, self.where.to_json())
                keep_files(files, place)
                return result.outcome
            why = why or "it is the card that has confirmed the pick"
            card.refused = result.refused
            self._lost[card.index] += 1
        raise UserError(f"the confirmation can't go on: {why.rstrip('.')}. The same command continues.")

    def _cards(self) -> list[Card]:
        """Those that may be used: those of another host first, where some cards make none."""
        hosts = {card.name.rpartition("/")[0] for card in self.apart}
        cards = [card for card in self.crew.cards.values() if not card.is_one_of(self.apart)]
        return sorted(cards, key=lambda card: (card.host in hosts, card.index))

    def _free_card(self) -> Card:
        """The card of the last run, or the first one that is as the others are, or any; waits until there is one."""
        end = self._clock() + NO_CARD_S
        while True:
            there = [card for card in self._cards() if card.is_free]
            if there:
                return min(there, key=lambda c: (self._lost[c.index], c is not self._card, c.off is not None))
            is_over = self._clock() > end  # a node that is gone may never come back
            if is_over or (self.crew.cards and all(card.refused for card in self._cards())):
                raise UserError(
                    "the confirmation can't go on: no card is left. What has finished is kept, and the same command "
                    "continues."
                )
            self._hear_of_cards()

    def _hear_of_cards(self) -> None:
        """For a second at most, while no run is under way."""
        match self.crew.messenger.news(1.0):
            case Ready() as news:
                self.crew.joined(news)
            case Gone() as news:
                self.crew.left(news)
            case Done(_, _, files):
                shutil.rmtree(files, ignore_errors=True)
            case _:
                pass

    def _result(self, ticket: int) -> tuple[Result, Path]:
        while True:
            match self.crew.messenger.news(1.0):
                case Ready() as news:
                    self.crew.joined(news)
                case Gone() as news:
                    self.crew.left(news)
                case Lost(lost, why) if lost == ticket:
                    return Result(trouble=why), Path()
                case Done(done, result, files) if done == ticket:
                    return result, files
                case Done(_, _, files):
                    shutil.rmtree(files, ignore_errors=True)
                case _:
                    pass
