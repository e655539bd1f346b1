"""A checkpoint that is quantized already: what is known of it, and what is said where it can't be loaded here."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipes import tiny_pipeline

from autotune.errors import UserError
from autotune.pipelines import resolve
from autotune.pipelines.components import components_of
from autotune.pipelines.loading import load

FAMILY = "FluxPipeline"
SVDQ = {"precision": "int4", "group_size": 64, "rank": 32, "targets": ["proj_out"]}
MISSING = "the package bitsandbytes is not installed: pip install bitsandbytes"
METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes_4bit": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, MISSING),
    "sdnq": ({"quant_method": "sdnq"}, "requires the sdnq library"),
    "quanto": ({"quant_method": "quanto", "weights_dtype": "int8"}, "pip install optimum-quanto"),
    "modelopt": ({"quant_method": "modelopt", "quant_type": "FP8"}, "modelopt"),
    "nunchaku_lite": ({"quant_method": "nunchaku_lite", "svdq_w4a4": SVDQ}, "kernels"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_pipeline(FAMILY, tmp_path_factory.mktemp("tiny")).source)


def marked(plain: Path, folder: Path, how: dict[str, Any]) -> Path:
    """The checkpoint, whose transformer says that it is quantized in this way."""
    shutil.copytree(plain, folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": how}))
    return folder


@pytest.mark.filterwarnings("ignore:.*Quanto.* is deprecated:FutureWarning")  # of diffusers, by version 1.0
@pytest.mark.parametrize("method", METHODS)
def test_what_can_not_be_loaded_here_is_one_sentence_with_what_it_needs(
    method: str, plain: Path, tmp_path: Path
) -> None:
    how, needed = METHODS[method]
    folder = marked(plain, tmp_path / "checkpoint", how)
    with pytest.raises(UserError) as caught:
        load(resolve(str(folder)), dtype=torch.bfloat16, device="cpu")
    said = str(caught.value)
    assert said.startswith(f"{str(folder)!r} can't be loaded: ")
    assert needed in said
    assert "\n" not in said


def test_its_footprint_is_the_bytes_of_its_files(plain: Path, tmp_path: Path) -> None:
    folder = marked(plain, tmp_path / "checkpoint", METHODS["sdnq"][0])
    packed = {part.name: part.packed_bytes for part in components_of(resolve(str(folder)))}
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert packed["transformer"] == file.stat().st_size - header
    assert {name for name, held in packed.items() if held is not None} == {"transformer"}
