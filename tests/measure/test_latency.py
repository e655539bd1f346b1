"""The clock: warm-up ends when calls agree, the first call is kept apart, all raw samples are kept."""

import time
from typing import Any

import pytest
from conftest import make_target

from autotune import measure
from autotune.measure import latency
from autotune.measure.memory import ResidentMeter


class FakeClock:
    """Time that only passes when a call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def calls(self, *seconds: float) -> Any:
        left = list(seconds)

        def call() -> float:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return self.now

        return call


def test_a_call_is_timed_with_what_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    assert latency.timed(clock.calls(2.5), "cpu") == (2.5, 102.5)


def test_warm_up_ends_when_two_calls_in_a_row_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    assert latency.warm_up(clock.calls(8.0, 2.0, 1.01, 1.0, 1.0), "cpu") == pytest.approx([8.0, 2.0, 1.01, 1.0])


def test_warm_up_ends_at_its_limit_where_calls_never_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    seconds = latency.warm_up(clock.calls(1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0), "cpu")
    assert len(seconds) == latency.WARMUP_MOST_CALLS


class SlowAtFirst:
    """A pipe whose first call takes 6.7 times as long as the others, as compiled ones do."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.asked = clock, []

    def __call__(self, *, prompt: list[str], **_: Any) -> Any:
        self.clock.now += 6.7 if not self.asked else 1.0
        self.asked.append(prompt)
        return type("Output", (), {"images": [f"a picture of {one}" for one in prompt]})


def fake_pipes(monkeypatch: pytest.MonkeyPatch, kernels: dict[str, int]) -> None:
    """What a pipe is called with, and what the profiler sees, without a real one."""
    monkeypatch.setattr(measure, "attention_kernels", lambda pipe, call: kernels)
    monkeypatch.setattr(measure, "call_arguments", lambda pipe, workload, prompts, seeds, given: {"prompt": prompts})


def test_a_slow_first_call_is_not_in_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pipes(monkeypatch, {"flash": 2})
    workload = make_target().workload.model_copy(update={"prompts": ("one", "two", "three"), "batch": 2})
    checked: list[dict[str, int]] = []
    fields, images = measure.measure_pipe(
        SlowAtFirst(FakeClock(monkeypatch)),
        workload,
        ResidentMeter(),
        device="cpu",
        pictures=True,
        check=checked.append,
    )
    assert fields["first_call_s"] == pytest.approx(6.7)
    assert fields["latency_samples_s"] == pytest.approx([1.0] * latency.LEAST_CALLS)
    assert images == ["a picture of one", "a picture of two", "a picture of three"]
    assert checked == [{"flash": 2}]


def test_without_pictures_the_least_number_of_calls_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pipes(monkeypatch, {})
    workload = make_target().workload.model_copy(update={"prompts": tuple("abcdefghijkl")})
    pipe = SlowAtFirst(FakeClock(monkeypatch))
    fields, images = measure.measure_pipe(
        pipe, workload, ResidentMeter(), device="cpu", pictures=False, check=lambda kernels: None
    )
    assert len(fields["latency_samples_s"]) == latency.LEAST_CALLS
    assert images == []
