"""A replayed search skips what a real search skips, pays for the rest, and ends with the same front."""

import math
from typing import Any

import pytest
from made_up import measured
from simulated import narrow_space, simulated

from autotune.goal import Goal
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.recordings.recording import Recording, Row
from autotune.research.replay.replay import TableRunner, TableSpace, replay_once
from autotune.research.replay.reuse import FROM_CACHE, reused, spot_check_in_table
from autotune.reuse import Incumbent, Reuse, SourceTrial, SpotCheck
from autotune.study.pareto_front import objectives, pareto_front
from autotune.study.reuse_plan import picture_key, plan_reuse
from autotune.trial import Trial

INCUMBENT = Incumbent(trial=4, latencies_s=(0.1,), error=0.0, peak_memory_bytes=1)
SOURCE = SourceTrial(trial=0, prompt=0, suspects={}, min_psnr_db=None, conclusive=True)
CALLS = 16  # they draw all pictures


def row(samples_s: tuple[float, ...], **more: Any) -> Row:
    return Row(
        trial=1,
        origin="sampler",
        values=dict(complete({})),
        outcome="measured",
        latency_samples_s=samples_s,
        seconds=100.0,
        score_s=4.0,
        **more,
    )


def outcome(samples_s: tuple[float, ...]) -> Measurement:
    trial = measured(1)
    assert trial.measured is not None
    return trial.measured.model_copy(update={"latency_samples_s": samples_s})


QUIET = (1.0,) * CALLS
NOISY = (1.0, 1.5) * 8  # timing stops ten seconds after the fifth call, still imprecise


@pytest.mark.parametrize(("samples_s", "timed"), [(QUIET, 5), (NOISY, 12)])
def test_a_trial_with_a_source_costs_its_phases_and_the_timed_calls(samples_s: tuple[float, ...], timed: int) -> None:
    seen, seconds = reused(row(samples_s), outcome(samples_s), Reuse(source=SOURCE), [measured(0)], CALLS)
    assert seen.quality_of == 0
    assert seconds == pytest.approx(100.0 - 4.0 - sum(samples_s[timed:]))


def test_code_that_an_earlier_trial_compiled_costs_the_cache_lookup() -> None:
    spent = reused(row(QUIET, compile_s=60.0), outcome(QUIET), Reuse(), [measured(0)], CALLS)[1]
    found = reused(row(QUIET, compile_s=60.0), outcome(QUIET), Reuse(compiler=0), [measured(0)], CALLS)[1]
    assert spent - found == pytest.approx((1 - FROM_CACHE) * 60.0)


def test_a_replayed_search_times_no_better_than_a_real_one() -> None:
    """Its latency is that of the calls that it would have timed, and it pays only for these."""
    samples_s = (1.0, 1.05, 0.95, 1.02, 0.98, 1.04, 0.97, 1.03, 0.96, 1.01, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    seen, seconds = reused(row(samples_s), outcome(samples_s), Reuse(source=SOURCE, spread=0.04), [measured(0)], CALLS)
    assert seen.latency_samples_s == samples_s[:10]
    assert seconds == pytest.approx(100.0 - 4.0 - 12.0)
    alone, seconds = reused(row(samples_s), outcome(samples_s), Reuse(spread=0.04), [measured(0)], CALLS)
    assert (alone.latency_samples_s, seconds) == (samples_s, pytest.approx(100.0)), "all pictures are drawn"


def test_a_stopped_trial_costs_its_phases_and_the_least_number_of_calls() -> None:
    seen, seconds = reused(row(QUIET), outcome(QUIET), Reuse(incumbents=(INCUMBENT,)), [measured(0)], CALLS)
    assert (seen.quality, seen.stopped is not None) == (None, True)
    assert seconds == pytest.approx(100.0 - 4.0 - 11.0)


def test_a_trial_that_is_dominated_only_after_all_calls_skips_the_scoring() -> None:
    """Its first calls are fast."""
    samples_s = (0.1,) * 5 + (1.0,) * 11
    seen, seconds = reused(row(samples_s), outcome(samples_s), Reuse(incumbents=(INCUMBENT,)), [measured(0)], CALLS)
    assert seen.stopped is not None
    assert seconds == pytest.approx(96.0)


def test_pictures_that_differ_from_the_source_are_paid_for_beside_the_timed_calls() -> None:
    judged = Quality(metric="clip", scorer="demo@0", clip_scores=(30.0, 31.0), ssim=(0.8, 0.8), psnr_db=(20.0, 20.0))
    mine = outcome(QUIET).model_copy(update={"quality": judged})
    same = Quality(metric="clip", scorer="demo@0", clip_scores=(30.0, 31.0), ssim=(1.0, 1.0), psnr_db=(None, None))
    seen, seconds = reused(row(QUIET), mine, Reuse(source=SOURCE), [measured(0, judged=same)], CALLS)
    assert seen.spot_check is not None
    assert (seen.quality, seen.quality_of, seen.spot_check.same) == (judged, None, False)
    assert seen.spot_check.psnr_db == pytest.approx(20.0)
    assert seconds == pytest.approx(100.0 + 5.0)


def test_two_pictures_are_as_far_apart_as_their_distances_from_the_baseline_differ() -> None:
    def at(psnr_db: float) -> Trial:
        judged = Quality(
            metric="clip", scorer="demo@0", clip_scores=(30.0, 31.0), ssim=(0.9, 0.9), psnr_db=(psnr_db, psnr_db)
        )
        return measured(0, judged=judged)

    def spot_check(own: float, other: float) -> SpotCheck:
        outcome = at(own).measured
        assert outcome is not None
        return spot_check_in_table(outcome, SOURCE, [at(other)])

    assert spot_check(30.0, 30.0).psnr_db is None
    apart = 255 * (10 ** (-20 / 20) - 10 ** (-40 / 20))
    assert spot_check(20.0, 40.0).psnr_db == pytest.approx(20 * math.log10(255 / apart))
    assert spot_check(40.0, 20.0) == spot_check(20.0, 40.0)


class Twice:
    """Runs the same trials without reuse, and with reuse; `reusing` holds the latter."""

    def __init__(self, table: Recording) -> None:
        self.space = TableSpace(table)
        self.runner, self.reusing = TableRunner(table, self.space), list[Trial]()
        self.table = table

    def run(self, budget: int) -> list[Trial]:
        trials = self.table.trials()[:budget]
        record = self.table.record()
        for trial in trials:
            reuse = plan_reuse(trial.number, trial.config, self.reusing, (), record) if self.reusing else None
            outcome = self.runner.run(None, trial.config, pictures=True, earlier=self.reusing, reuse=reuse)  # type: ignore[arg-type]
            self.reusing.append(trial.model_copy(update={"outcome": outcome}))
        return trials


def crowded(seed: int) -> Recording:
    """160 configs in random order; many of them draw the same pictures."""
    space = narrow_space(
        dtype=("fp32", "bf16"),
        steps=("workload", 8),
        tome_ratio=(0.0, 0.5),
        memory_format=("contiguous", "channels_last"),
        qkv_fusion=(False, True),
        attention=("sdpa", "sdpa_math"),
        compile=("off", "regional", "denoiser"),
    )
    return simulated(seed, space=space, recipes={}, rows=160, fault_rules=1)


def noise_free(seed: int) -> Recording:
    """A table in which configs that draw the same pictures have the same loss, and small losses are 0."""
    table = crowded(seed)
    losses: dict[object, float] = {}
    rows = []
    for one in table.rows:
        if one.outcome != "measured":
            rows.append(one)
            continue
        assert one.quality_loss is not None
        key = picture_key(complete(one.values))
        loss = losses.setdefault(key, 0.0 if one.quality_loss < 0.03 else round(one.quality_loss, 2))
        rows.append(one.model_copy(update={"quality_loss": loss, "clip_scores": (30.0 - loss,)}))
    return table.model_copy(update={"rows": tuple(rows)})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("limits", [{}, {"max_vram_bytes": 900_000_000}, {"max_latency_s": 0.9}])
def test_of_the_same_trials_the_front_is_exactly_the_same(seed: int, limits: dict[str, Any]) -> None:
    """Reuse does not bias the front: stopped trials are not on it, and a quality taken over is the same."""
    table = noise_free(seed)
    goal = Goal(max_quality_drop=0.3, **limits)
    table = table.model_copy(update={"header": table.header.model_copy(update={"goal": goal})})
    twice = Twice(table)
    trials = twice.run(160)
    stopped = [t for t in twice.reusing if t.measured and t.measured.stopped]
    shared = [t for t in twice.reusing if t.measured and t.measured.quality_of is not None]
    assert len(stopped) > 3
    assert len(shared) > 10
    fronts = [pareto_front(found, found[0]) for found in (trials, twice.reusing)]
    assert [t.number for t in fronts[0]] == [t.number for t in fronts[1]]


@pytest.mark.parametrize("seed", range(2))
def test_with_noise_a_missing_trial_of_the_front_is_within_the_noise_of_another(seed: int) -> None:
    """For every trial of the front without reuse there is one as good, within 4 standard deviations of the loss."""
    twice = Twice(crowded(seed))
    trials = twice.run(160)
    front = [objectives(t, trials[0]) for t in pareto_front(twice.reusing, trials[0])]
    for latency_s, memory_bytes, loss in (objectives(t, trials[0]) for t in pareto_front(trials, trials[0])):
        assert any(
            mine_s <= 1.01 * latency_s and mine_bytes <= 1.02 * memory_bytes and mine <= loss + 0.08
            for mine_s, mine_bytes, mine in front
        )


def test_a_replay_reuses_unless_told_otherwise() -> None:
    table = simulated(3, rows=60)
    reusing, plain = (replay_once(table, "random", 0, 40, reuse=reuse) for reuse in (True, False))
    assert any(t.measured and (t.measured.stopped or t.measured.spot_check) for t in reusing)
    assert not any(t.measured and (t.measured.stopped or t.measured.spot_check) for t in plain)
    assert sum(t.seconds for t in plain) == pytest.approx(
        sum(row.seconds for row in table.rows if complete(row.values) in {t.config for t in plain})
    )
