"""Checkpoints in other forms than a plain folder go the whole path of a search, as do calls of turbo checkpoints.

`autotune search --budget 6` was run by hand on these and on Z-Image, Flux.2 Klein and QwenImage: it takes minutes each.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from single_file import original_names
from tiny import tiny_checkpoint
from whole_path import few_calls, whole_path

from autotune.pipelines import resolve
from autotune.pipelines.loading import load


def test_a_variant_in_one_step_without_guidance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_calls(monkeypatch)
    plain = tiny_checkpoint("StableDiffusionXLPipeline", tmp_path / "plain")
    half = load(resolve(str(plain)), dtype=torch.float16, device="cpu")
    half.save_pretrained(tmp_path / "half", variant="fp16")
    target = whole_path(tmp_path / "half", tmp_path / "study", side=32, steps=1, guidance=0.0, seed="turbo")
    assert target.pipeline.variant == "fp16"
    assert (target.workload.steps, target.workload.guidance_scale) == (1, 0.0)


def test_a_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_calls(monkeypatch)
    folder = tiny_checkpoint("StableDiffusionPipeline", tmp_path / "sd")
    save_file(original_names(folder), tmp_path / "sd.safetensors")
    target = whole_path(
        tmp_path / "sd.safetensors", tmp_path / "study", side=32, steps=2, seed="single", config=str(folder)
    )
    assert target.pipeline.source.endswith("sd.safetensors")
