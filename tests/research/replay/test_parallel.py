"""Replays with simulated workers: what asking in parallel changes, on a made-up table."""

import pytest
from simulated import simulated

from autotune.research.replay.parallel import replay_parallel
from autotune.research.replay.replay import replay_once

RECORDING = simulated(0, rows=120)


@pytest.mark.parametrize("sampler", ["random", "auto"])
def test_one_worker_is_the_sequential_search(sampler: str) -> None:
    alone = replay_once(RECORDING, sampler, 0, 12)
    trials, ended_s = replay_parallel(RECORDING, sampler, 0, 12, workers=1)
    assert [trial.config for trial in trials] == [trial.config for trial in alone]
    assert ended_s[-1] == pytest.approx(sum(trial.seconds for trial in alone))


def test_eight_workers_try_as_many_configs_in_a_fraction_of_the_time() -> None:
    _, alone_s = replay_parallel(RECORDING, "random", 0, 40, workers=1)
    trials, ended_s = replay_parallel(RECORDING, "random", 0, 40, workers=8)
    assert len({trial.config for trial in trials}) == len(trials) == 40
    assert ended_s == sorted(ended_s)
    assert ended_s[-1] < alone_s[-1] / 3
    assert len({trial.card for trial in trials}) == 8
