"""allocator: torch is told so, and segments that can grow are counted. A fake stands for the GPU's allocator."""

from typing import Any

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import loaded

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob

KNOB = find_knob("allocator")
CONFIG = complete({"allocator": "expandable_segments"})


def test_torch_is_told_and_what_it_did_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    segments: list[dict[str, Any]] = [{"is_expandable": False}]
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda include_traces: segments)
    assert KNOB.apply is not None
    assert KNOB.apply(loaded(), CONFIG, "cuda:0").count == 1
    assert told == ["expandable_segments:True"]
    with pytest.raises(NoEffect, match="allocator=expandable_segments had no effect here: 0 segments"):
        build.verify(loaded(), CONFIG, None)
    segments.append({"is_expandable": True})
    assert build.verify(loaded(), CONFIG, None)["allocator"].count == 1
    assert KNOB.script is not None
    exec("\n".join(KNOB.script(CONFIG, make_target(gpu(8, 0))).lines), {"torch": torch})
    assert told == ["expandable_segments:True"] * 2


def test_where_it_is_not_possible() -> None:
    assert KNOB.why_not("expandable_segments", make_target(gpu(8, 0))) is None
    assert "NVIDIA" in str(KNOB.why_not("expandable_segments", make_target(CPU)))
    held = make_target(gpu(8, 0)).model_copy(update={"environment": {"PYTORCH_ALLOC_CONF": "backend:native"}})
    assert KNOB.why_not("expandable_segments", held) == (
        "the environment variable PYTORCH_ALLOC_CONF sets the allocator already"
    )
