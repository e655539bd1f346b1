"""Rounds: a config and the baseline measured by turns, each round in one go and on one card.

What a command that was cut short has finished is read. Half a round is measured again as a whole, and so is a round of
two cards: its two sides must lie side by side in time and in place.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autotune.device import UsedCard
from autotune.execution.runner import Runner
from autotune.measurement import Measurement
from autotune.statistics.interleaved import Pair, Side, interleave
from autotune.trial import Failure, Trial


class Rounds:
    """The rounds of two trials' configs.

    parent  the folder of the runs' folders
    begin   is called with the number of each round that is measured now, from 1
    cards   of each round so far; None among them: this process's device
    failed  the side that has failed, which has ended the rounds; None: none has
    """

    def __init__(
        self,
        runner: Runner,
        sides: Mapping[Side, Trial],
        parent: Path,
        earlier: Sequence[Trial],
        begin: Callable[[int], None],
    ) -> None:
        self.runner, self.sides, self.parent, self.earlier, self.begin = runner, sides, parent, earlier, begin
        self.cards: list[UsedCard | None] = []
        self.failed: Side | None = None
        self._round: dict[Side, Measurement] = {}

    def measure(self, *, least: int, most: int | None = None, to_be_told: float | None = None) -> list[Pair] | Failure:
        """Pairs of measurements, see interleave(), or the first failure. Raises UserError as Runner.run() does."""
        return interleave(self._side, least=least, most=most, to_be_told=to_be_told)

    def _side(self, index: int, side: Side) -> Measurement | Failure:
        if index == len(self.cards):
            whole = self._read(index)
            if whole is None:
                self.begin(index + 1)
                measured = self._measured(index, side)
                if isinstance(measured, Failure):
                    return measured
                whole = measured
            self._round, card = whole
            self.cards.append(card)
        return self._round[side]

    def _place(self, index: int, side: Side) -> Path:
        return self.parent / f"round-{index + 1}-trial-{self.sides[side].number}"

    def _read(self, index: int) -> tuple[dict[Side, Measurement], UsedCard | None] | None:
        """A round that is on disk, and its card; None: it is not there as a whole, or is of two cards."""
        found, cards = dict[Side, Measurement](), list[UsedCard | None]()
        for side, trial in self.sides.items():
            outcome = self.runner.finished(self._place(index, side), trial.config, earlier=self.earlier)
            if outcome is None:
                return None
            found[side] = outcome
            cards.append(self.runner.where)
        return (found, cards[0]) if cards[0] == cards[1] else None

    def _measured(self, index: int, first: Side) -> tuple[dict[Side, Measurement], UsedCard | None] | Failure:
        """Both sides of a round. One whose card is gone after its first side begins again."""
        order = sorted(self.sides, key=lambda side: side != first)
        while True:
            found, cards = dict[Side, Measurement](), list[UsedCard | None]()
            for side in order:
                place, config = self._place(index, side), self.sides[side].config
                outcome = self.runner.run(place, config, pictures=False, earlier=self.earlier)
                if isinstance(outcome, Failure):
                    self.failed = side
                    return outcome
                found[side] = outcome
                cards.append(self.runner.where)
            if cards[0] == cards[1]:
                return found, cards[0]
