"""The baseline is the plainest config that fits. Cards and failures are made up: no process starts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from made_up import measured

from autotune.config import Config, Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.footprint import Component
from autotune.goal import Goal
from autotune.knobs import complete, different, footprint
from autotune.measurement import Measurement
from autotune.production.tuned_config import TunedConfig
from autotune.report.page.measured import how_measured
from autotune.report.summary import read_summary
from autotune.report.terminal.show import PlainLines, as_data
from autotune.study.record import read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure
from autotune.tuning import baseline as baselines
from autotune.tuning import search as searching
from autotune.tuning.events import BaselineChosen, BaselineRejected, Event
from autotune.tuning.request import read_baseline
from autotune.tuning.search import Result, search

GB = 10**9
# A pipeline of the proportions of Flux: as loaded 64 GB of weights, in 16 bits 32 GB, of which the denoiser is 24 GB.
PARTS = (
    Component(name="text_encoder", weights=4 * GB, largest_layer=GB // 8, stored={"BF16": 4 * GB}),
    Component(name="unet", weights=12 * GB, largest_layer=GB // 10, runs_each_step=True, stored={"BF16": 12 * GB}),
)
HALF = {"dtype": "bf16"}
MODEL, GROUP, SEQUENTIAL = ({"dtype": "bf16", "offload": how} for how in ("model", "group", "sequential"))


def card(memory_gb: float, capability: tuple[int, int] = (9, 0)) -> Device:
    return gpu(*capability).model_copy(update={"memory_bytes": int(memory_gb * GB)})


def target_on(device: Device, *, stored: str = "BF16", side: int = 64, batch: int = 1) -> Target:
    parts = [part.model_copy(update={"stored": {stored: part.weights}}) for part in PARTS]
    return make_target(device, side=side, batch=batch, components=tuple(parts))


def step_values(target: Target, fixed: Mapping[str, Value] | None = None) -> list[dict[str, Value]]:
    return [different(config, complete({})) for config in baselines.steps(target, fixed)]


def test_each_step_is_less_plain_and_holds_less_on_the_device_than_the_one_before() -> None:
    target = target_on(card(80))
    assert step_values(target) == [{}, HALF, MODEL, GROUP, SEQUENTIAL]
    held = [footprint(config, target).resident_bytes for config in baselines.steps(target)]
    assert held == [64 * GB, 32 * GB, 24 * GB, GB // 2, GB // 4]


def test_tiling_and_slicing_come_with_an_offload_where_they_can_act_and_go_with_it() -> None:
    both = {"vae_tiling": True, "vae_slicing": True}
    values = step_values(target_on(card(80), side=256, batch=2))
    assert values == [{}, HALF, MODEL | both, GROUP | {"vae_slicing": True}, SEQUENTIAL | both]


@pytest.mark.parametrize(
    ("device", "stored", "dtype"),
    [
        (card(16), "F16", "fp16"),
        (card(16), "BF16", "bf16"),
        (card(16), "F32", "bf16"),  # overflows no earlier than float32
        (card(16, (7, 5)), "BF16", "fp16"),  # a T4 does not compute in bfloat16
        (card(16, (7, 5)), "F32", "fp16"),
        (CPU, "F16", "bf16"),
    ],
)
def test_the_16_bit_format_is_the_checkpoints_own_where_the_device_computes_in_it(
    device: Device, stored: str, dtype: str
) -> None:
    assert step_values(target_on(device, stored=stored))[1] == {"dtype": dtype}


def test_a_processor_has_no_offload_to_step_to() -> None:
    assert step_values(target_on(CPU)) == [{}, HALF]


def test_what_the_user_holds_is_in_every_step_but_the_first() -> None:
    assert step_values(target_on(card(80)), {"offload": "sequential", "compile": "off"}) == [{}, SEQUENTIAL]
    fp16 = [{"dtype": "fp16"} | step for step in ({}, {"offload": "model"})]
    assert step_values(target_on(card(80)), {"dtype": "fp16"})[1:3] == fp16


@pytest.mark.parametrize(
    ("device", "max_vram", "first"),
    [
        (card(80), None, {}),
        (card(48), None, HALF),
        (card(24.1), None, MODEL),
        (card(12), None, GROUP),
        (card(0.4), None, SEQUENTIAL),
        (card(80), 12 * GB, GROUP),  # behaves like the smaller card
        (
            CPU.model_copy(update={"memory_bytes": 40 * GB}),
            12 * GB,
            HALF,
        ),  # where no limit is enforced, none is counted
        (card(80).model_copy(update={"memory_bytes": 0}), None, {}),  # unknown
    ],
)
def test_what_is_predicted_not_to_fit_is_passed_over(
    tmp_path: Path, device: Device, max_vram: int | None, first: dict[str, Value]
) -> None:
    goal = Goal(max_quality_drop=1.0, max_vram_bytes=max_vram)
    chosen = baselines.Baselines(target_on(device), goal, None, {}, StudyFolder(tmp_path))
    config, choice = chosen.next()
    assert different(config, complete({})) == first
    assert choice is not None
    assert all(one.weight_bytes is not None and one.weight_bytes > (one.limit_bytes or 0) for one in choice.rejected)
    assert (choice.reason == "the pipeline as loaded fits") == (first == {})


class Card:
    """A fake Runner: what needs more than `free_bytes` runs out of memory, as if activations took the rest."""

    runs: list[dict[str, Value]]
    capped: list[int | None]
    timings_s: set[float | None]

    def __init__(self, free_bytes: float, cause: str = "out_of_memory") -> None:
        self.free_bytes, self.cause, self.runs, self.capped, self.timings_s = free_bytes, cause, [], [], set()

    def __call__(self, folder: StudyFolder, target: Target, timeout_s: float, **options: Any) -> "Card":
        self.target, self.options = target, options
        return self

    def run(self, place: Path, config: Config, **_: object) -> Measurement | Failure:
        self.runs.append(different(config, complete({})))
        self.timings_s.add(self.options.get("timing_s"))
        self.capped.append(self.options["max_memory_bytes"] if config != self.options["baseline"] else None)
        place.mkdir(parents=True, exist_ok=True)
        (place / "log.txt").write_text("made up")
        if footprint(config, self.target).resident_bytes > self.free_bytes:
            return Failure(cause=self.cause, reason="made up.")  # type: ignore[arg-type]
        found = measured(0, config).measured
        assert found is not None
        return found


def searched(
    monkeypatch: pytest.MonkeyPatch, folder: Path, target: Target, runner: Card, **options: Any
) -> tuple[Result, list[Event]]:
    events: list[Event] = []
    monkeypatch.setattr(searching, "probe", lambda *_, **__: target)
    monkeypatch.setattr(searching, "Runner", runner)
    given = {"device": "cpu", "budget": 1, "confirm_rounds": 0, "scorer": "demo", "study": folder / "study"} | options
    return search("demo", listen=events.append, **given), events


def lines_of(events: Sequence[Event]) -> list[str]:
    plain = PlainLines()
    return [line for event in events for line in plain.hear(event) if line.startswith("baseline")]


def test_a_baseline_that_does_not_fit_is_followed_by_the_next_and_every_step_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """48 GB: 64 GB are not tried; 32 GB run out of memory with their activations; 24 GB fit."""
    runner = Card(25 * GB)
    result, events = searched(monkeypatch, tmp_path, target_on(card(48)), runner)
    assert runner.runs == [HALF, MODEL]
    assert lines_of(events) == [
        "baseline: the pipeline as loaded was not tried, as its weights alone take 64.0 GB of 48.0 GB",
        "baseline: dtype=bf16 ran out of memory (made up)",
        "baseline: dtype=bf16 offload=model is the plainest config that fits",
    ]
    record = read_record(StudyFolder(result.folder))
    assert record.baseline_config == complete(MODEL) == read_trials(StudyFolder(result.folder))[0].config
    assert record.baseline_choice is not None
    assert [(one.values, one.weight_bytes) for one in record.baseline_choice.rejected] == [({}, 64 * GB), (HALF, None)]
    assert TunedConfig.load(result.folder / "best.json").baseline_choice == record.baseline_choice
    assert record.baseline_choice.reason in dict(how_measured(read_summary(result.folder)))["baseline"]
    assert (result.folder / "baselines" / "0001" / "log.txt").read_text() == "made up"
    kinds = [as_data(event)["event"] for event in events if isinstance(event, BaselineRejected | BaselineChosen)]
    assert kinds == ["baseline_rejected", "baseline_rejected", "baseline_chosen"]
    assert all(json.dumps(as_data(event)) for event in events)


def test_where_the_pipeline_fits_as_loaded_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result, events = searched(monkeypatch, tmp_path, target_on(card(80)), Card(80 * GB))
    assert lines_of(events) == []
    assert result.record.baseline_config == complete({})
    assert dict(how_measured(read_summary(result.folder)))["baseline"] == "all defaults"


def test_a_limit_on_memory_holds_for_the_chosen_baseline_and_not_for_a_named_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runner = Card(80 * GB)
    searched(monkeypatch, tmp_path / "chosen", target_on(card(80)), runner, max_vram_bytes=48 * GB)
    assert (runner.runs, runner.capped) == ([HALF], [48 * GB])
    runner = Card(80 * GB)
    named = {"max_vram_bytes": 1000, "baseline": "fp32"}
    with pytest.raises(UserError, match="no config keeps the limits"):
        searched(monkeypatch, tmp_path / "named", target_on(card(80)), runner, **named)
    assert (runner.runs, runner.capped) == ([{}], [None])


@pytest.mark.parametrize("quick", [False, True])
def test_a_quick_search_times_fewer_calls_and_does_not_end_with_the_baseline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, quick: bool
) -> None:
    runner = Card(80 * GB)
    searched(monkeypatch, tmp_path, target_on(card(80)), runner, budget=3, quick=quick)
    assert runner.timings_s == {searching.QUICK_TIMING_S if quick else None}
    confirming = runner.options  # the last runner that was made
    assert (confirming["timing_s"], confirming["breakdown"]) == (0.0 if quick else None, False)
    assert runner.runs.count({}) == (1 if quick else 2)


def test_the_same_command_goes_on_with_the_chosen_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    searched(monkeypatch, tmp_path, target_on(card(48)), Card(25 * GB))
    runner = Card(25 * GB)
    result, events = searched(monkeypatch, tmp_path, target_on(card(48)), runner, budget=3)
    assert MODEL not in runner.runs[:1]
    assert len(result.trials) == 3
    assert lines_of(events) == [line for line in lines_of(events) if "baseline again" in line]
    with pytest.raises(UserError, match="another baseline"):
        searched(monkeypatch, tmp_path, target_on(card(48)), Card(80 * GB), baseline="bf16")


def test_a_search_that_was_killed_while_it_chose_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Killed(Card):
        def run(self, place: Path, config: Config, **options: object) -> Measurement | Failure:
            outcome = super().run(place, config, **options)
            if not isinstance(outcome, Failure):
                raise KeyboardInterrupt
            return outcome

    with pytest.raises(KeyboardInterrupt):
        searched(monkeypatch, tmp_path, target_on(card(80)), Killed(25 * GB))
    runner = Card(25 * GB)
    result, _ = searched(monkeypatch, tmp_path, target_on(card(80)), runner)
    assert runner.runs == [MODEL], "as loaded and 16 bits ran out of memory before"
    choice = result.record.baseline_choice
    assert choice is not None
    assert [one.values for one in choice.rejected] == [{}, HALF]


@pytest.mark.parametrize(
    ("device", "runner", "says"),
    [
        (card(80), Card(0), "demo does not fit on .*sequential ran out of memory"),
        (card(0.1), Card(0), "demo does not fit on .*weights alone take 0.2 GB of 0.1 GB"),
        (
            card(80),
            Card(0, cause="crash"),
            r"the baseline itself failed \(crash\): made up.; see .*trials/0000/log.txt",
        ),
    ],
)
def test_where_nothing_can_be_the_baseline_one_sentence_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Device, runner: Card, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        searched(monkeypatch, tmp_path, target_on(device), runner)


def test_a_named_baseline_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = Card(25 * GB)
    with pytest.raises(UserError, match=r"the baseline itself failed \(out_of_memory\)"):
        searched(monkeypatch, tmp_path / "a", target_on(card(48)), runner, baseline="bf16")
    assert runner.runs == [HALF]
    with pytest.raises(UserError, match=r"weights alone take 64.0 GB, and .* has 48.0 GB"):
        searched(monkeypatch, tmp_path / "b", target_on(card(48)), runner, baseline="fp32")
    assert not (tmp_path / "b" / "study").exists()
    result, _ = searched(monkeypatch, tmp_path / "c", target_on(card(48)), runner, baseline="bf16,offload=model")
    assert (result.record.baseline_config, result.record.baseline_choice) == (complete(MODEL), None)


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("bf16", HALF),
        ("fp32", {}),
        ("offload=model", {"offload": "model"}),
        ("bf16, offload=model,tome_ratio=0.5", MODEL | {"tome_ratio": 0.5}),
        ("quantization=int8_weight_only,quantization_filter=all", {"quantization": "int8_weight_only"}),
    ],
)
def test_a_baseline_is_named_by_its_values(word: str, values: dict[str, Value]) -> None:
    assert read_baseline(word) == complete(values)
    assert read_baseline("default") is None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("fp17", "--baseline takes .* bf16,offload=model, .* not 'fp17'"),
        ("bf16,", "--baseline takes"),
        ("offload=", "--baseline takes"),
        ("bf16,dtype=fp16", "dtype is given twice"),
        ("ofload=model", "did you mean 'offload'"),
        ("offload=modell", "offload can't be 'modell'.*did you mean 'model'"),
        ("quantization_filter=all", "acts only where quantization is not at its default"),
    ],
)
def test_a_baseline_that_can_not_be_read_is_one_sentence(word: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_baseline(word)
