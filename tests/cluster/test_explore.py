"""The loop of a search on several cards, with a cluster that is made up: who runs what, and what is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import record
from made_up_cluster import MadeUp, made_up

from autotune.cluster.cards import Card
from autotune.cluster.messenger import Done, Gone, Lost, News, Ready, this_host
from autotune.cluster.order import Order
from autotune.cluster.team import Team
from autotune.cluster.waiting import Waiting, Work
from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.study.record import read_trials
from autotune.study.reuse_plan import graph_key
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.storage import OnDisk
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Failure
from autotune.tuning.events import CardTold, Event, TrialStarted

SPACE = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
TARGET = make_target()


class Files(OnDisk):
    """A study's files without Optuna's database, which takes most of a test's time."""

    database = None


class Exploring:
    """A search of a made-up cluster, with a random sampler."""

    def __init__(self, path: Path, cluster: MadeUp, budget: int = 14, sampler: str = "random") -> None:
        self.folder, self.events = StudyFolder(path), list[Event]()
        self.folder.create()
        kept = record(space=SPACE.values)
        write_json(self.folder.study, kept.to_json())
        self.study = Study(self.folder, kept, SPACE, sampler=sampler, parallel=True, store=Files(self.folder))
        runner = Runner(self.folder, TARGET, 60.0)
        ticks = iter(range(10**6))
        self.explorer = Team(cluster).explorer(self.folder, self.study, runner, self.events.append, reuse=True)
        self.explorer.clock = lambda: float(next(ticks))
        self.exhausted = self.explorer.explore(Budget(trials=budget))
        self.explorer.anchor(last=True)

    @property
    def said(self) -> list[str]:
        return [f"{event.card} {event.says}" for event in self.events if isinstance(event, CardTold)]


def test_all_cards_work_and_each_runs_the_baseline_before_its_trials(tmp_path: Path) -> None:
    cluster = made_up(tmp_path)
    search = Exploring(tmp_path / "study", cluster, budget=40)
    assert [trial.number for trial in search.study.trials] == list(range(40))
    assert cluster.most_at_once == 4
    cards = {"a/gpu-0", "a/gpu-1", "b/gpu-0", "b/gpu-1"}
    assert {trial.card for trial in search.study.trials} == cards
    first = {card: next(order for _, own, order in cluster.given if own == card) for card in range(4)}
    assert all(order.config == complete({}) for order in first.values())
    for card in cards:  # at most 8 trials between two runs of the baseline, and one after the last
        kinds = "".join(
            "A" if "anchors" in order.place or order.place == "trials/0000" else "t"
            for _, own, order in cluster.given
            if list(search.explorer.cards.values())[own].name == card  # type: ignore[attr-defined]
        )
        assert kinds.startswith("A")
        assert kinds.endswith("A")
        assert max(map(len, kinds.split("A"))) <= 8
    befores = [anchor.before for anchor in search.study.anchors]
    assert len(befores) == len(set(befores)), "each anchor has a folder of its own"
    assert read_trials(search.folder) == search.study.trials
    assert (search.folder.trial(7) / "images").is_dir(), "the files of a trial are in its folder"
    assert not list((tmp_path / "arriving").iterdir())


def test_another_host_fetches_what_it_lacks_before_its_first_run_and_again_when_it_is_back(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=(this_host(), "b"))

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        if card == 1 and sum(own == 1 for _, own, _ in cluster.given) == 4:
            return [Gone((1,)), Lost(ticket, "its node is gone"), Ready(1, "b")]
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    Exploring(tmp_path / "study", cluster)
    fetches = [[order.fetch for _, own, order in cluster.given if own == card] for card in (0, 1)]
    assert not any(fetches[0])
    assert fetches[1][:6] == [True, False, False, False, True, False]
    assert sum(fetches[1]) == 2


def test_what_shares_its_graphs_with_an_earlier_config_goes_to_the_host_that_has_compiled_them(tmp_path: Path) -> None:
    """The configs are fixed here: two pairs that share their graphs, and others."""
    cluster = made_up(tmp_path, hosts=("a", "b"))
    compiled = [{"compile": "denoiser", "dtype": dtype, "steps": 12} for dtype in ("fp32", "bf16")]
    fewer = [{**values, "steps": 8} for values in compiled]
    assert [graph_key(complete(values)) for values in fewer] == [graph_key(complete(values)) for values in compiled]
    search = Exploring(tmp_path / "study", cluster, budget=1)
    proposed = iter([*compiled, {"tome_ratio": 0.25}, *fewer, {"tome_ratio": 0.5}, {"memory_format": "channels_last"}])

    def ask(pending: Any) -> Any:
        search.study.leads = False
        taken = {trial.number for trial in search.study.trials} | pending.keys()
        found = next(proposed, None)
        return found and (max(taken, default=0) + 1, complete(found), "sampler")

    search.study.ask = ask  # type: ignore[method-assign]
    search.explorer.explore(Budget(trials=8))
    hosts = dict[Any, set[str]]()
    for trial in search.study.trials:
        hosts.setdefault(graph_key(trial.config), set()).add((trial.card or "")[0])
    uncompiled = hosts.pop(None)
    assert uncompiled == {"a", "b"}, "no card stands still"
    assert sorted(map(len, hosts.values())) == [1, 1], hosts


def test_a_trial_counts_as_a_ratio_to_its_own_cards_baseline(tmp_path: Path) -> None:
    search = Exploring(tmp_path / "study", made_up(tmp_path, slow={1: 1.5, 3: 0.8}), budget=30)
    for trial in search.study.trials:
        assert trial.measured is not None
        alike = 0.7 if trial.values["dtype"] == "bf16" else 1.0
        assert trial.measured.latency_s / trial.drift == pytest.approx(alike)
    assert len({round(trial.drift, 3) for trial in search.study.trials}) == 3
    assert "a/gpu-1 is 50% slower than the other cards" in [line.replace(" %", "%") for line in search.said]


def test_a_card_that_is_not_like_the_others_is_refused_by_name_and_its_trial_is_not_lost(tmp_path: Path) -> None:
    cluster = made_up(tmp_path)

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        refused = {"outcome": None, "refused": "its driver is 570, the study's 580"} if card == 2 else {}
        return [cluster.done(ticket, card, order, **refused)]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster)
    assert [trial.number for trial in search.study.trials] == list(range(14))
    assert "b/gpu-0" not in {trial.card for trial in search.study.trials}
    assert "b/gpu-0 is not like the others: its driver is 570, the study's 580" in search.said
    assert sum(card == 2 for _, card, _ in cluster.given) == 1


@pytest.mark.parametrize("how", ["lost", "trouble"])
def test_what_is_lost_is_given_out_again_once_elsewhere_and_then_typed(tmp_path: Path, how: str) -> None:
    cluster = made_up(tmp_path)

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        earlier = [given for given in cluster.given if given[2].place == order.place]
        if order.place == "trials/0005" or (order.place == "trials/0003" and len(earlier) == 1):
            trouble = cluster.done(ticket, card, order, outcome=None, trouble="no room on the disk.")
            return [Lost(ticket, "NodeDiedError: its node died") if how == "lost" else trouble]
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster)
    assert [trial.number for trial in search.study.trials] == list(range(14))
    outcome = search.study.trials[5].outcome
    assert isinstance(outcome, Failure)
    assert outcome.cause == "environment"
    assert outcome.reason.startswith("lost twice: ")
    assert search.study.trials[3].measured is not None
    hosts = [["a", "a", "b", "b"][card] for _, card, order in cluster.given if order.place == "trials/0003"]
    assert len(set(hosts)) == 2, "the second time on another host"
    assert sum("has lost trial 3 (" in said and said.endswith("): it is tried again") for said in search.said) == 1
    assert len([order for _, _, order in cluster.given if order.place == "trials/0005"]) == 2
    states = {t.user_attrs["trial"]: t.state.name for t in search.study._optuna.get_trials(deepcopy=False)}
    assert states[5] == "FAIL", "no sampler takes it for the config's fault"


def test_a_card_that_fell_off_the_bus_is_given_no_second_trial(tmp_path: Path) -> None:
    """It answers at once, and would swallow one trial after the other; its baseline shows that it is the card."""
    cluster = made_up(tmp_path)

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        off_the_bus = card == 1 and sum(own == 1 for _, own, _ in cluster.given) > 3
        gone = {"outcome": None, "trouble": "its card is gone: NVML says that the GPU is lost."} if off_the_bus else {}
        return [cluster.done(ticket, card, order, **gone)]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster, budget=24)
    assert [trial.number for trial in search.study.trials] == list(range(24))
    assert all(trial.measured for trial in search.study.trials)
    own = [order.place.partition("/")[0] for _, card, order in cluster.given if card == 1]
    assert own[3:] == ["trials", "anchors"], "one trial is lost there, then its baseline, and nothing more is given"
    why = "its baseline could not be measured (its card is gone: NVML says that the GPU is lost)"
    assert f"a/gpu-1 takes part no more: {why}" in search.said


def test_a_card_whose_connection_was_lost_during_its_first_baseline_takes_part_again(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        if card == 1 and sum(own == 1 for _, own, _ in cluster.given) == 1:
            return [
                Gone((0, 1)),
                Lost(ticket, "the process that talks to Ray has ended"),
                Ready(0, "a"),
                Ready(1, "b"),
            ]
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster)
    assert {trial.card for trial in search.study.trials} == {"a/gpu-0", "b/gpu-0"}
    assert not any("no more" in said for said in search.said)


def test_a_card_that_is_off_is_given_no_config_that_is_expected_to_be_picked(tmp_path: Path) -> None:
    """The study's own expectation is replaced by one that is known here: whatever computes in bf16 is the pick."""
    cluster = made_up(tmp_path, slow={1: 1.5})
    search = Exploring(tmp_path / "study", cluster, budget=1)
    asks = search.study.ask

    def ask(pending: Any) -> Any:
        asked = asks(pending)
        search.study.leads = asked is not None and asked[1]["dtype"] == "bf16"
        return asked

    search.study.ask = ask  # type: ignore[method-assign]
    search.explorer.explore(Budget(trials=40))
    assert "a/gpu-1 is 50% slower than the other cards" in search.said
    assert [trial.number for trial in search.study.trials] == list(range(40))
    told = next(i for i, (_, card, order) in enumerate(cluster.given) if card == 1 and "anchors" in order.place)
    after = [(card, order) for _, card, order in cluster.given[told + 1 :] if "trials" in order.place]
    assert {order.values["dtype"] for card, order in after if card == 1} == {"fp32"}
    assert {order.values["dtype"] for card, order in after if card == 0} == {"fp32", "bf16"}


def test_of_two_cards_the_slower_one_is_off_and_a_card_that_recovers_is_not(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"), slow={0: 1.5})

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        if sum(own == 0 and "anchors" in order.place for _, own, order in cluster.given) == 2:
            cluster.slow = {}  # it has cooled down
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    said = Exploring(tmp_path / "study", cluster, budget=40).said
    assert [line for line in said if "than" in line] == ["a/gpu-0 is 50% slower than the other cards"]
    assert [line for line in said if "again" in line] == ["a/gpu-0 is as fast as the other cards again"]


def test_what_is_expected_to_be_picked_waits_for_a_card_that_is_not_off() -> None:
    slow, usual = Card(0, "a/gpu-0", "a", off=0.06), Card(1, "b/gpu-0", "b", busy=True)
    waiting = Waiting([Work(3, complete({}), "sampler", leads=True), Work(4, complete({}), "sampler")])
    assert waiting.take(slow, [slow, usual]) == Work(4, complete({}), "sampler")
    assert waiting.take(slow, [slow, usual]) is None
    assert not waiting.has_room(slow, [slow, usual]), "no more is asked for it than the others can take"
    usual.is_here = False
    assert waiting.take(slow, [slow, usual]) is not None, "there is no other card"


def test_two_results_for_one_trial_count_once(tmp_path: Path) -> None:
    """A worker that was thought dead comes back with its result, before and after the second one."""
    cluster, late = made_up(tmp_path), dict[str, Done]()

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        done = cluster.done(ticket, card, order)
        if order.place in ("trials/0004", "trials/0006") and order.place not in late:
            late[order.place] = done
            return [Lost(ticket, "its node does not answer"), *([done] if order.place == "trials/0004" else [])]
        return [done, *([late[order.place]] if order.place == "trials/0006" else [])]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster)
    assert [trial.number for trial in search.study.trials] == list(range(14))
    assert sum(isinstance(event, TrialStarted) for event in search.events) == 14
    assert not list((tmp_path / "arriving").iterdir()), "its files are dropped"


def test_a_card_that_goes_and_comes_back_runs_the_baseline_first(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))

    def answer(cluster: MadeUp, ticket: int, card: int, order: Order) -> list[News]:
        if order.place == "trials/0004" and sum(given[2].place == order.place for given in cluster.given) == 1:
            return [Gone((card,)), Lost(ticket, "its node died"), Ready(card, ["a", "b"][card])]
        return [cluster.done(ticket, card, order)]

    cluster.answer = answer
    search = Exploring(tmp_path / "study", cluster)
    assert [trial.number for trial in search.study.trials] == list(range(14))
    place = next(i for i, given in enumerate(cluster.given) if given[2].place == "trials/0004")
    gone = cluster.given[place][1]
    after = next(order for _, card, order in cluster.given[place + 1 :] if card == gone)
    assert after.place.startswith("anchors/")


def test_a_search_without_a_card_ends_with_their_names(tmp_path: Path) -> None:
    cluster = made_up(tmp_path, hosts=("a", "b"))
    cluster.answer = lambda cluster, ticket, card, order: [
        cluster.done(ticket, card, order, outcome=None, refused="it has torch 2.12, the study 2.13")
    ]
    with pytest.raises(UserError, match=r"a/gpu-0 is not like the others: it has torch 2\.12.*b/gpu-0 .*continues"):
        Exploring(tmp_path / "study", cluster)


def test_a_baseline_that_fails_ends_the_search_with_its_reason(tmp_path: Path) -> None:
    cluster = made_up(tmp_path)
    failed = Failure(cause="error", reason="no such weights")
    cluster.answer = lambda cluster, ticket, card, order: [cluster.done(ticket, card, order, outcome=failed)]
    with pytest.raises(UserError, match=r"baseline itself failed \(error\): no such weights"):
        Exploring(tmp_path / "study", cluster)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from made_up_cluster import MadeUp
from test_explore import Exploring
cluster = MadeUp(Path({tmp!r}), ["a", "a", "b", "b"])
def answer(cluster, ticket, card, order):
    if order.place == "trials/0009":
        os.kill(os.getpid(), signal.SIGKILL)
    return [cluster.done(ticket, card, order)]
cluster.answer = answer
Exploring(Path({tmp!r}) / "study", cluster)
"""


def test_a_search_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = KILLED.format(paths=paths, tmp=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = {trial.number: trial for trial in read_trials(StudyFolder(tmp_path / "study"))}
    begun = {int(place.name) for place in StudyFolder(tmp_path / "study").trial_folders()} - before.keys()
    assert begun == {7, 8, 9} or len(begun) >= 2
    (tmp_path / "again").mkdir()
    search = Exploring(tmp_path / "study", made_up(tmp_path / "again"))
    assert [trial.number for trial in search.study.trials] == list(range(14))
    assert len({trial.config for trial in search.study.trials}) == 14, "nothing runs twice"
    kept = {trial.number: trial for trial in search.study.trials}
    assert {number: kept[number].outcome for number in before} == {n: t.outcome for n, t in before.items()}
    assert {kept[number].origin for number in begun} == {"interrupted"}
