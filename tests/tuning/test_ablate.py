"""ablate(): each knob's own share, and a minimal config that is exported only if it holds up. No processes here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU
from made_up import failed, measured, quality, record

from autotune.config import Config
from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.production.tuned_config import TunedConfig
from autotune.report.summary import read_summary
from autotune.report.terminal.trust import ablation_words
from autotune.study.record import write_trial
from autotune.study_folder import StudyFolder
from autotune.trial import Failure
from autotune.tuning.ablate import ablate, put_back, without_each
from autotune.tuning.ablation import Ablation, read_ablation
from autotune.tuning.export import export
from autotune.workload import Workload

PICK: dict[str, Any] = {"dtype": "bf16", "qkv_fusion": True, "tome_ratio": 0.5, "tome_max_downsample": 2}
MIB = 2**20


def latency(config: Config) -> float:
    """bf16 halves it, merging takes a fifth, fusing brings nothing."""
    return (0.5 if config["dtype"] == "bf16" else 1.0) * (1.0 if config["tome_ratio"] == 0 else 0.8)


class Bench:
    """A runner that answers with what a config really takes, and counts its calls."""

    def __init__(
        self,
        latency_s: Callable[[Config], float] = latency,
        memory_bytes: Callable[[Config], int] = lambda config: 100 * MIB,
        loss: Callable[[Config], float] = lambda config: 0.0,
        fails: Callable[[Config], bool] = lambda config: False,
    ) -> None:
        self.latency_s, self.memory_bytes, self.loss, self.fails = latency_s, memory_bytes, loss, fails
        self.ran: list[Config] = []

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: Sequence[Any]) -> Measurement | Failure:
        self.ran.append(config)
        if self.fails(config):
            outcome = failed(0, cause="crash").outcome
            assert isinstance(outcome, Failure)
            return outcome
        judged = quality(self.loss(config)) if pictures else None
        made = measured(0, latency_s=self.latency_s(config), memory_bytes=self.memory_bytes(config)).outcome
        assert isinstance(made, Measurement)
        return made.model_copy(update={"quality": judged})

    def draw(self, place: Path, config: Config, workload: Workload, reference: Path, *, earlier: Any) -> Quality:
        raise AssertionError("the search confirmed no pictures")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device of the study is the one in front of us."""
    monkeypatch.setattr("autotune.tuning.ablate.choose_same_kind", lambda measured, word: CPU)


def a_study(path: Path, values: dict[str, Any] | None = None, held: Sequence[str] = ()) -> StudyFolder:
    values = PICK if values is None else values
    folder = StudyFolder(path)
    folder.create()
    space = {name: (value,) if name in held else (complete({}).get(name, 0), value) for name, value in values.items()}
    kept = record(space=space)
    write_json(folder.study, kept.to_json())
    trials = [measured(0), measured(1, values, latency_s=latency(complete(values)))]
    for trial in trials:
        write_trial(folder, trial)
    export(kept, trials[1], trials[0], None).save(folder.best)
    return folder


def run(folder: StudyFolder, bench: Bench, **more: Any) -> Ablation:
    return ablate(folder.path, runner=bench, **more)  # type: ignore[arg-type]


def brought(made: Ablation) -> dict[str, float]:
    return {" ".join(one.knobs): one.verdict.speedup for one in made.left_out if one.verdict}


def test_each_knob_has_its_own_share_and_a_modifier_goes_with_its_master(tmp_path: Path) -> None:
    made = run(a_study(tmp_path / "study"), Bench())
    assert brought(made) == pytest.approx({"tome_max_downsample tome_ratio": 1.25, "dtype": 2.0, "qkv_fusion": 1.0})


def test_what_brings_nothing_is_dropped_from_best_json(tmp_path: Path) -> None:
    folder, bench = a_study(tmp_path / "study"), Bench()
    made = run(folder, bench)
    assert made.minimal is not None
    assert made.minimal.decision == "taken"
    assert "qkv_fusion=True brought +0.0% +-" in made.minimal.why
    tuned = TunedConfig.load(folder.best)
    assert tuned.config == complete({**PICK, "qkv_fusion": False})
    assert tuned.confirmation is not None
    assert tuned.confirmation.verdict is not None
    assert tuned.confirmation.verdict.speedup == pytest.approx(2.5), "against the baseline, measured again"
    assert complete({}) in bench.ran


def test_the_report_knows_where_a_minimal_config_comes_from(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study")
    run(folder, Bench())
    summary = read_summary(folder.path)
    assert summary.pick is not None
    assert (summary.pick.number, summary.is_minimal) == (1, True)
    assert "qkv_fusion=True" in ablation_words(read_ablation(folder) or pytest.fail("no ablation"))


def test_where_every_knob_brings_something_nothing_changes(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study", {"dtype": "bf16", "tome_ratio": 0.5})
    before = folder.best.read_bytes()
    assert run(folder, Bench()).minimal is None
    assert folder.best.read_bytes() == before


def test_knobs_that_help_only_together_are_kept(tmp_path: Path) -> None:
    """Each alone brings nothing while the other is there; without both it is slower."""
    values = {"dtype": "bf16", "qkv_fusion": True, "memory_format": "channels_last"}

    def either(config: Config) -> float:
        return latency(config) * (0.8 if config["qkv_fusion"] or config["memory_format"] == "channels_last" else 1.0)

    folder = a_study(tmp_path / "study", values)
    before = folder.best.read_bytes()
    made = run(folder, Bench(either))
    assert made.minimal is not None
    assert made.minimal.decision == "kept the pick"
    assert "it is slower than the pick" in made.minimal.why
    assert folder.best.read_bytes() == before


def test_a_knob_that_saves_memory_or_the_pictures_brings_something(tmp_path: Path) -> None:
    def memory(config: Config) -> int:
        return (80 if config["qkv_fusion"] else 100) * MIB

    saved = run(a_study(tmp_path / "memory"), Bench(memory_bytes=memory))
    assert not [one for one in saved.idle if "qkv_fusion" in one.knobs]
    kept = run(a_study(tmp_path / "quality"), Bench(loss=lambda config: 0.0 if config["qkv_fusion"] else 2.0))
    assert not [one for one in kept.idle if "qkv_fusion" in one.knobs]


def test_a_knob_that_makes_it_slower_is_dropped_too(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study")
    run(folder, Bench(lambda config: latency(config) * (1.3 if config["qkv_fusion"] else 1.0)))
    assert TunedConfig.load(folder.best).knobs["qkv_fusion"] is False


def test_what_can_not_be_left_out_says_why_and_stays(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study")
    made = run(folder, Bench(fails=lambda config: config["dtype"] == "fp32" and config["qkv_fusion"]))
    failures = {" ".join(one.knobs): one.failure for one in made.left_out if one.failure}
    assert failures == {"dtype": "crash: made up"}
    assert TunedConfig.load(folder.best).knobs["dtype"] == "bf16"


def test_a_pick_that_does_not_run_any_more_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be measured any more"):
        run(a_study(tmp_path / "study"), Bench(fails=lambda config: config == complete(PICK)))


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study", {"dtype": "bf16", "tome_ratio": 0.5})
    run(folder, Bench())
    again = Bench()
    assert brought(run(folder, again)) == pytest.approx({"tome_ratio": 1.25, "dtype": 2.0})
    assert again.ran == []


def test_of_another_pick_best_json_is_left_alone(tmp_path: Path) -> None:
    folder = a_study(tmp_path / "study")
    before = folder.best.read_bytes()
    run(folder, Bench(), pick="1")
    assert folder.best.read_bytes() == before
    assert TunedConfig.load(folder.path / "minimal.json").knobs["qkv_fusion"] is False


def test_a_knob_that_the_user_held_is_not_taken_out(tmp_path: Path) -> None:
    made = run(a_study(tmp_path / "study", held=("qkv_fusion",)), Bench())
    assert "qkv_fusion" not in brought(made)


def test_a_knob_goes_back_to_the_baselines_value_and_takes_its_modifiers_with_it() -> None:
    pick, baseline = complete(PICK), {"dtype": "fp16"}
    configs = without_each(pick, record(baseline=baseline))
    assert {config["dtype"] for config in configs} == {"bf16", "fp16"}
    assert "tome_max_downsample" not in put_back(pick, {"tome_ratio": 0.0})


@pytest.mark.parametrize(
    ("more", "says"), [({"rounds": 1}, "no interval"), ({"pick": "0"}, "baseline itself"), ({"pick": "9"}, "no 9")]
)
def test_what_can_not_be_ablated_is_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(a_study(tmp_path / "study"), Bench(), **more)


@pytest.mark.parametrize("other", [{"name": "another"}, {"cores": 1 + (CPU.cores or 0)}], ids=str)
def test_on_another_device_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    monkeypatch.setattr("autotune.tuning.ablate.choose_same_kind", lambda measured, word: CPU.model_copy(update=other))
    with pytest.raises(UserError, match="Ablate it where the study was made"):
        run(a_study(tmp_path / "study"), Bench())
