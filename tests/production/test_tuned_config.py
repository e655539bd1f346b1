"""The exported config: a file round trip keeps it, broken files are refused, and it builds what was measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import logged_warnings, make_target
from made_up import measured, record

import autotune
from autotune import demo
from autotune.config import Value
from autotune.device import Device
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.pipelines.locate import revision_of
from autotune.pipelines.running import calibrations_for
from autotune.production.tuned_config import SCHEMA_VERSION, TunedConfig
from autotune.target import Target
from autotune.tuning.export import export

PROCESSOR = find_device("cpu")


def small_target(device: Device = PROCESSOR) -> Target:
    """The demo in two steps, on this machine's processor."""
    target = make_target(device)
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    workload = target.workload.model_copy(update={"steps": 2})
    return target.model_copy(update={"pipeline": pipeline, "workload": workload, "versions": versions()})


def tuned(values: dict[str, Value] | None = None, *, device: Device = PROCESSOR) -> TunedConfig:
    trial = measured(1, values, latency_s=0.5, loss=0.1)
    return export(record(small_target(device)), trial, measured(0), None)


def pixels(pipe: Any) -> Any:
    import numpy as np
    import torch

    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(0)
    return np.asarray(pipe("a large red circle at the top on a white background", generator=generator).images[0])


def demo_pipe() -> Any:
    """The demo as a user loads it."""
    import torch
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(demo.PIPELINE, dtype=torch.float32)


def test_a_config_survives_its_file(tmp_path: Path) -> None:
    first = tuned({"dtype": "bf16", "tome_ratio": 0.5, "qkv_fusion": True, "steps": 8})
    first.save(tmp_path / "best.json")
    again = TunedConfig.load(tmp_path / "best.json")
    assert again == first
    assert again.config == first.config
    assert [type(value) for value in again.config.values()] == [type(value) for value in first.config.values()]
    assert [path.name for path in tmp_path.iterdir()] == ["best.json"]


def test_what_the_trial_has_calibrated_is_in_the_file_and_goes_to_the_pipe(tmp_path: Path) -> None:
    ratios = {"cache=magcache": (1.0, 0.1 + 0.2)}
    trial = measured(1, {"qkv_fusion": True})
    trial = trial.model_copy(update={"outcome": trial.outcome.model_copy(update={"calibrations": ratios})})
    export(record(small_target()), trial, measured(0), None).save(tmp_path / "best.json")
    again = TunedConfig.load(tmp_path / "best.json")
    assert again.calibrations == again.target.calibrations == ratios
    assert calibrations_for(again.pipeline_on("cpu", strict=True)) == ratios
    assert calibrations_for(again.apply(demo_pipe(), "cpu")) == ratios
    assert again.is_measured
    assert not again.model_copy(update={"calibrations": {"cache=magcache": (1.0, 0.3)}}).is_measured


def test_the_file_has_the_numbers_that_justify_it(tmp_path: Path) -> None:
    tuned({"qkv_fusion": True}).save(tmp_path / "best.json")
    data = json.loads((tmp_path / "best.json").read_text())
    assert data["schema_version"] == SCHEMA_VERSION
    assert (data["tuned"]["latency_s"], data["baseline"]["latency_s"]) == (0.5, 1.0)
    assert data["tuned"]["clip_drop"] == pytest.approx(0.1)
    assert data["device"]["name"] == PROCESSOR.name
    assert data["pipeline"]["revision"] == revision_of(demo.PIPELINE)
    assert data["workload"]["steps"] == 2
    assert data["knobs"]["qkv_fusion"] is True


def test_a_config_of_a_single_prompt_can_be_saved(tmp_path: Path) -> None:
    """One prompt gives no interval: infinity is not JSON."""
    one = measured(0).measured
    assert one is not None
    assert one.quality is not None
    judged = one.quality.model_copy(update={"clip_scores": (30.0,), "ssim": (1.0,), "psnr_db": (None,)})
    baseline, trial = measured(0, judged=judged), measured(1, {"qkv_fusion": True}, latency_s=0.5, judged=judged)
    exported = export(record(), trial, baseline, None)
    exported.save(tmp_path / "best.json")
    assert TunedConfig.load(tmp_path / "best.json").tuned.clip_drop_interval is None
    assert "inf" not in exported.about


def broken(tmp_path: Path, change: dict[str, object], *, without: str = "") -> Path:
    """A valid file with this change, and without the field `without`."""
    data = {**tuned({"dtype": "bf16"}).to_json(), **change}
    path = tmp_path / "best.json"
    path.write_text(json.dumps({key: value for key, value in data.items() if key != without}))
    return path


def refusal(path: Path) -> str:
    """The sentence with which the file is refused, the same from TunedConfig.load() and autotune.load()."""
    with pytest.raises(UserError) as caught:
        TunedConfig.load(path)
    with pytest.raises(UserError) as again:
        autotune.load(path)
    sentence = str(caught.value)
    assert str(again.value) == sentence
    assert path.name in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.json"
    tuned().save(path)
    text = path.read_text()
    path.write_text(text[: int(len(text) * share)])
    assert "not whole JSON" in refusal(path)


@pytest.mark.parametrize("text", ["hello", "{'a': 1}", "knobs:\n  dtype: bf16\n"])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text)
    assert "not whole JSON" in refusal(tmp_path / "best.json")


@pytest.mark.parametrize("text", ["[]", "[1, 2]", "{}", "3", "null", '"best"', '{"schema_version": "one"}'])
def test_json_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text)
    assert "was not exported by autotune: it has no schema_version" in refusal(tmp_path / "best.json")


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    says = refusal(broken(tmp_path, {"schema_version": SCHEMA_VERSION + 1, "a new field": 1}))
    assert f"newer autotune (schema {SCHEMA_VERSION + 1}): upgrade autotune" in says


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"dtipe": "bf16"}, "unknown knob 'dtipe': did you mean 'dtype'?"),
        ({"teleport": True}, "unknown knob 'teleport': known: "),
        ({"dtype": "bf61"}, "dtype can't be 'bf61': did you mean 'bf16'?"),
        ({"dtype": True}, "dtype can't be True"),
        ({"tome_ratio": 7.5}, "tome_ratio can't be 7.5"),
        ({"steps": -1}, "steps can't be -1"),
        ({"steps": 8.0}, "steps can't be 8.0"),
        ({"quantization": "int8_dynamic", "quantization_filter": "min_features:²"}, "quantization_filter can't be"),
        ({"dtype": ["bf16"]}, "knobs.dtype"),
        ({"dtype": None}, "knobs.dtype"),
        ([], "knobs: "),
    ],
)
def test_a_knob_or_value_that_we_do_not_know_is_refused(tmp_path: Path, knobs: object, says: str) -> None:
    assert says in refusal(broken(tmp_path, {"knobs": knobs}))


@pytest.mark.parametrize("value", ["__import__('os').system('touch pwned')", "os.system", "$(touch pwned)", "torch"])
def test_nothing_in_the_file_is_ever_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "dtype can't be" in refusal(broken(tmp_path, {"knobs": {"dtype": value}}))
    assert [path.name for path in tmp_path.iterdir()] == ["best.json"]


@pytest.mark.parametrize("field", ["knobs", "workload", "pipeline", "tuned", "baseline", "device", "versions", "about"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    assert f"can't be used: {field}: field required" in refusal(broken(tmp_path, {}, without=field))


def test_a_field_too_many_is_named(tmp_path: Path) -> None:
    assert "workloads: extra inputs are not permitted" in refusal(broken(tmp_path, {"workloads": {}}))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "there is no config" in refusal(tmp_path / "gone.json")
    (tmp_path / "best.json").mkdir()
    assert "is a folder: name the file in it" in refusal(tmp_path / "best.json")


def test_a_file_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_bytes(bytes(range(256)))
    assert "can't be read" in refusal(tmp_path / "best.json")


def test_saving_where_it_can_not_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be written: No such file or directory"):
        tuned().save(tmp_path / "no" / "best.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written: Not a directory"):
        tuned().save(tmp_path / "file" / "best.json")
    with pytest.raises(UserError, match="can't be written: Is a directory"):
        tuned().save(tmp_path)


def test_applied_to_a_loaded_pipe_it_draws_what_it_draws_when_it_loads_the_pipe_itself() -> None:
    """The same picture bit for bit, and not the baseline's."""
    import numpy as np

    config = tuned({"qkv_fusion": True, "tome_ratio": 0.5, "memory_format": "channels_last"})
    own = pixels(config.pipeline_on("cpu"))
    mine = demo_pipe()
    assert config.apply(mine, "cpu") is mine
    assert np.array_equal(pixels(mine), own)
    plain = demo_pipe()
    tuned().apply(plain, "cpu")
    assert not np.array_equal(pixels(plain), own)


def test_what_was_measured_is_what_a_call_does_by_default_and_arguments_win() -> None:
    pipe = tuned({"steps": 3}).pipeline_on("cpu")
    pipe.set_progress_bar_config(disable=True)
    steps: list[int] = []

    def count(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    image = pipe("a red circle", callback_on_step_end=count).images[0]
    assert (image.size, steps) == ((64, 64), [0, 1, 2])
    steps.clear()
    assert pipe("a red circle", num_inference_steps=1, width=32, callback_on_step_end=count).images[0].size == (32, 64)
    assert steps == [0]


def test_what_loads_is_an_ordinary_diffusers_pipeline() -> None:
    from diffusers import StableDiffusionPipeline

    pipe = tuned().pipeline_on("cpu")
    assert isinstance(pipe, StableDiffusionPipeline)
    assert type(pipe).__name__ == "StableDiffusionPipeline"


def test_a_number_format_can_not_be_applied_to_a_loaded_pipe_and_the_sentence_says_how_to_load_it() -> None:
    with pytest.raises(UserError, match=r"dtype=bf16 must act while loading: load the pipeline with dtype=torch.bf"):
        tuned({"dtype": "bf16"}).apply(demo_pipe(), "cpu")


def test_a_config_measured_elsewhere_warns_once_and_works(caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = PROCESSOR.model_copy(update={"name": "another processor"})
    pipe = tuned(device=elsewhere).pipeline_on("cpu")
    assert logged_warnings(caplog) == [
        f"this config was measured on another processor, this is {PROCESSOR.name}: its numbers don't hold here."
    ]
    assert pixels(pipe).shape == (64, 64, 3)


def test_a_config_measured_here_is_loaded_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    tuned({"qkv_fusion": True}).pipeline_on(None, strict=True)
    assert logged_warnings(caplog) == []


IN_PRODUCTION = """
import sys
import autotune
heavy = {"torch", "pydantic", "autotune.production.tuned_config"}
assert not heavy & sys.modules.keys(), "import autotune costs nothing"
load = autotune.load
assert "torch" not in sys.modules, "finding the function loads no torch"
pipe = load(sys.argv[1])
pipe("a red circle").images[0].save(sys.argv[2])
print(sorted({"optuna", "sqlalchemy", "typer", "rich", "autotune.study.study", "autotune.cli"} & sys.modules.keys()))
"""


def test_production_loads_neither_the_search_nor_the_terminal(tmp_path: Path) -> None:
    tuned({"dtype": "bf16"}).save(tmp_path / "best.json")
    command = [sys.executable, "-c", IN_PRODUCTION, str(tmp_path / "best.json"), str(tmp_path / "out.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out.png").stat().st_size > 100
