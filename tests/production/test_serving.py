"""A warm-up calls each measured size; a call of another size works and logs one warning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_warnings, make_target
from made_up import measured, record

import autotune
from autotune import demo
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.pipelines.locate import revision_of
from autotune.production import serving
from autotune.production.serving import Serving, shape_of
from autotune.tuning.export import export
from autotune.workload import Shape


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in two steps at two sizes."""
    target = make_target(find_device("cpu"), sizes=2)
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    workload = target.workload.model_copy(update={"steps": 2})
    target = target.model_copy(update={"workload": workload, "pipeline": pipeline, "versions": versions()})
    path = tmp_path_factory.mktemp("serving") / "best.json"
    export(record(target), measured(1, also=(1.0,)), measured(0, also=(2.0,)), None).save(path)
    return path


def test_a_call_of_another_size_works_and_is_warned_of_once(best: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe: Any = autotune.load(best)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle").images[0].size == (64, 64)
    assert len(pipe(["a red circle"] * 2, width=96, height=96).images) == 2
    assert logged_warnings(caplog) == []
    for _ in range(2):
        assert pipe("a red circle", width=96).images[0].size == (96, 64)
    assert logged_warnings(caplog) == [
        "this config was not tuned for a call of size 96x64@1 (measured: 64x64@1, 96x96@2): its speed is unknown, and "
        "code is compiled again for it."
    ]
    pipe("a red circle", num_images_per_prompt=2)
    assert len(logged_warnings(caplog)) == 2
    assert type(pipe).__name__ == "StableDiffusionPipeline"


def test_a_warm_up_calls_every_measured_size(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionPipeline

    called: list[tuple[int, int, int]] = []
    own = StableDiffusionPipeline.__call__

    def call(self: Any, prompt: Any, *, width: int, height: int, **more: Any) -> Any:
        called.append((width, height, len(prompt)))
        return own(self, prompt, width=width, height=height, **more)

    pipe = autotune.load(best)
    monkeypatch.setattr(type(pipe), "__call__", call)
    serving.warm_up(pipe, autotune.TunedConfig.load(best).workload)
    assert called == [(64, 64, 1), (96, 96, 2)]


def test_load_warms_up_only_with_the_argument_warmup(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[Any] = []
    monkeypatch.setattr(serving, "warm_up", lambda pipe, workload: warmed.append(workload.shapes))
    autotune.load(best)
    assert warmed == []
    autotune.load(best, warmup=True)
    assert len(warmed) == 1


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, (64, 64, 1)),
        ({"prompt": "a"}, (64, 64, 1)),
        ({"prompt": ["a", "b"], "width": None}, (64, 64, 2)),
        ({"prompt": ["a", "b"], "num_images_per_prompt": 3}, (64, 64, 6)),
        ({"prompt_embeds": torch.zeros(4, 77, 8), "height": 128}, (64, 128, 4)),
    ],
)
def test_the_size_of_a_call_is_read_off_its_arguments(arguments: dict[str, Any], shape: tuple[int, int, int]) -> None:
    width, height, batch = shape
    assert shape_of(arguments, make_target().workload) == Shape(width=width, height=height, batch=batch)


def test_the_file_says_which_sizes_and_prompts_were_measured() -> None:
    assert Serving.of(make_target(sizes=2).workload) == Serving(sizes=("64x64@1", "96x96@2"), prompt_words=(11, 11))
