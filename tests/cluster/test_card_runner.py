"""The runs of a confirmation: one card makes all of them, in turn."""

from itertools import count
from pathlib import Path

import pytest
from conftest import make_target
from made_up_cluster import MadeUp, made_up

from autotune.cluster.card_runner import CardRunner
from autotune.cluster.messenger import Gone, Lost, News
from autotune.cluster.order import Order
from autotune.cluster.team import Team
from autotune.device import UsedCard
from autotune.errors import UserError
from autotune.execution.runner import CARD, Runner
from autotune.frozen_model import read_json
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.study_folder import StudyFolder


def confirming(tmp_path: Path, cluster: MadeUp) -> tuple[Runner, Team]:
    team = Team(cluster)
    local = Runner(StudyFolder(tmp_path / "study"), make_target(), 60.0, isolation="spawn")
    return team.confirming(local), team


def test_pick_and_baseline_run_on_one_card_in_turn(tmp_path: Path) -> None:
    cluster = made_up(tmp_path)
    runner, team = confirming(tmp_path, cluster)
    for number in range(4):
        place = tmp_path / "study" / "confirm" / "0003" / f"round-{number}-trial-{number % 2}"
        outcome = runner.run(place, complete({}), pictures=False, earlier=[])
        assert isinstance(outcome, Measurement)
        assert (place / "log.txt").read_text() == "card 0"
        if number == 0:
            while (news := cluster.news(0)) is not None:  # the other cards
                team.joined(news)  # type: ignore[arg-type]
    assert [card for _, card, _ in cluster.given] == [0] * 4
    assert [order.fetch for _, _, order in cluster.given] == [True, False, False, False], "nothing has run there before"
    assert cluster.most_at_once == 1
    orders = [order for _, _, order in cluster.given]
    assert {(order.isolation, order.pictures) for order in orders} == {("spawn", False)}


def test_a_card_that_is_off_does_not_confirm(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))
    runner, team = confirming(tmp_path, cluster)
    for _ in range(2):
        team.joined(cluster.news(0))  # type: ignore[arg-type]
    team.cards[0].off = 0.06
    runner.run(tmp_path / "study" / "confirm" / "x", complete({}), pictures=False, earlier=[])
    assert [card for _, card, _ in cluster.given] == [1]


def test_a_run_that_is_lost_is_made_again_and_then_ends_the_search_with_the_reason(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))
    place = tmp_path / "study" / "confirm" / "x"

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        if len(cluster.given) == 1:
            return [Gone((card,)), Lost(ticket, "its node died")]
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    runner, _ = confirming(tmp_path, cluster)
    assert isinstance(runner.run(place, complete({}), pictures=False, earlier=[]), Measurement)
    assert [card for _, card, _ in cluster.given] == [0, 1]
    cluster.answer = lambda cluster, ticket, card, order: [Lost(ticket, "its disk is full")]
    with pytest.raises(UserError, match=r"the confirmation can't go on: its disk is full\. The same command continues"):
        runner.run(place, complete({}), pictures=False, earlier=[])


def test_a_second_card_confirms_one_that_is_not_off_and_of_another_host_where_there_is_one(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "a", "b"))
    runner, team = confirming(tmp_path, cluster)
    place = tmp_path / "study" / "confirm" / "x"
    runner.run(place, complete({}), pictures=False, earlier=[])
    assert runner.where == UsedCard(name="a/gpu-0")
    second = runner.elsewhere([runner.where])
    assert second is not None
    second.run(place, complete({}), pictures=False, earlier=[])
    assert second.where == UsedCard(name="b/gpu-0")
    assert read_json(place / CARD, "card") == {"name": "b/gpu-0", "uuid": None}
    team.cards[1].off, team.cards[2].off = 0.06, 0.06
    assert runner.elsewhere([runner.where]) is None
    assert runner.elsewhere([None]) is None, "which card has made the runs is not known"


def test_a_second_card_is_another_gpu_also_where_a_search_that_goes_on_names_them_otherwise(tmp_path: Path) -> None:
    """The runs of before were made by GPU-0 as a/gpu-1. It is a/gpu-0 now, and no card has been heard of."""
    cluster = made_up(tmp_path, hosts=("a", "a"))
    cluster.answer = lambda cluster, ticket, card, order: [
        cluster.done(ticket, card, order, device=order.target.device.model_copy(update={"uuid": f"GPU-{card}"}))
    ]
    runner, _ = confirming(tmp_path, cluster)
    second = runner.elsewhere([UsedCard(name="a/gpu-1", uuid="GPU-0")])
    assert second is not None
    second.run(tmp_path / "study" / "confirm" / "x", complete({}), pictures=False, earlier=[])
    assert [card for _, card, _ in cluster.given] == [0, 1]
    assert second.where == UsedCard(name="a/gpu-1", uuid="GPU-1")
    assert runner.elsewhere([UsedCard(name="b/gpu-0", uuid="GPU-0"), second.where]) is None


def test_a_confirmation_does_not_wait_for_ever_for_a_node_that_is_gone(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a",))
    cluster.answer = lambda cluster, ticket, card, order: [Gone((card,)), Lost(ticket, "its node died")]
    local = Runner(StudyFolder(tmp_path / "study"), make_target(), 60.0)
    runner = CardRunner(local, Team(cluster), clock=count(0.0, 100.0).__next__)
    with pytest.raises(UserError, match="the confirmation can't go on: no card is left"):
        runner.run(tmp_path / "study" / "confirm" / "x", complete({}), pictures=False, earlier=[])


def test_a_confirmation_times_as_many_calls_as_the_search_says(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))
    runner = Team(cluster).confirming(Runner(StudyFolder(tmp_path / "study"), make_target(), 60.0, timing_s=2.0))
    place = tmp_path / "study" / "confirm" / "x"
    runner.run(place, complete({}), pictures=False, earlier=[])
    assert [order.timing_s for _, _, order in cluster.given] == [2.0]


def test_a_confirmation_on_cards_that_are_refused_ends_with_a_sentence(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a",))
    runner, _ = confirming(tmp_path, cluster)
    cluster.answer = lambda cluster, ticket, card, order: [
        cluster.done(ticket, card, order, outcome=None, refused="its driver is 570, the study's 580")
    ]
    with pytest.raises(UserError, match="the confirmation can't go on: no card is left"):
        runner.run(tmp_path / "study" / "confirm" / "x", complete({}), pictures=False, earlier=[])
