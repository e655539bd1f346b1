"""How long a trial may take: what earlier ones took says it, within what the user allows. No processes here."""

from pathlib import Path

import pytest
from conftest import make_target
from made_up import failed, measured

from autotune.folders import StudyFolder
from autotune.runner import LEAST_TIMEOUT_S, Runner
from autotune.trial import Trial


def took(seconds: float, *, works: bool = True) -> Trial:
    return (measured(0) if works else failed(1)).model_copy(update={"seconds": seconds})


@pytest.mark.parametrize(
    ("earlier", "sizes", "limit_s"),
    [
        ([], 1, 1800.0),
        ([took(10.0)], 1, LEAST_TIMEOUT_S),
        ([took(10.0)], 3, 3 * LEAST_TIMEOUT_S),
        ([took(100.0), took(10.0)], 1, 500.0),
        ([took(10.0), took(1800.0, works=False)], 1, LEAST_TIMEOUT_S),
        ([took(1000.0)], 1, 1800.0),
    ],
)
def test_a_trial_may_take_five_times_the_longest_and_time_to_compile_for_each_size(
    tmp_path: Path, earlier: list[Trial], sizes: int, limit_s: float
) -> None:
    runner = Runner(StudyFolder(tmp_path), make_target(sizes=sizes), timeout_s=1800.0)
    assert runner.time_limit_s(earlier) == limit_s
