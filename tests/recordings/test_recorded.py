"""The recorded spaces that are shipped: their headers, and that searches of them find the front."""

import statistics
from pathlib import Path

import pytest

from autotune.recordings.parquet import read_table
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import replay_once

FOLDER = Path(__file__).parents[2] / "reports" / "recorded"
TABLES = sorted(FOLDER.glob("*.parquet"))
SEEDS = range(4)
BUDGET = 40


@pytest.fixture(params=TABLES, ids=lambda path: str(path.stem))
def table(request: pytest.FixtureRequest) -> Recording:
    return read_table(request.param)


def test_at_least_three_spaces_are_shipped() -> None:
    assert len(TABLES) >= 3


def test_its_header_has_the_command_and_no_path(table: Recording) -> None:
    header = table.header
    assert header.command.startswith("autotune record --")
    assert "/tmp" not in header.command
    assert header.scorer is None or not Path(header.scorer).is_absolute()
    assert len(table.rows) <= (header.allowed_configs or len(table.rows))
    assert not any("/tmp" in (row.reason or "") or "/root" in (row.reason or "") for row in table.rows)


def test_reuse_leaves_the_front_as_it_is(table: Recording) -> None:
    """With reused pictures and early stopping: no config of the true front is stopped or misjudged."""
    reference = ReferenceFront(table.trials(), table.header.goal)
    for seed in SEEDS:
        trials = replay_once(table, "random", seed, len(table.rows), reuse=True)
        assert reference.shares(trials)[-1] > 0.99
        assert reference.picks(trials)[-1] > 0.99


def test_auto_sampler_finds_more_than_random_and_loses_no_more_trials(table: Recording) -> None:
    reference = ReferenceFront(table.trials(), table.header.goal)
    auto, chance = (
        [convergence_of(replay_once(table, name, seed, BUDGET), reference, seed) for seed in SEEDS]
        for name in ("auto", "random")
    )
    assert {c.found[0] for c in (*auto, *chance)} == {0}, "the baseline alone"
    for count in (10, 20, BUDGET):
        assert statistics.fmean(c.at(count) for c in auto) > statistics.fmean(c.at(count) for c in chance) - 0.02
    assert statistics.fmean(c.at(BUDGET) for c in auto) > 0.9
    assert sum(c.faults for c in auto) <= sum(c.faults for c in chance) + len(SEEDS)
