"""verify(): holds, faster, slower, larger or broken, by fresh runs; exit codes for CI. One run is real."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image
from typer.testing import CliRunner

from autotune.cli import app
from autotune.config import Config
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution.interpreter import Interpreter, Package
from autotune.execution.runner import Runner
from autotune.pipelines.locate import revision_of
from autotune.production.thumbnail import DIFFERS, thumbnail_of
from autotune.production.tuned_config import Confirmation, TunedConfig
from autotune.report.terminal.verify import verification_words
from autotune.statistics.verdict import judge_apart
from autotune.trial import Failure
from autotune.tuning.export import export
from autotune.tuning.verify import verify
from autotune.workload import Workload

PEAK = 100 * 2**20


def picture(number: int) -> Image.Image:
    """A gradient, another one for every number."""
    image = Image.linear_gradient("L").resize((64, 64)).rotate(90 * number)
    return Image.merge("RGB", [image, image.rotate(90), Image.new("L", (64, 64), 60 * number % 255)])


def stored(folder: Path, *, rounds: Sequence[float] = (0.50, 0.51, 0.49), pictures: bool = True) -> Path:
    target = make_target(find_device("cpu"))
    prompts = ("a red circle", "a blue star")
    target = target.model_copy(update={"workload": target.workload.model_copy(update={"prompts": prompts})})
    confirmation = Confirmation(baseline_latency_s=(1.0,) * len(rounds), tuned_latency_s=tuple(rounds))
    seen = tuple(thumbnail_of(picture(i), prompt, i) for i, prompt in enumerate(prompts)) if pictures else ()
    trial = measured(1, {"steps": 8}, latency_s=0.5, memory_bytes=PEAK)
    export(record(target), trial, measured(0), confirmation, seen).save(folder / "best.json")
    return folder / "best.json"


class Machine:
    """Stands in for the runner: what a run takes here, and what it draws."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latencies_s: Iterator[float] = iter([0.5, 0.505, 0.495] * 3)
        self.peak_bytes, self.turned, self.failure = PEAK, 0, None
        self.configs: list[Config] = []
        machine = self

        def run(runner: Runner, place: Path, config: Config, *, pictures: bool, earlier: Any) -> Any:
            machine.configs.append(config)
            trial = measured(0, latency_s=next(machine.latencies_s), memory_bytes=machine.peak_bytes)
            return machine.failure or trial.measured

        def draw(runner: Runner, place: Path, config: Config, workload: Workload, *, earlier: Any) -> Failure | None:
            (place / "images").mkdir(parents=True)
            for i in range(len(workload.prompts)):
                picture(i + machine.turned).save(place / "images" / f"{i:03d}.png")
            return None

        monkeypatch.setattr(Runner, "run", run)
        monkeypatch.setattr(Runner, "make_pictures", draw)

    failure: Failure | None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_promise_2_what_won_is_measured_again_the_next_day_as_it_was(machine: Machine, tmp_path: Path) -> None:
    """On devices whose processes differ by 0.7 % and whose days differ by 0.5 %: within 3 %, and so says verify()."""
    rng, words = np.random.default_rng(2), list[str]()
    for _ in range(60):
        yesterday, today = 0.5 * np.exp(rng.normal(0, 0.005, 2))
        best = stored(tmp_path, rounds=[float(s) for s in yesterday * np.exp(rng.normal(0, 0.007, 3))])
        machine.latencies_s = iter([float(s) for s in today * np.exp(rng.normal(0, 0.007, 9))])
        seen = verify(best)
        assert seen.speed is not None
        assert 1 / 1.03 < seen.speed.speedup < 1.03
        words.append(seen.word)
    assert words.count("holds") >= 57, words


def test_the_machine_that_made_it_says_that_it_holds(machine: Machine, tmp_path: Path) -> None:
    seen = verify(stored(tmp_path))
    assert seen.word == "holds"
    assert seen.picture_differences == (0.0, 0.0)
    assert machine.configs == [TunedConfig.load(tmp_path / "best.json").config] * 3
    assert verification_words(seen).endswith("holds: it keeps the figures in its file")


def test_a_hog_makes_it_slower_and_the_interval_says_by_how_much(machine: Machine, tmp_path: Path) -> None:
    machine.latencies_s = iter([0.9, 0.95, 0.92] * 3)
    seen = verify(stored(tmp_path))
    assert seen.word == "slower"
    assert seen.speed is not None
    assert seen.speed.low < 0.5 / 0.92 < seen.speed.high < 0.65
    assert "0.54x the speed in the file (95 % interval" in verification_words(seen)


def test_a_better_machine_is_faster(machine: Machine, tmp_path: Path) -> None:
    machine.latencies_s = iter([0.30, 0.31, 0.32] * 3)
    assert verify(stored(tmp_path)).word == "faster"


def test_a_few_per_cent_hold_and_a_wide_interval_is_measured_more_often(machine: Machine, tmp_path: Path) -> None:
    machine.latencies_s = iter([0.3, 0.7, 0.5, 0.4, 0.6, 0.5, 0.45, 0.55, 0.5])
    seen = verify(stored(tmp_path))
    assert len(seen.now_latency_s) > 3
    assert seen.word == "holds"
    machine.latencies_s = iter([0.51, 0.52, 0.53] * 3)
    assert verify(stored(tmp_path)).word == "holds"


def test_more_memory_than_the_file_says_is_larger(machine: Machine, tmp_path: Path) -> None:
    machine.peak_bytes = int(PEAK * 1.2)
    assert verify(stored(tmp_path)).word == "larger"


def test_other_pictures_are_broken_and_nothing_is_timed(machine: Machine, tmp_path: Path) -> None:
    machine.turned = 1
    seen = verify(stored(tmp_path))
    assert seen.word == "broken"
    assert seen.broken == "2 of 2 pictures differ from those that were measured"
    assert min(seen.picture_differences) > DIFFERS
    assert machine.configs == []


def test_what_can_not_run_is_broken_with_its_reason(machine: Machine, tmp_path: Path) -> None:
    machine.failure = Failure(cause="out_of_memory", reason="CUDA out of memory")
    seen = verify(stored(tmp_path))
    assert seen.word == "broken"
    assert "it can't run here (out_of_memory): CUDA out of memory" in verification_words(seen)


def test_a_busy_device_is_no_verdict(machine: Machine, tmp_path: Path) -> None:
    machine.failure = Failure(cause="contended", reason="others took 50%")
    with pytest.raises(UserError, match="this device can't be measured now"):
        verify(stored(tmp_path))


def test_an_edited_file_and_another_device_are_said(machine: Machine, tmp_path: Path) -> None:
    path = stored(tmp_path)
    data = json.loads(path.read_text())
    data["knobs"]["steps"], data["device"]["name"] = 12, "another processor"
    path.write_text(json.dumps(data))
    remarks = verify(path).remarks
    assert remarks[0].startswith("this config was edited")
    assert remarks[1].startswith("this config was measured on another processor")


def test_a_lora_that_was_replaced_is_said(machine: Machine, tmp_path: Path) -> None:
    """Its new pictures would be called broken, or where there are none, nothing would be noticed."""
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    data = json.loads(stored(tmp_path, pictures=False).read_text())
    data["pipeline"] |= {"lora": str(lora), "part_revisions": {"lora": revision_of(lora)}}
    (tmp_path / "best.json").write_text(json.dumps(data))
    said = f"the files of {lora} are not those that were measured."
    assert said not in verify(tmp_path / "best.json").remarks
    lora.write_bytes(b"other w")
    assert said in verify(tmp_path / "best.json").remarks


def test_a_file_without_pictures_says_so(machine: Machine, tmp_path: Path) -> None:
    seen = verify(stored(tmp_path, pictures=False))
    assert (seen.word, seen.remarks) == ("holds", ("the file keeps no pictures to compare with.",))


@pytest.mark.parametrize(("what", "code"), [("holds", 0), ("faster", 0), ("slower", 1), ("broken", 3), ("bad", 2)])
def test_exit_codes_are_for_machines(machine: Machine, tmp_path: Path, what: str, code: int) -> None:
    path = stored(tmp_path)
    machine.latencies_s = iter({"faster": [0.3] * 9, "slower": [0.9] * 9}.get(what, [0.5] * 9))
    machine.turned = int(what == "broken")
    if what == "bad":
        path.write_text("{")
    done = CliRunner().invoke(app, ["verify", str(path), "--json"])
    if what == "bad":
        assert isinstance(done.exception, UserError)  # main() makes it 2
        return
    assert done.exit_code == code
    assert json.loads(done.stdout)["verdict"] == what


def test_runs_of_another_day_are_compared_with_an_interval_that_holds() -> None:
    same = judge_apart((1.0, 1.01, 0.99), (1.0, 1.02, 0.98))
    assert same.low < 1 < same.high
    slower = judge_apart((1.0, 1.01, 0.99), (2.0, 2.02, 1.98))
    assert slower.word == "SLOWER"
    assert 0.47 < slower.low < 0.5 < slower.high < 0.53
    single = judge_apart((1.0,), (1.0, 1.02, 0.98))
    assert single.high - single.low > same.high - same.low, "one process says less"
    with pytest.raises(ValueError, match="no interval"):
        judge_apart((1.0,), (1.0,))


@pytest.mark.usefixtures("children_are_forked")
def test_a_tampered_config_of_the_demo_is_broken_by_its_real_pictures(tmp_path: Path) -> None:
    """Its pictures are those of eight steps; the file was made to say that a single one gives them."""
    import torch

    tuned = TunedConfig.load(stored(tmp_path))
    pipe = tuned.pipeline_on("cpu")
    pipe.set_progress_bar_config(disable=True)
    drawn = []
    for number, prompt in enumerate(tuned.workload.prompts):
        image = pipe(prompt, generator=torch.Generator("cpu").manual_seed(number)).images[0]
        drawn.append(thumbnail_of(image, prompt, number))
    tampered = tuned.model_copy(update={"knobs": {**tuned.knobs, "steps": 1}, "pictures": tuple(drawn)})
    tampered.save(tmp_path / "tampered.json")
    seen = verify(tmp_path / "tampered.json", device="cpu")
    assert seen.word == "broken"
    assert min(seen.picture_differences) > DIFFERS


def test_a_config_is_verified_in_another_environment(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Interpreter("/there/bin/python", "0.1.0", "f00", {"torch": Package("9.9", frozenset())})
    monkeypatch.setattr("autotune.tuning.verify.other_interpreter", lambda word: there)
    used: list[Interpreter | None] = []
    run = Runner.run
    monkeypatch.setattr(Runner, "run", lambda runner, *a, **k: used.append(runner.interpreter) or run(runner, *a, **k))
    result = verify(stored(tmp_path), python="/there/bin/python", device="cpu")
    assert used
    assert all(one is there for one in used)
    assert result.word == "holds"
    assert any("torch 9.9 instead of" in remark for remark in result.remarks)
