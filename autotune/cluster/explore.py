"""Parallel explorer: the loop of a search on several cards: it alone asks and tells, the cards run what they are given.

Each card runs the baseline first and again every few trials (its anchors), so that its trials are compared with its own
runs of the baseline. A card that is slower or faster than the others beyond the noise is given no config that is
expected to be picked. What is lost with a process or a node is given out again once, on another card where there is
one; lost twice, the trial has failed for a reason of the environment. The card that has lost it runs the baseline next,
and takes part no more where that is lost, too. A result that nobody waits for any more is dropped.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from autotune.cluster.cards import NO_CARD_S, Card, compare
from autotune.cluster.crew import Crew, keep_files
from autotune.cluster.messenger import Done, Gone, Lost, News, Ready, this_host
from autotune.cluster.order import Order, Result, make_order
from autotune.cluster.waiting import ATTEMPTS, Waiting, Work
from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget
from autotune.measurement import Quality
from autotune.reuse import Reuse
from autotune.study.reuse_plan import compiled_on, graph_key, plan_reuse
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Failure, Trial
from autotune.tuning.events import Anchored, CardTold, Listener, TrialStarted, WarmStarted
from autotune.tuning.explore import Explorer


class ParallelExplorer(Explorer):
    """An Explorer whose runs are given to the cards of a crew."""

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: Runner,
        listen: Listener,
        *,
        crew: Crew,
        reuse: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(folder, study, runner, listen, clock=clock, reuse=reuse)
        self.orders, self.crew, self.cards = runner, crew, crew.cards
        self.running: dict[int, tuple[Card, Work]] = {}  # by ticket
        self.waiting = Waiting()
        self._asked_in_vain = False
        self._baseline_failure: Failure | None = None

    # -- what the search calls ------------------------------------------------------------------------------------

    def run_baseline(self) -> Failure | None:
        if self.study.trials:
            return None
        self._baseline_failure = None
        work = Work(0, self.study.record.baseline_config, "baseline")
        self.waiting.append(work)
        self.listen(TrialStarted(0, work.config, "baseline"))
        self._until_idle(lambda card: self.waiting.take(card, self.cards.values()))
        return self._baseline_failure

    def anchor(self, *, last: bool = False) -> None:
        """As the `last` ones: every card that has run trials since its last anchor runs the baseline once more."""
        if last:
            self._until_idle(lambda card: self._anchor(card) if card.since else None)

    def _explore(self, budget: Budget, end: float) -> bool:
        self._asked_in_vain = False
        earlier = self.study.record.warm_start
        if earlier and len(self.study.trials) < budget.trials and self._has_time(end):
            self.listen(WarmStarted(earlier, len(self.study.warm.first)))
        self._until_idle(lambda card: self._next(card, budget, end))
        return self._asked_in_vain

    # -- what a card is given --------------------------------------------------------------------------------------

    def _until_idle(self, next_for: Callable[[Card], Work | None]) -> None:
        """Give work to every free card, and hear what became of it, until there is none and none runs."""
        waited = self.clock()
        while True:
            given = True
            while given:
                given = False
                for card in sorted(self.cards.values(), key=lambda card: card.index):
                    work = next_for(card) if card.is_free else None
                    if work is not None:
                        self._give(card, work)
                        given = True
            if not self.running and not self.waiting and any(card.is_free for card in self.cards.values()):
                return
            news = self.crew.messenger.news(1.0)
            if news is not None:
                self._hear(news)
            if self.running or any(card.is_free for card in self.cards.values()):
                waited = self.clock()
            elif self.clock() - waited > NO_CARD_S:
                raise UserError(self._no_card())

    def _next(self, card: Card, budget: Budget, end: float) -> Work | None:
        running = [work for _, work in self.running.values() if work.origin is not None]
        pending = {work.number: work.config for work in (*running, *self.waiting)}
        taken = len(self.study.trials) + len(pending)
        may_ask = taken < budget.trials and not self._asked_in_vain and self._has_time(end)
        if not self.waiting and not may_ask:
            return None
        if self.is_due(card):
            return self._anchor(card)
        cards = self.cards.values()
        found = self.waiting.take(card, cards)
        if found is not None or not may_ask or not self.waiting.has_room(card, cards):
            return found or self.waiting.take(card, cards, anywhere=True)
        asked = self.study.ask(pending)
        if asked is None:
            self._asked_in_vain = not running  # what runs may yet show values that leave the space, or new ones
            return None
        number, config, origin = asked
        self.listen(TrialStarted(number, config, origin))
        self.waiting.append(Work(number, config, origin, leads=self.study.leads, homes=self._homes(config)))
        return self._next(card, budget, end)  # what is expected to be picked may not fit this card

    def _homes(self, config: Config) -> frozenset[str]:
        """The hosts that have compiled this config's graphs, or do so now."""
        if not self.reuse:
            return frozenset()
        key = graph_key(config)
        now = (card.host for card, work in self.running.values() if key is not None and graph_key(work.config) == key)
        return compiled_on(config, self.study.trials) | frozenset(now)

    def is_due(self, card: Card) -> bool:
        """Is the card to run the baseline next?"""
        return card.needs_baseline

    def _anchor(self, card: Card) -> Work:
        taken = {anchor.before for anchor in self.study.anchors}
        taken |= {work.number for _, work in self.running.values() if work.origin is None}
        before = self.study.next_number
        while before in taken:
            before += 1
        return Work(before, self.study.baseline.config, None)

    def _give(self, card: Card, work: Work) -> None:
        ticket = next(self.crew.tickets)
        card.busy = True
        self.running[ticket] = (card, work)
        self.start(ticket, card, work)

    def start(self, ticket: int, card: Card, work: Work) -> None:
        """Send the order. A replay looks the outcome up instead."""
        order = self._order(card, work)
        place = self.folder.path / order.place
        if work.origin is not None:  # a search that is killed now finds the trial's config there
            place.mkdir(parents=True, exist_ok=True)
            trials, reuse = self.study.trials, order.reuse
            job = self.orders.job(work.config, pictures=True, earlier=trials, reuse=reuse)
            write_json(place / "job.json", job.to_json())
        self.crew.messenger.give(ticket, card.index, order, self.folder.path)

    def _order(self, card: Card, work: Work) -> Order:
        trials = self.study.trials
        reuse: Reuse | None = None
        if self.reuse and work.number and work.origin is not None:
            args = (work.number, work.config, trials, self.study.anchors, self.study.record)
            reuse = plan_reuse(*args, card=card.name)
        order = make_order(self.orders, self._place(work), work.config, earlier=trials, reuse=reuse)
        pictures = work.origin is not None or not self.study.anchors
        fetch = not card.fetched and card.host != this_host()
        return order.model_copy(update={"pictures": pictures, "fetch": fetch})

    # -- what became of it -----------------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        match news:
            case Ready():
                self.listen(CardTold(*self.crew.joined(news)))
            case Gone():
                for told in self.crew.left(news):
                    self.listen(CardTold(*told))
            case Lost():
                if news.ticket in self.running:
                    self._lost(*self._returned(news.ticket), news.why)
            case Done():
                self._done(news)

    def _returned(self, ticket: int) -> tuple[Card, Work]:
        card, work = self.running.pop(ticket)
        card.busy = False
        return card, work

    def _lost(self, card: Card, work: Work, why: str) -> None:
        if card.is_here:  # it may be the card: before any other trial, it is to show that it can measure the baseline
            card.since, card.lost = None, card.lost + 1
        if work.origin is None:
            if card.lost >= ATTEMPTS:
                self._refuse(card, f"takes part no more: its baseline could not be measured ({why.rstrip('.')})")
            return  # it is due still
        if work.attempt < ATTEMPTS:
            self.waiting.append(work.again(card))
            self.listen(CardTold(card.name, f"has lost trial {work.number} ({why.rstrip('.')}): it is tried again"))
            return
        reason = f"lost twice: {why}"
        if work.number == 0:
            self._baseline_failure = Failure(cause="environment", reason=reason)
            return
        self._tell(card, work, Failure(cause="environment", reason=reason), 0.0)

    def _done(self, news: Done) -> None:
        if news.ticket not in self.running:  # it was given out again in the meantime
            shutil.rmtree(news.files, ignore_errors=True)
            return
        card, work = self._returned(news.ticket)
        result = news.result
        card.heard(result)
        if result.refused is not None:
            self._refuse(card, f"is not like the others: {result.refused}")
            if work.origin is not None:
                self.waiting.insert(0, work)
        elif result.trouble is not None:
            self._lost(card, work, result.trouble)
        else:
            self.keep(news.files, self._place(work))
            self._measured(card, work, result)

    def keep(self, files: Path, place: Path) -> None:
        """Put the files of a run at their place in the study. A replay has none."""
        keep_files(files, place)

    def _place(self, work: Work) -> Path:
        return self.folder.anchor(work.number) if work.origin is None else self.folder.trial(work.number)

    def _measured(self, card: Card, work: Work, result: Result) -> None:
        outcome = result.outcome
        assert outcome is not None
        assert not isinstance(outcome, Quality), "no trial is drawn only"
        if work.number == 0 and work.origin is not None and isinstance(outcome, Failure):
            self._baseline_failure = outcome
        elif work.origin is not None:
            card.since, card.lost = 0 if work.number == 0 else (card.since or 0) + 1, 0
            self._tell(card, work, outcome, result.seconds)
        elif isinstance(outcome, Failure) and card.since is None:
            self._refuse(card, f"takes no part: the baseline failed on it ({outcome.cause}: {outcome.reason})")
        else:
            anchor = Anchor(before=work.number, outcome=outcome, seconds=result.seconds, card=card.name)
            card.since, card.lost = 0, 0
            self.study.tell_anchor(anchor)
            self._require_likeness()
            self.listen(Anchored(anchor))
            for told in compare(self.cards.values(), self.study.baseline, self.study.anchors):
                self.listen(CardTold(*told))

    def _tell(self, card: Card, work: Work, outcome: object, seconds: float) -> None:
        fields = {"number": work.number, "origin": work.origin, "values": dict(work.config), "outcome": outcome}
        trial = Trial.model_validate({**fields, "seconds": seconds, "card": card.name})
        self._asked_in_vain = False
        self.tell(trial)

    def _refuse(self, card: Card, why: str) -> None:
        card.refused = why
        self.listen(CardTold(card.name, why))

    def _no_card(self) -> str:
        refused = "; ".join(f"{card.name} {card.refused}" for card in self.cards.values() if card.refused)
        return (
            f"no card can go on ({refused or 'none has come'}). What has finished is kept, and the same command "
            "continues."
        )
