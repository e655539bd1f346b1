"""Card runner: a Runner whose runs are made by one card, one after the other: so a search on several confirms."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from autotune.cluster.cards import Card
from autotune.cluster.crew import Crew, keep_files
from autotune.cluster.messenger import Done, Gone, Lost, Ready
from autotune.cluster.order import Order, Result, make_order
from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.runner import Outcome, Runner
from autotune.measurement import Measurement, Quality
from autotune.reuse import Reuse
from autotune.trial import Failure, Trial
from autotune.workload import Workload

ATTEMPTS = 3  # of a run of a confirmation that is lost


class CardRunner(Runner):
    """A Runner whose runs are made by one card of a crew, one after the other."""

    def __init__(self, runner: Runner, crew: Crew) -> None:
        super().__init__(
            runner.folder,
            runner.target,
            runner.timeout_s,
            max_memory_bytes=runner.max_memory_bytes,
            baseline=runner.baseline,
            isolation=runner.isolation,
        )
        self.crew = crew

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
            ticket, card = next(self.crew.tickets), self._card()
            self.crew.messenger.give(ticket, card.index, order, self.folder.path)
            result, files = self._result(ticket)
            why = result.trouble or result.refused or ""
            if result.outcome is not None:
                keep_files(files, place)
                return result.outcome
        raise UserError(f"the confirmation can't go on: {why.rstrip('.')}. The same command continues.")

    def _card(self) -> Card:
        """The first card that is as the others are, or any; waits until there is one."""
        while True:
            there = [card for card in self.crew.cards.values() if card.is_free]
            if there:
                return min(there, key=lambda card: (card.told, card.index))
            news = self.crew.messenger.news(1.0)
            if isinstance(news, Ready):
                self.crew.joined(news)

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
