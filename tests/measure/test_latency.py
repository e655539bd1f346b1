"""The clock: warm-up ends when calls agree, the first call is kept apart, calls are timed until their noise is known.

Promises 3 (at least five calls, all kept), 4 (noise) and 6 (first call apart).
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import make_target

from autotune import measure
from autotune.measure import latency
from autotune.measure.disturbance import Disturbance
from autotune.measure.kernels import Profiled
from autotune.measure.latency import NoCleanSamples
from autotune.measure.memory import ResidentMeter
from autotune.measurement import Phases
from autotune.worker.classify import classify


class FakeClock:
    """Time that only passes when a call says so, or a pause."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.pauses.append)

    def calls(self, *seconds: float) -> Any:
        """Each takes one of these; the last for ever."""
        left = list(seconds)

        def call(number: int = 0) -> float:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return self.now

        return call

    def endless(self, seconds: Iterator[float]) -> Callable[[int], int]:
        def call(number: int) -> int:
            self.now += next(seconds)
            return number

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock(monkeypatch)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a user's machine: noise is not accepted."""
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)


class Unwatched:
    """The watch of a device that nothing disturbs."""

    window_s = 0.0

    def start(self) -> None:
        pass

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> Disturbance | None:
        return None

    def health(self) -> Any:
        return None

    def energy_j(self) -> float | None:
        return None


class Watched(Unwatched):
    """Disturbs the samples with these numbers, counted from 0 as they are taken."""

    def __init__(self, disturbed: set[int], *, window_s: float = 0.0, why: Any = "contended") -> None:
        self.disturbed, self.window_s, self.why, self.ended = disturbed, window_s, why, 0

    def end(self, seconds: float) -> Any:
        self.ended += 1
        return Disturbance(self.why, "somebody else") if self.ended - 1 in self.disturbed else None


def sample(call: Any, *, keep: int = 0, watch: Any = None, **how: Any) -> latency.Sampled[Any]:
    return latency.sample(call, watch or Unwatched(), keep=keep, device="cpu", **how)


def test_a_call_is_timed_with_what_it_returns(clock: FakeClock) -> None:
    assert latency.timed(clock.calls(2.5), "cpu") == (2.5, 102.5)


def test_warm_up_ends_when_three_calls_in_a_row_agree(clock: FakeClock) -> None:
    calls = clock.calls(8.0, 2.0, 1.01, 1.0, 1.025, 1.02, 1.01, 1.0)
    assert latency.warm_up(calls, "cpu") == pytest.approx([8.0, 2.0, 1.01, 1.0, 1.025, 1.02, 1.01])


def test_warm_up_ends_at_its_limit_where_calls_never_agree(clock: FakeClock) -> None:
    assert len(latency.warm_up(clock.calls(*[1.0, 1.5] * 9), "cpu")) == latency.WARMUP_MOST_CALLS == 10


def test_a_warm_up_of_a_quick_search_ends_after_its_seconds_with_three_calls_at_least(clock: FakeClock) -> None:
    assert len(latency.warm_up(clock.calls(*[1.0, 1.5] * 9), "cpu", budget_s=2.0)) == latency.WARMUP_CALLS == 3
    assert len(latency.warm_up(clock.calls(*[1.0, 1.5] * 9), "cpu", budget_s=6.0)) == 5


@pytest.mark.parametrize("keep", [0, 1, 5, 12])
def test_promise_3_never_fewer_than_five_nor_than_the_results_to_keep_and_all_are_counted(
    clock: FakeClock, keep: int
) -> None:
    sampled = sample(clock.calls(2.0), keep=keep)
    assert sampled.samples_s == pytest.approx([2.0] * max(5, keep))
    assert sampled.stopped_by == "spread"
    assert len(sampled.results) == keep


def test_short_calls_go_on_until_they_have_taken_half_a_second(clock: FakeClock) -> None:
    sampled = sample(clock.calls(0.0251))
    assert len(sampled.samples_s) == 20
    assert sampled.stopped_by == "spread"


def test_calls_go_on_until_their_noise_is_small(clock: FakeClock) -> None:
    """One odd call at the start; it weighs less and less."""
    sampled = sample(clock.calls(0.103, 0.1))
    with_last, without = (
        statistics.stdev(s) / statistics.fmean(s) for s in (sampled.samples_s, sampled.samples_s[:-1])
    )
    assert sampled.stopped_by == "spread"
    assert with_last < latency.QUIET <= without
    assert len(sampled.samples_s) > 30


def test_calls_end_when_their_noise_does_not_get_smaller(clock: FakeClock) -> None:
    sampled = sample(clock.endless(itertools.cycle([0.1, 0.104])))
    assert sampled.stopped_by == "plateau"
    assert 20 <= len(sampled.samples_s) < 60


def test_calls_end_with_the_budget_where_their_noise_grows(clock: FakeClock) -> None:
    growing = (0.5 * 1.02**number for number in itertools.count())
    sampled = sample(clock.endless(growing), keep=3)
    assert sampled.stopped_by == "budget"
    assert 9.0 < sum(sampled.samples_s[5:]) <= latency.BUDGET_S


def test_a_search_may_give_a_smaller_budget(clock: FakeClock) -> None:
    growing = (0.5 * 1.02**number for number in itertools.count())
    sampled = sample(clock.endless(growing), keep=3, budget_s=2.0)
    assert sampled.stopped_by == "budget"
    assert 1.0 < sum(sampled.samples_s[5:]) <= 2.0


def test_no_call_is_begun_that_would_end_after_the_budget(clock: FakeClock) -> None:
    sampled = sample(clock.endless(itertools.cycle([20.0, 21.0])))
    assert (len(sampled.samples_s), sampled.stopped_by) == (5, "budget")


def test_calls_end_with_the_budget_of_calls(clock: FakeClock) -> None:
    sampled = sample(clock.calls(0.001))
    assert (len(sampled.samples_s), sampled.stopped_by) == (latency.BUDGET_CALLS, "budget")


def test_promise_4_calls_that_scatter_by_more_than_a_quarter_have_no_median(clock: FakeClock) -> None:
    with pytest.raises(NoCleanSamples, match=r"scatter.*AUTOTUNE_BUSY") as raised:
        sample(clock.endless(itertools.cycle([1.0, 1.0, 1.4, 1.4])))
    assert raised.value.why == "noisy"


def test_promise_4_calls_that_scatter_less_have_one(clock: FakeClock) -> None:
    assert len(sample(clock.endless(itertools.cycle([1.0, 1.0, 1.2, 1.2]))).samples_s) >= 5


def test_on_a_machine_that_is_never_idle_noise_is_accepted_when_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setenv("AUTOTUNE_BUSY", "accept")
    sampled = sample(clock.endless(itertools.cycle([1.5, 1.5, 3.0, 3.0])))
    assert (len(sampled.samples_s), sampled.stopped_by) == (5, "budget")


def test_a_disturbed_call_is_timed_again_and_its_picture_is_used_once(clock: FakeClock) -> None:
    asked: list[int] = []

    def call(number: int) -> str:
        asked.append(number)
        clock.now += 3.0 if len(asked) == 2 else 1.0
        return f"picture {number}, made in call {len(asked)}"

    sampled = sample(call, keep=6, watch=Watched({1}))
    assert asked == [0, 1, 1, 2, 3, 4, 5]
    assert sampled.samples_s == pytest.approx([1.0] * 6)
    assert [(d.latency_s, d.why) for d in sampled.discarded] == [(pytest.approx(3.0), "contended")]
    assert [made.split(",")[0] for made in sampled.results] == [f"picture {n}" for n in range(6)]
    assert len({*sampled.results}) == 6


def test_short_calls_are_judged_together_and_discarded_together(clock: FakeClock) -> None:
    sampled = sample(clock.calls(0.2), keep=9, watch=Watched({1}, window_s=0.5))
    assert len(sampled.discarded) == 3
    assert len(sampled.samples_s) == 9


@pytest.mark.parametrize("why", ["throttled", "contended"])
def test_where_more_calls_are_disturbed_than_clean_there_is_no_latency(clock: FakeClock, why: Any) -> None:
    with pytest.raises(NoCleanSamples) as raised:
        sample(clock.calls(1.0), watch=Watched({*range(1, 7)}, why=why))
    assert raised.value.why == why
    failure = classify(raised.value)
    assert failure.cause == why
    assert "somebody else" in failure.reason


def test_where_half_of_the_calls_are_clean_there_is_one(clock: FakeClock) -> None:
    sampled = sample(clock.calls(1.0), watch=Watched({*range(5)}))
    assert (len(sampled.samples_s), len(sampled.discarded)) == (5, 5)


def test_the_pause_after_a_disturbance_grows_until_a_call_is_clean(clock: FakeClock) -> None:
    sample(clock.calls(1.0), keep=16, watch=Watched({0, 1, 2, 3, 4, 5, 6, 9}))
    assert clock.pauses == pytest.approx([0.05, 0.075, 0.1125, 0.16875, 0.253125, 0.3796875, 0.5, 0.05])


class SlowAtFirst:
    """A pipe whose first call takes 6.7 times as long as the others, as compiled ones do."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.asked, self.components = clock, [], dict[str, Any]()

    def __call__(self, *, prompt: list[str], **_: Any) -> Any:
        self.clock.now += 6.7 if not self.asked else 1.0
        self.asked.append(prompt)
        return type("Output", (), {"images": [f"a picture of {one}" for one in prompt]})


def fake_pipes(monkeypatch: pytest.MonkeyPatch, kernels: dict[str, int]) -> None:
    """What a pipe is called with, and what the profiler and the phases see, without a real one."""
    monkeypatch.setattr(measure, "profile_steps", lambda pipe, call: Profiled(kernels, None))
    monkeypatch.setattr(measure, "phases", lambda pipe, call, device: Phases())
    monkeypatch.setattr(measure, "call_arguments", lambda pipe, workload, prompts, seeds, given: {"prompt": prompts})


def test_promise_6_a_slow_first_call_is_not_in_the_latency(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    fake_pipes(monkeypatch, {"flash": 2})
    workload = make_target().workload.model_copy(update={"prompts": ("one", "two", "three"), "batch": 2})
    checked: list[dict[str, int] | None] = []
    fields, images = measure.measure_pipe(
        SlowAtFirst(clock),
        workload,
        ResidentMeter(),
        Unwatched(),
        device="cpu",
        pictures=True,
        check=checked.append,
    )
    assert fields["first_call_s"] == pytest.approx(6.7)
    assert statistics.median(fields["latency_samples_s"]) == pytest.approx(1.0, rel=0.01)
    assert fields["latency_samples_s"] == pytest.approx([1.0] * latency.LEAST_CALLS)
    assert images == ["a picture of one", "a picture of two", "a picture of three"]
    assert checked == [None, {"flash": 2}]


def test_without_pictures_the_least_number_of_calls_is_timed(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    fake_pipes(monkeypatch, {})
    workload = make_target().workload.model_copy(update={"prompts": tuple("abcdefghijkl")})
    fields, images = measure.measure_pipe(
        SlowAtFirst(clock),
        workload,
        ResidentMeter(),
        Unwatched(),
        device="cpu",
        pictures=False,
        check=lambda kernels: None,
    )
    assert len(fields["latency_samples_s"]) == latency.LEAST_CALLS
    assert images == []


def test_without_a_breakdown_nothing_is_called_for_it(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """A confirmation times and meters: what a call is made of, the trial has told."""
    fake_pipes(monkeypatch, {"flash": 2})
    monkeypatch.setattr(measure, "profile_steps", lambda pipe, call: Profiled({"flash": 2}, None) if call() else None)
    monkeypatch.setattr(measure, "phases", lambda pipe, call, device: Phases(denoising_step_s=1.0) if call() else None)
    called: dict[bool, int] = {}
    for breakdown in (True, False):
        pipe, checked = SlowAtFirst(clock), list[dict[str, int] | None]()
        fields, _ = measure.measure_pipe(
            pipe,
            make_target().workload,
            ResidentMeter(),
            Unwatched(),
            device="cpu",
            pictures=False,
            check=checked.append,
            breakdown=breakdown,
        )
        called[breakdown] = len(pipe.asked)
        assert checked == [None, {"flash": 2} if breakdown else None]
        assert ("phases" in fields, fields["attention_kernels"]) == (breakdown, checked[1] or {})
    assert called[False] == called[True] - 2


def test_promise_11_no_meter_runs_while_calls_are_timed(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """Every phase is closed before the first timed call, and the next is begun after the last."""
    fake_pipes(monkeypatch, {})
    meter, pipe = ResidentMeter(), SlowAtFirst(clock)
    open_in: list[str | None] = []
    monkeypatch.setattr(latency, "synchronise", lambda device: open_in.append(meter._phase))
    fields, _ = measure.measure_pipe(
        pipe, make_target().workload, meter, Unwatched(), device="cpu", pictures=True, check=lambda kernels: None
    )
    assert open_in[:2] == ["first", "first"]
    assert {*open_in[2:]} == {None}
    calls_timed = len(fields["warmup_s"]) + len(fields["latency_samples_s"])
    assert len(pipe.asked) == 1 + calls_timed + 1  # the first, and one for the memory
    assert set(fields["peaks"]) == {"first", "run", "denoising"}  # this pipe has no other part


def test_energy_is_of_a_picture_and_health_is_written_down(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    class Metered(Unwatched):
        def energy_j(self) -> Any:
            return 5 * 80.0

    fake_pipes(monkeypatch, {})
    workload = make_target(batch=4).workload
    fields, _ = measure.measure_pipe(
        SlowAtFirst(clock), workload, ResidentMeter(), Metered(), device="cpu", pictures=False, check=lambda k: None
    )
    assert fields["energy_per_picture_j"] == pytest.approx(20.0)
    assert fields["health"] is None


def test_a_spot_check_times_the_call_of_its_prompt_first_and_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    fake_pipes(monkeypatch, {})
    workload, pipe = make_target().workload.model_copy(update={"prompts": tuple("abcdefghijkl")}), SlowAtFirst(clock)
    fields, images = measure.measure_pipe(
        pipe,
        workload,
        ResidentMeter(),
        Unwatched(),
        device="cpu",
        pictures=True,
        spot_check=10,
        check=lambda kernels: None,
    )
    assert images == ["a picture of k"]
    assert len(fields["latency_samples_s"]) == latency.LEAST_CALLS
    timed = pipe.asked[1 + len(fields["warmup_s"]) :][: latency.LEAST_CALLS]
    assert timed == [["k"], ["l"], ["a"], ["b"], ["c"]]


def test_a_dominated_config_is_timed_no_more_than_the_least(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """Asked once, with the seconds of the first calls and the peak memory of the phases that were metered by then."""
    fake_pipes(monkeypatch, {})
    asked: list[tuple[int, int]] = []
    workload, meter = make_target().workload.model_copy(update={"prompts": tuple("abcdefghijkl")}), ResidentMeter()

    def dominated(answer: bool) -> Any:
        return lambda samples_s, memory_bytes: asked.append((len(samples_s), memory_bytes)) or answer

    for answer, calls, stopped_by in ((True, 5, "race"), (False, 12, "spread")):
        fields, images = measure.measure_pipe(
            SlowAtFirst(clock),
            workload,
            meter,
            Unwatched(),
            device="cpu",
            pictures=True,
            dominated=dominated(answer),
            check=lambda kernels: None,
        )
        assert (len(fields["latency_samples_s"]), len(images), fields["stopped_by"]) == (calls, calls, stopped_by)
    assert [count for count, _ in asked] == [latency.LEAST_CALLS] * 2
    assert asked[0][1] <= fields["peak_memory_bytes"]


def test_a_few_calls_that_scatter_do_not_end_the_timing_as_starting_anew_takes_longer(clock: FakeClock) -> None:
    """The quartiles of five calls are nearly their extremes: a calm config may look scattered, and compile again."""
    seconds = [1.0, 1.35, 1.0, 0.98, 1.3, 1.0, 1.0, 1.01, 0.99, 1.0, 1.0]
    assert latency.scattered(seconds[:5])
    asked: list[int] = []
    raced = sample(clock.endless(iter(seconds)), keep=16, dominated=lambda of: asked.append(len(of)) or True)
    assert (raced.stopped_by, asked, len(raced.samples_s)) == ("race", [8], 8)
    timed = sample(clock.endless(iter(seconds)), budget_s=0.0)
    assert (timed.stopped_by, len(timed.samples_s)) == ("budget", 8)


def test_what_still_scatters_after_ten_calls_is_refused(clock: FakeClock) -> None:
    with pytest.raises(NoCleanSamples, match="the interquartile range of 10 calls is"):
        sample(clock.endless(itertools.cycle([1.0, 1.5])), budget_s=0.0)
    sampled = sample(clock.endless(itertools.cycle([1.0, 1.2])), budget_s=0.0)
    assert len(sampled.samples_s) == latency.LEAST_CALLS


def test_disturbed_calls_are_taken_again_for_as_long_as_a_new_process_would_need(clock: FakeClock) -> None:
    asked: list[int] = []
    again = {"watch": Watched({*range(6)}), "dominated": lambda of: asked.append(len(of)), "patience_s": 7.0}
    sampled = sample(clock.calls(1.0), **again)
    assert (len(sampled.samples_s), len(sampled.discarded), asked) == (5, 6, [5])
    with pytest.raises(NoCleanSamples, match="6 of 6 timed calls were disturbed"):
        sample(clock.calls(1.0), watch=Watched({*range(6)}), patience_s=6.0)


def test_calls_that_scatter_at_first_are_kept_as_discarded_ones(clock: FakeClock) -> None:
    seconds = itertools.chain([1.0, 1.5] * 5, itertools.repeat(1.0))
    asked: list[int] = []
    given = {"dominated": lambda of: asked.append(len(of)), "budget_s": 0.0, "patience_s": 20.0}
    sampled = sample(clock.endless(seconds), **given)
    assert (sampled.samples_s, {call.why for call in sampled.discarded}) == ((1.0,) * 5, {"noisy"})
    assert [call.latency_s for call in sampled.discarded] == [1.0, 1.5] * 5
    assert asked == [5]


def test_a_search_times_no_better_than_processes_differ(clock: FakeClock) -> None:
    """Some 5 % from call to call, in no order: the median is known to 2 % after the least number that is believed."""
    seconds = [1.0, 1.05, 0.95, 1.02, 0.98, 1.04, 0.97, 1.03, 0.96, 1.01] * 3
    well = sample(clock.endless(iter(seconds)))
    enough = sample(clock.endless(iter(seconds)), precision=0.02)
    assert (len(enough.samples_s), enough.stopped_by) == (latency.PRECISE_CALLS, "precision")
    assert len(well.samples_s) > len(enough.samples_s)
    assert latency.calls_needed(well.samples_s, precision=0.02) == len(enough.samples_s)
    more = sample(clock.endless(iter(seconds)), keep=12, precision=0.02)
    assert (len(more.samples_s), len(more.results)) == (12, 12), "the results to keep are made all the same"
    assert sample(clock.endless(iter(seconds)), precision=0.001).stopped_by == well.stopped_by


def test_without_a_precision_none_is_good_enough(clock: FakeClock) -> None:
    """One call in twelve is odd, so that the quartiles are one: that is no reason to stop."""
    assert sample(clock.endless(iter(([1.0] * 11 + [3.0]) * 3))).stopped_by != "precision"


@pytest.mark.parametrize("seconds", [[1.0] * 30, [1.0, 1.2] * 15, [0.05] * 40, [3.0, 3.3, 2.9] * 10])
def test_how_many_calls_the_time_alone_needs_is_what_the_clock_would_have_taken(
    clock: FakeClock, seconds: list[float]
) -> None:
    """The same rule, read off calls that were timed for their pictures, too."""
    recorded = sample(clock.endless(iter(seconds)), keep=16).samples_s
    alone = sample(clock.endless(iter(seconds))).samples_s
    assert latency.calls_needed(recorded) == min(len(alone), len(recorded))
