"""Best so far and hypervolume: right on cases that one can work out by hand, and never falling."""

import itertools
import random

import pytest
from made_up import failed, measured

from autotune.goal import Goal
from autotune.report.page.progress import hypervolume, progress
from autotune.trial import Anchor

GOAL = Goal(max_quality_drop=0.3)
MIB = 2**20


def test_the_hypervolume_of_one_point_is_its_box() -> None:
    assert hypervolume([(0.25,)]) == pytest.approx(0.75)
    assert hypervolume([(0.5, 0.5)]) == pytest.approx(0.25)
    assert hypervolume([(0.5, 0.5, 0.2)]) == pytest.approx(0.2)
    assert hypervolume([]) == 0.0


def test_boxes_that_overlap_count_once() -> None:
    assert hypervolume([(0.0, 0.5), (0.5, 0.0)]) == pytest.approx(0.75)
    assert hypervolume([(0.0, 0.5), (0.5, 0.0), (0.6, 0.6)]) == pytest.approx(0.75)


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_it_agrees_with_counting_random_places(dimensions: int) -> None:
    rng = random.Random(dimensions)
    points = [tuple(rng.random() for _ in range(dimensions)) for _ in range(6)]
    places = [[rng.random() for _ in range(dimensions)] for _ in range(20_000)]
    hit = sum(any(all(x <= y for x, y in zip(p, place, strict=True)) for p in points) for place in places)
    assert hypervolume(points) == pytest.approx(hit / len(places), abs=0.015)


def test_neither_figure_ever_falls_and_failed_trials_take_their_time() -> None:
    rng = random.Random(0)
    others = [
        measured(n, latency_s=rng.uniform(0.3, 2), memory_bytes=rng.randrange(50, 200) * MIB) for n in range(1, 20)
    ]
    trials = [measured(0), *others, failed(20)]
    steps = progress(trials, [], GOAL)
    assert [step.trial for step in steps] == list(range(21))
    assert [step.seconds for step in steps] == pytest.approx([3.0 * n for n in range(1, 22)])
    for before, after in itertools.pairwise(steps):
        assert after.hypervolume >= before.hypervolume
        assert (after.speedup or 0) >= (before.speedup or 0)
    assert steps[-1].speedup == pytest.approx(1.0 / min(t.measured.latency_s for t in others if t.measured))


def test_the_best_so_far_keeps_the_limits() -> None:
    trials = [measured(0), measured(1, latency_s=0.1, loss=5.0), measured(2, latency_s=0.5)]
    assert [step.speedup for step in progress(trials, [], GOAL)] == pytest.approx([1.0, 1.0, 2.0])


def test_anchors_take_their_time_too() -> None:
    again = measured(0).outcome
    steps = progress([measured(0), measured(1)], [Anchor(before=1, outcome=again, seconds=10.0)], GOAL)
    assert [step.seconds for step in steps] == [3.0, 16.0]


def test_without_a_baseline_there_is_no_progress_to_speak_of() -> None:
    assert progress([], [], GOAL) == []
    assert progress([failed(0)], [], GOAL) == []
    assert progress([measured(0)], [], GOAL)[0].speedup == 1.0
