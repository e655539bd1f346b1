"""Asking while other trials run: nothing is proposed twice, and what is pending counts as predicted."""

import itertools
from pathlib import Path

import optuna
import pytest
from conftest import make_target
from made_up import measured, record

from autotune.config import Config
from autotune.frozen_model import write_json
from autotune.job import MeasureJob
from autotune.knobs import complete
from autotune.sampler import AutoSampler
from autotune.study.proposals import SAMPLERS
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.storage import InMemory, OnDisk, Store
from autotune.study.study import Study
from autotune.study_folder import StudyFolder

DEMO = shipped_space_file("demo.toml")
XS, TWINS = (0, 1, 2, 3, 4), (0, 1, 2, 3)


def opened(path: Path, *, sampler: str = "auto", store: Store | None = None) -> Study:
    space = make_space(make_target(), DEMO, fix={}, exclude=(), baseline=complete({}))
    folder = StudyFolder(path)
    return Study(folder, record(space=space.values), space, sampler=sampler, store=store or InMemory(), parallel=True)


def told(study: Study, number: int, config: Config) -> None:
    latency_s = 1.0 - 0.3 * (config["dtype"] == "bf16") + int(config.digest, 16) % 100 / 1000
    study.tell(measured(number, config, latency_s=latency_s))


@pytest.mark.parametrize("sampler", sorted({*SAMPLERS} - {"gp"}))  # Optuna's GP takes half a minute a proposal
def test_nothing_that_is_pending_is_proposed_again(tmp_path: Path, sampler: str) -> None:
    study, pending = opened(tmp_path, sampler=sampler), dict[int, Config]()
    told(study, 0, complete({}))
    for number in range(1, 7):  # enough for every sampler to propose, and not to draw at random
        asked = study.ask()
        assert asked is not None
        assert asked[0] == number
        told(study, *asked[:2])
    while len(pending) < 5:
        asked = study.ask(pending)
        assert asked is not None
        pending[asked[0]] = asked[1]
    assert sorted(pending) == [7, 8, 9, 10, 11]
    assert len(set(pending.values()) | {trial.config for trial in study.trials}) == 12
    for number in (8, 7, 11, 10, 9):  # in any order
        told(study, number, pending.pop(number))
    assert [trial.number for trial in study.trials] == list(range(12))
    known = {t.user_attrs["trial"]: t for t in study._optuna.get_trials(deepcopy=False)}
    assert sorted(known) == list(range(12))
    assert all(trial.state.is_finished() for trial in known.values())


def proposal(pending: list[dict[str, int]]) -> dict[str, int]:
    """What AutoSampler proposes where x decides everything, its best value is new, and each x has four equal twins."""
    left = [{"x": x, "twin": twin} for x, twin in itertools.product(XS, TWINS)]
    done = [p for p in left if p["x"] < 3 or (p["x"] == 3 and p["twin"] == 0)]
    candidates = [p for p in left if p not in done and p not in pending]
    sampler = AutoSampler(seed=0, candidates=lambda best: candidates, pending=lambda: pending)
    study = optuna.create_study(sampler=sampler)
    space = {name: optuna.distributions.CategoricalDistribution(v) for name, v in (("x", XS), ("twin", TWINS))}
    for params in done:
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=2.0 - 0.3 * params["x"]))
    return study.ask(space).params


def test_a_twin_of_a_pending_config_is_not_worth_a_trial() -> None:
    """The unknown x=4 is the most promising at first. While one of its twins runs, the others promise no more."""
    assert proposal([])["x"] == 4


@pytest.mark.parametrize("twin", TWINS)
def test_a_config_that_is_predicted_to_be_as_good_as_a_pending_one_comes_later(twin: int) -> None:
    pending = [{"x": 3, "twin": twin}] if twin else []
    assert proposal(pending) != {"x": 3, "twin": twin}


def test_what_several_workers_ran_when_the_search_was_killed_is_given_out_again(tmp_path: Path) -> None:
    study, pending = opened(tmp_path, store=OnDisk(StudyFolder(tmp_path))), dict[int, Config]()
    told(study, 0, complete({}))
    for _ in range(3):
        asked = study.ask(pending)
        assert asked is not None
        number, pending[asked[0]] = asked[:2]
        study.folder.trial(number).mkdir(parents=True)
        job = MeasureJob(target=make_target(), values=dict(asked[1]), pictures=True)
        write_json(study.folder.trial(number) / "job.json", job.to_json())
    told(study, 3, pending.pop(3))
    again = opened(tmp_path, store=OnDisk(StudyFolder(tmp_path)))
    first = again.ask()
    assert first == (1, pending[1], "interrupted")
    second = again.ask({1: pending[1]})
    assert second == (2, pending[2], "interrupted")
    third = again.ask(pending)
    assert third is not None
    assert third[0] == 4
    assert third[1] not in [*pending.values(), again.trials[-1].config]
