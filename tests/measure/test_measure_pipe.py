"""The order of a measurement, and the memory of its parts, with a pipe and a GPU that are not there."""

from types import SimpleNamespace
from typing import Any

import machines
import pytest
import torch
from conftest import make_target
from machines import MIB, FakeCuda

from autotune import measure
from autotune.building.build import NoEffect
from autotune.measure.memory import cap, meter_for
from autotune.measure.phases import PARTS
from autotune.worker.classify import classify

TEXT, STEP, DECODE = 300 * MIB, 900 * MIB, 1500 * MIB  # what the parts of a call need
STEPS = 4


class Pipe:
    """Text encoder, four steps, VAE. It logs its calls, and allocates on the fake GPU."""

    def __init__(self, cuda: FakeCuda, log: list[str]) -> None:
        self.cuda, self.log, self.steps = cuda, log, list[int]()
        self.components = {"text_encoder": object()}
        self.vae = SimpleNamespace(decode=lambda: cuda.allocate(DECODE))
        self.scheduler = SimpleNamespace(step=lambda: cuda.allocate(STEP), scale_model_input=lambda: None)

    def encode_prompt(self) -> None:
        self.cuda.allocate(TEXT)

    def __call__(self, *, num_inference_steps: int, **_: Any) -> Any:
        self.log.append("call")
        self.steps.append(num_inference_steps)
        self.encode_prompt()
        for _step in range(num_inference_steps):
            self.scheduler.scale_model_input()
            self.scheduler.step()
        self.vae.decode()
        return SimpleNamespace(images=["a picture"])


class LoggedWatch:
    window_s = 0.0

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def start(self) -> None:
        self.log.append("series")

    def begin(self) -> None:
        self.log.append("timed")

    def end(self, seconds: float) -> None:
        self.log.append("end of timed")

    def health(self) -> None:
        return None

    def energy_j(self) -> None:
        return None


class Profiler:
    """In place of torch's. The GPU worked for 30 ms in two streams, of which 10 ms overlap."""

    log: list[str]

    def __init__(self, activities: Any) -> None:
        self.activities = activities

    def start(self) -> None:
        self.log.append("profiled")

    def stop(self) -> None:
        self.log.append("end of profiled")

    @property
    def profiler(self) -> Any:
        on, kernel = torch.autograd.DeviceType, "aten::_scaled_dot_product_flash_attention"
        launched = [recorded(kernel, on.CPU, 0, 10**9)] * 6
        events = [*launched, recorded("a", on.CUDA, 0, 20 * 10**6), recorded("b", on.CUDA, 10 * 10**6, 30 * 10**6)]
        return SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: events))


def recorded(name: str, device: Any, start_ns: int, end_ns: int) -> SimpleNamespace:
    """An event of the profiler: its fields are methods."""
    fields = {"name": name, "device_type": device, "start_ns": start_ns, "end_ns": end_ns, "is_user_annotation": False}
    return SimpleNamespace(**{field: lambda value=value: value for field, value in fields.items()})


class Event:
    """A CUDA event; 40 ms lie between any two."""

    made = 0

    def __init__(self, *, enable_timing: bool) -> None:
        Event.made += 1
        self.number = Event.made

    def record(self, stream: str) -> None:
        pass

    def elapsed_time(self, later: "Event") -> float:
        return 40.0 * (later.number - self.number)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> Pipe:
    _, cuda = machines.desktop_4090().install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(Profiler, "log", log, raising=False)

    def arguments(pipe: Any, workload: Any, prompts: Any, seeds: Any, given: Any) -> dict[str, Any]:
        return {"num_inference_steps": workload.steps}

    monkeypatch.setattr(measure, "call_arguments", arguments)
    return Pipe(cuda, log)


def measured(pipe: Pipe, *, check: Any = lambda kernels: None, meter: Any = None, sizes: int = 1) -> dict[str, Any]:
    workload = make_target(sizes=sizes).workload.model_copy(update={"steps": STEPS})
    fields, _ = measure.measure_pipe(
        pipe,  # type: ignore[arg-type]
        workload,
        meter or meter_for("cuda:0"),
        LoggedWatch(pipe.log),
        device="cuda:0",
        pictures=True,
        check=check,
    )
    return fields


@pytest.mark.parametrize("sizes", [1, 2])
def test_the_profiler_comes_after_all_that_is_timed_or_metered(
    pipe: Pipe, log: list[str], sizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = meter_for("cuda:0")
    start = meter.start
    monkeypatch.setattr(meter, "start", lambda phase: (log.append(f"metered {phase}"), start(phase)))
    measured(pipe, meter=meter, sizes=sizes)
    assert log.count("profiled") == 1
    assert log.count("timed") >= 5 * sizes
    assert log[log.index("profiled") :] == ["profiled", "end of profiled"]
    assert log[log.index("profiled") - 1] == "call"  # the call that is profiled


def test_every_call_is_one_of_the_workload(pipe: Pipe) -> None:
    """guidance_cutoff was believed, because a call of three steps had one that was unguided."""
    measured(pipe)
    assert set(pipe.steps) == {STEPS}


def test_each_size_is_a_series_of_its_own_for_the_watch(pipe: Pipe, log: list[str]) -> None:
    measured(pipe, sizes=2)
    assert log.count("series") == 2


def test_a_config_that_does_nothing_is_not_timed_unless_only_the_profiler_can_tell(pipe: Pipe, log: list[str]) -> None:
    def check(kernels: dict[str, int] | None) -> None:
        if kernels is None:
            raise NoEffect("guidance_cutoff", 0.8, "steps without guidance")

    with pytest.raises(NoEffect):
        measured(pipe, check=check)
    assert "timed" not in log
    seen: list[dict[str, int] | None] = []
    measured(pipe, check=seen.append)
    assert seen == [None, {"flash": 6}]


def test_each_part_of_a_call_has_its_own_peak(pipe: Pipe) -> None:
    peaks = measured(pipe, sizes=2)["peaks"]
    allocated = {part: peaks[part]["allocated_bytes"] for part in PARTS if part in peaks}
    assert allocated == {"text_encoding": TEXT, "denoising": STEP, "vae_decode": DECODE}
    assert peaks["run"]["allocated_bytes"] == DECODE
    assert peaks["run"]["device_bytes"] == max(peaks[part]["device_bytes"] for part in allocated)


def test_a_pipe_without_text_encoder_and_vae_has_one_part(pipe: Pipe) -> None:
    pipe.components.clear()
    pipe.vae = None
    pipe.scheduler.step = lambda: pipe.cuda.allocate(STEP)
    pipe.__class__ = type("Pixels", (Pipe,), {"__call__": in_pixels})
    peaks = measured(pipe)["peaks"]
    assert set(peaks) == {"first", "run", "denoising"}


def in_pixels(self: Pipe, *, num_inference_steps: int, **_: Any) -> Any:
    for _step in range(num_inference_steps):
        self.scheduler.step()
    return SimpleNamespace(images=["a picture"])


def test_what_is_kept_and_not_in_use_is_given_back_before_the_run_is_metered(pipe: Pipe) -> None:
    """Group offloading moves the weights to host memory, and torch's allocator keeps their place."""
    pipe.cuda.allocate(8000 * MIB)
    peaks = measured(pipe)["peaks"]
    assert peaks["run"]["reserved_bytes"] == DECODE


def test_whether_the_host_launches_fast_enough_is_recorded(pipe: Pipe) -> None:
    """A step takes 40 ms, in which the GPU works for 10: 30 ms in three steps."""
    phases = measured(pipe)["phases"]
    assert phases["early_step_s"] == pytest.approx(0.04)
    assert phases["early_step_device_s"] == pytest.approx(0.01)
    assert _launch_bound(phases)


def _launch_bound(phases: dict[str, Any]) -> bool | None:
    from autotune.measurement import Phases

    return Phases.parse(phases, "the phases").launch_bound


@pytest.mark.parametrize(("device_s", "bound"), [(0.031, True), (0.033, False), (0.05, False), (None, None)])
def test_a_gpu_that_works_for_less_than_four_fifths_of_a_step_is_launch_bound(
    device_s: float | None, bound: bool | None
) -> None:
    assert _launch_bound({"early_step_s": 0.04, "early_step_device_s": device_s}) is bound


def test_memory_beyond_the_card_is_out_of_memory(pipe: Pipe) -> None:
    """The drivers of Windows and WSL2 put it into system memory instead of failing, and NVML tells no process there."""
    pipe.cuda.card().listed_as = None
    meter = meter_for("cuda:0")
    meter.start("first")
    pipe.cuda.allocate(30_000 * MIB)
    with pytest.raises(MemoryError, match="system memory") as raised:
        meter.stop()
    failure = classify(raised.value)
    assert failure.cause == "out_of_memory"
    assert meter.peaks["first"].device_bytes > pipe.cuda.card().memory_bytes


def test_torchs_allocator_takes_no_more_than_the_card_has(pipe: Pipe) -> None:
    cap("cuda:0", None)
    card = pipe.cuda.card()
    assert card.fraction == pytest.approx((card.cuda_bytes - machines.CONTEXT_BYTES) / card.cuda_bytes)
