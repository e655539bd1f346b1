"""Random weights end where the config wants them. The device "meta" stands for host memory, "cpu" for the GPU."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from live import configurations, configured

from autotune.building import build
from autotune.knobs import complete
from autotune.pipelines import loading, random_weights
from autotune.pipelines.random_weights import assemble, randomize


def test_weights_end_on_the_device_and_not_where_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where they are drawn, nothing is kept of them: the allocator's cache would count as memory of the config."""
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    pipe = assemble(configured(configurations(tmp_path / "tiny")), dtype=torch.bfloat16, device="meta", drawn_on="cpu")
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(models) >= 3
    assert {weight.device.type for model in models for weight in model.state_dict().values()} == {"meta"}
    assert emptied == [True]


def test_weights_are_drawn_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fits no GPU is made for offloading on one that holds its largest weight."""
    fill, drawn, most = random_weights._fill, list[Any](), [0]

    def watched(value: torch.Tensor, name: str, generator: torch.Generator) -> torch.Tensor:
        gc.collect()
        drawn.append(weakref.ref(value))
        most[0] = max(most[0], sum(one() is not None for one in drawn))
        return fill(value, name, generator)

    monkeypatch.setattr(random_weights, "_fill", watched)
    gc.freeze()  # otherwise each collection looks through all that is loaded: a second
    try:
        randomize(lambda: torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(6))), torch.float32, "meta", "cpu")
    finally:
        gc.unfreeze()
    assert len(drawn) == 12
    assert most == [1]


def test_where_weights_are_drawn_decides_them_and_not_where_they_end() -> None:
    def made(device: str, drawn_on: str | None) -> torch.Tensor:
        return randomize(lambda: torch.nn.Linear(8, 8), torch.float32, device, drawn_on).weight

    assert torch.equal(made("cpu", None), made("cpu", "cpu"))


@pytest.mark.parametrize(("offload", "home"), [("none", "cuda:0"), ("model", "cpu"), ("group", "cpu")])
def test_a_config_that_offloads_has_its_random_weights_in_host_memory(
    offload: str, home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []

    def load(pipeline: Any, *, device: str, drawn_on: str, **_: Any) -> Any:
        asked.append((device, drawn_on))
        return SimpleNamespace()

    monkeypatch.setattr(loading, "load", load)
    build.load(configured(configurations(tmp_path / "tiny")), complete({"offload": offload}), "cuda:0")
    assert asked == [(home, "cuda:0")]
