"""Team: the cards of a search, and the two ways in which it uses them: all to explore, one to confirm."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.cluster.cards import Card
from autotune.cluster.messenger import Done, Gone, Lost, Messenger, Ready
from autotune.cluster.order import Order, Result, make_order
from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.runner import Outcome, Runner
from autotune.measurement import Quality
from autotune.reuse import Reuse
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial
from autotune.tuning.events import Listener
from autotune.tuning.explore import Explorer
from autotune.workload import Workload

ATTEMPTS = 3  # of a run of a confirmation that is lost


class Team:
    """The cards that a messenger reaches, as long as the block of `with` lasts: then all that runs is ended."""

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.cards: dict[int, Card] = {}
        self.tickets = itertools.count(1)

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *error: object) -> None:
        self.messenger.close()

    def explorer(self, folder: StudyFolder, study: Study, runner: Runner, listen: Listener, *, reuse: bool) -> Explorer:
        from autotune.cluster.explore import ParallelExplorer

        return ParallelExplorer(folder, study, runner, listen, team=self, reuse=reuse)

    def confirming(self, runner: Runner) -> Runner:
        return CardRunner(runner, self)

    def joined(self, news: Ready) -> tuple[str, str]:
        """A card has come, or has come back. Returns its name and what is to be said of it."""
        old = self.cards.get(news.card)
        if old is not None and old.host == news.host:  # its node was restarted, or the connection was
            old.is_here, old.since = True, None
            return old.name, "is back"
        others = sum(card.host == news.host for card in self.cards.values())
        card = Card(news.card, f"{news.host}/gpu-{others}", news.host)
        self.cards[news.card] = card
        return card.name, "takes part"

    def left(self, news: Gone) -> tuple[str, str]:
        card = self.cards[news.card]
        card.is_here = False
        return card.name, "is gone with its node"


class CardRunner(Runner):
    """A Runner whose runs are made by one card of a team, one after the other."""

    def __init__(self, runner: Runner, team: Team) -> None:
        super().__init__(
            runner.folder,
            runner.target,
            runner.timeout_s,
            max_memory_bytes=runner.max_memory_bytes,
            baseline=runner.baseline,
            isolation=runner.isolation,
        )
        self.team = team

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

    def _ordered(self, place: Path, order: Order) -> Any:
        """What became of it, with its files in `place`. Raises UserError where it is lost again and again."""
        why = ""
        for _ in range(ATTEMPTS):
            ticket, card = next(self.team.tickets), self._card()
            self.team.messenger.give(ticket, card.index, order, self.folder.path)
            result, files = self._result(ticket)
            why = result.trouble or result.refused or ""
            if result.outcome is not None:
                keep_files(files, place)
                return result.outcome
        raise UserError(f"the confirmation can't go on: {why.rstrip('.')}. The same command continues.")

    def _card(self) -> Card:
        """The first card that is as the others are, or any; waits until there is one."""
        while True:
            there = [card for card in self.team.cards.values() if card.is_free]
            if there:
                return min(there, key=lambda card: (card.told, card.index))
            news = self.team.messenger.news(1.0)
            if isinstance(news, Ready):
                self.team.joined(news)

    def _result(self, ticket: int) -> tuple[Result, Path]:
        while True:
            match self.team.messenger.news(1.0):
                case Ready() as news:
                    self.team.joined(news)
                case Gone() as news:
                    self.team.left(news)
                case Lost(lost, why) if lost == ticket:
                    return Result(trouble=why), Path()
                case Done(done, result, files) if done == ticket:
                    return result, files
                case Done(_, _, files):
                    shutil.rmtree(files, ignore_errors=True)
                case _:
                    pass


def keep_files(files: Path, place: Path) -> None:
    """Move the files of a run to their place in the study."""
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    files.mkdir(parents=True, exist_ok=True)
    shutil.move(files, place)
