"""A pipe that the user's own function builds: measured and loaded like any other, and run where the user allows it."""

import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import logged_warnings
from made_up import measured, record
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_workload

import autotune
from autotune.building import build
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.runner import Runner
from autotune.isolation import RUN_CODE
from autotune.job import ProbeJob
from autotune.knobs import complete
from autotune.pipeline import Pipeline
from autotune.pipelines import factory, loading, resolve
from autotune.production.plain_script import script
from autotune.production.tuned_config import TunedConfig
from autotune.report import words
from autotune.target import Target
from autotune.tuning.compare import compare
from autotune.tuning.export import export
from autotune.worker.host import _mapped_files_bytes
from autotune.worker.probe import run_probe_job

FAMILY = "StableDiffusionPipeline"
PARTS = "from diffusers import UNet2DConditionModel\n\nclass MyUNet(UNet2DConditionModel):\n    pass\n"
BUILD = """
from pathlib import Path
from diffusers import StableDiffusionPipeline
from parts_of_mine import MyUNet

(Path(__file__).parent / "ran").touch()

def make(dtype):
    pipe = StableDiffusionPipeline.from_pretrained({folder!r}, dtype=dtype, safety_checker=None)
    unet = MyUNet.from_config(pipe.unet.config).to(dtype)
    unet.load_state_dict(pipe.unet.state_dict())
    pipe.unet = unet.eval()
    return pipe

def without(): ...
def nothing(dtype): ...
def fails(dtype): raise ValueError("no such format")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("factory")


@pytest.fixture(scope="module")
def file(root: Path) -> Path:
    """Builds a tiny pipe with a UNet of a class of its own, which lies beside it."""
    checkpoint = tiny_pipeline(FAMILY, root).source
    (root / "parts_of_mine.py").write_text(PARTS)
    (root / "build.py").write_text(BUILD.format(folder=checkpoint))
    return root / "build.py"


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(factory, "_allowed", set())
    monkeypatch.delenv(RUN_CODE, raising=False)
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture
def child(file: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The pipeline, in a process that was started as a child of a command with --run-code."""
    pipeline = resolve("demo", factory=f"{file}:make", run_code=True).model_copy(update={"scorer": None})
    for name, value in factory.variables([pipeline]).items():
        monkeypatch.setenv(name, value)
    return pipeline


@pytest.fixture
def target(child: Pipeline, tmp_path: Path) -> Target:
    found = run_probe_job(ProbeJob(pipeline=child, device=find_device("cpu"), prompts=("a",), quick=True), tmp_path)
    known = Pipeline.parse(found["pipeline"], "probe")
    return Target(pipeline=known, workload=tiny_workload(FAMILY), device=find_device("cpu"), versions=versions())


def exported(target: Target, folder: Path) -> Path:
    path = folder / "best.json"
    export(record(target), measured(1, {"memory_format": "channels_last"}), measured(0), None).save(path)
    return path


def test_without_run_code_nothing_runs_and_the_parent_never_runs_it(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve("demo", factory=f"{file}:make")
    assert str(caught.value) == (f"--factory {file}:make is code of your own: add --run-code to let it build the pipe.")
    pipeline = resolve("demo", factory=f"{file}:make", run_code=True)
    assert (pipeline.name, pipeline.source, pipeline.factory) == ("build.py", str(file), "make")
    assert not (file.parent / "ran").exists()


@pytest.mark.parametrize(
    ("word", "options", "says"),
    [
        ("build.py", {}, "takes FILE.py:FUNCTION"),
        ("build.txt:make", {}, "takes FILE.py:FUNCTION"),
        ("gone.py:make", {}, "there is no file 'gone.py'"),
        ("build.py:make", {"task": "image2image"}, "--task image2image: --factory build.py:make builds the whole pipe"),
        ("build.py:make", {"weights": "random"}, "--weights random: --factory"),
        ("build.py:make", {"word": "sdxl"}, "--pipeline sdxl: --factory"),
    ],
)
def test_words_that_mean_nothing_beside_a_factory_are_refused(
    word: str, options: dict[str, Any], says: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(UserError, match=says):
        resolve(**{"word": "demo", **options}, factory=word, run_code=True)
    with pytest.raises(UserError, match="--run-code allows the code of --factory"):
        resolve("demo", run_code=True)


def test_the_probe_describes_the_pipe_that_it_builds(target: Target, file: Path, root: Path) -> None:
    traits = target.pipeline.known
    plain = tiny_pipe(FAMILY, root)[0]
    assert (traits.class_name, traits.denoiser_class) == (FAMILY, "MyUNet")
    counted = {part.name: part.weights for part in traits.components}
    assert counted["unet"] == sum(p.numel() for p in plain.unet.parameters())
    assert target.pipeline.revision == factory.digest_of(file)
    job = ProbeJob(pipeline=target.pipeline, device=target.device, prompts=("a",))
    assert _mapped_files_bytes(job) == 4 * sum(counted.values())


def test_a_trial_draws_with_the_pipe_in_the_format_of_its_config(child: Pipeline, root: Path) -> None:
    config = complete({})
    pipe: Any = build.load(child, config, "cpu")
    build.apply(pipe, config, tiny_workload(FAMILY), "cpu")
    assert type(pipe.unet).__name__ == "MyUNet"
    assert np.array_equal(draw(pipe, FAMILY), draw(tiny_pipe(FAMILY, root)[0], FAMILY))
    half: Any = loading.load(child, dtype=torch.bfloat16, device="cpu")
    assert half.unet.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("without", r"the factory without of build.py takes no dtype: write it as `def without\(dtype\)`"),
        ("nothing", "the factory nothing of build.py returned NoneType, not a diffusers pipeline"),
        ("gone", "has no function gone"),
    ],
)
def test_what_is_no_factory_is_one_sentence(
    function: str, says: str, child: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = child.model_copy(update={"factory": function})
    monkeypatch.setenv(RUN_CODE, factory.word_of(wrong))
    with pytest.raises(UserError, match=says):
        factory.make(wrong, torch.float32)


def test_what_a_factory_raises_is_a_failure_of_the_trial_and_not_bad_input(
    child: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = child.model_copy(update={"factory": "fails"})
    monkeypatch.setenv(RUN_CODE, factory.word_of(failing))
    with pytest.raises(ValueError, match="no such format"):
        loading.load(failing, dtype=torch.float32, device="cpu")


def test_a_study_or_an_export_of_somebody_else_makes_no_child_run_it(target: Target, tmp_path: Path) -> None:
    factory._allowed.clear()
    job = ProbeJob(pipeline=target.pipeline, device=target.device, prompts=("a",))
    with pytest.raises(UserError, match="which is code and runs only where you allow it") as caught:
        isolate.run(tmp_path / "job", job, timeout_s=1)
    assert f"--factory {target.pipeline.source}:make --run-code" in str(caught.value)
    assert not (tmp_path / "job").exists()


def test_load_takes_the_function_and_refuses_without(
    target: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.delenv(RUN_CODE)
    path = exported(target, tmp_path)
    with pytest.raises(UserError, match=r"autotune.load\(FILE, factory=make\)"):
        autotune.load(path)
    pipe: Any = autotune.load(path, factory=factory.function_of(Path(target.pipeline.source), "make"))
    pipe.set_progress_bar_config(disable=True)
    caplog.clear()
    assert draw(pipe, FAMILY).shape == (1, 32, 32, 3)
    assert logged_warnings(caplog) == []

    def other(dtype: torch.dtype) -> Any:
        return tiny_pipe(FAMILY, root)[0].to(dtype)

    with caplog.at_level(logging.WARNING):
        autotune.load(path, factory=other)
    assert logged_warnings(caplog) == [f"the files of {Path(__file__)} are not those that were measured."]
    with pytest.raises(UserError, match="strict=True"):
        autotune.load(path, factory=other, strict=True)


def test_a_factory_is_refused_for_a_pipe_that_diffusers_loads(target: Target, tmp_path: Path) -> None:
    tuned = TunedConfig.load(exported(target, tmp_path))
    plain = tuned.model_copy(update={"pipeline": resolve("demo")})
    with pytest.raises(UserError, match="loaded by diffusers, not built by a factory"):
        plain.pipeline_on("cpu", factory=lambda dtype: None)
    with pytest.raises(UserError, match="--run-code allows the code of --factory"):
        factory.rebuilt(plain.pipeline, None, run_code=True)


def test_two_configs_are_compared_with_the_function_that_the_user_allows(
    target: Target, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def run(runner: Runner, *_: Any, **__: Any) -> None:
        raise Stop(runner.target.pipeline.factory, runner.target.pipeline.source)

    monkeypatch.setattr(Runner, "run", run)
    path = exported(target, tmp_path)
    with pytest.raises(Stop) as found:
        compare(path, path, device="cpu", factory=f"{file}:make", run_code=True)
    assert found.value.args == ("make", str(file))
    with pytest.raises(UserError, match="--run-code"):
        compare(path, path, device="cpu", factory=f"{file}:make")


def test_the_plain_script_builds_the_pipe_by_the_function(target: Target, tmp_path: Path, root: Path) -> None:
    tuned = TunedConfig.load(exported(target, tmp_path))
    (tmp_path / "best.py").write_text(script(tuned, "best.py"))
    names = runpy.run_path(str(tmp_path / "best.py"))
    assert type(names["pipe"].unet).__name__ == "MyUNet"
    assert "from diffusers" not in (tmp_path / "best.py").read_text()


def test_next_steps_name_the_factory(file: Path) -> None:
    named = words.naming(resolve("demo", factory=f"{file}:make", run_code=True))
    assert named == ["--factory", f"{file}:make", "--run-code"]
    assert words.naming(resolve("sdxl")) == ["--pipeline", "sdxl"]
