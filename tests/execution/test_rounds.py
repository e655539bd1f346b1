"""The rounds of a confirmation that was cut short: what is on disk counts as far as it is whole and of one card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured

from autotune.config import Config
from autotune.device import UsedCard
from autotune.execution.rounds import Rounds
from autotune.execution.runner import CARD, Runner
from autotune.frozen_model import write_json
from autotune.measurement import Measurement
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial

A, B = UsedCard(name="a/gpu-0", uuid="GPU-a"), UsedCard(name="b/gpu-0", uuid="GPU-b")


class OnCards(Runner):
    """A runner that writes what a child would, on the next of these cards; then it is killed."""

    def __init__(self, folder: Path, cards: Sequence[UsedCard | None]) -> None:
        super().__init__(StudyFolder(folder), make_target(), 60.0)
        self.cards = list(cards)

    def run(self, place: Path, config: Config, *, pictures: bool, **how: Any) -> Measurement | Failure:
        if not self.cards:
            raise KeyboardInterrupt
        self.where = self.cards.pop(0)
        outcome = measured(0).outcome
        assert isinstance(outcome, Measurement)
        outcome = outcome.model_copy(update={"quality": None})
        place.mkdir(parents=True, exist_ok=True)
        (place / CARD).unlink(missing_ok=True)
        if self.where is not None:
            write_json(place / CARD, self.where.to_json())
        write_json(place / "job.json", self.job(config, pictures=pictures).to_json())
        write_json(place / "outcome.json", {"result": outcome.to_json()})
        return outcome


def rounds(runner: Runner, folder: Path, begun: list[int]) -> Rounds:
    trials: tuple[Trial, Trial] = (measured(0), measured(1, {"dtype": "bf16"}))
    return Rounds(runner, {"first": trials[0], "second": trials[1]}, folder, trials, begun.append)


@pytest.mark.parametrize("card", [A, None])
def test_a_round_on_disk_is_read_with_its_card(tmp_path: Path, card: UsedCard | None) -> None:
    rounds(OnCards(tmp_path, [card] * 4), tmp_path, []).measure(least=2, most=2)
    begun = list[int]()
    again = rounds(OnCards(tmp_path, []), tmp_path, begun)
    assert not isinstance(again.measure(least=2, most=2), Failure)
    assert (again.cards, begun) == ([card, card], [])


@pytest.mark.parametrize("second", [B, UsedCard(name=A.name, uuid=B.uuid), None])
def test_a_round_of_two_cards_is_thrown_away_also_if_it_was_killed_before_it_began_again(
    tmp_path: Path, second: UsedCard | None
) -> None:
    """The name of a card may be that of another one when the connection to the cluster was lost in between."""
    with pytest.raises(KeyboardInterrupt):
        rounds(OnCards(tmp_path, [A, second]), tmp_path, []).measure(least=1, most=1)
    assert len(list(tmp_path.glob("round-1-*/outcome.json"))) == 2, "both sides are on disk"
    begun, runner = list[int](), OnCards(tmp_path, [B, B])
    again = rounds(runner, tmp_path, begun)
    again.measure(least=1, most=1)
    assert (again.cards, begun, runner.cards) == ([B], [1], [])
