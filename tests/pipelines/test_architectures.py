"""The configurations that random weights are made from describe the published models: counted part by part, on meta."""

import inspect
import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.pipelines.locate import ARCHITECTURES

CLIP_L, CLIP_G, VAE = (123, 0.2), (695, 1), (83.7, 0.2)  # 492 MB, 2.78 GB and 335 MB in fp32
VAE_16 = (83.8, 0.2)  # with 16 channels: 168 MB in bf16
CLIP_L_PROJECTED = (123.7, 0.2)  # 247 MB in fp16
QWEN3_4B, GEMMA2_2B = (4022, 5), (2614, 5)  # 8.04 GB and 5.23 GB in bf16
T5_XXL = (4760, 5)  # 9.52 GB in bf16 as FLUX stores it; IF's own 19.6 GB in fp32 hold the embedding twice

# Millions of parameters, and how far the rounding of their source lets them be off. The source is the size of the
# weights on the hub, fp32 where nothing else is said. A folder that is one model has the part "".
PUBLISHED = {
    ("sd15-inpaint", "unet"): (860, 1.3),  # 3.44 GB
    ("sd15-inpaint", "text_encoder"): CLIP_L,
    ("sd15-inpaint", "vae"): VAE,
    ("controlnet-sd15-canny", ""): (362.5, 1.3),  # 1.45 GB
    ("ssd-1b", "unet"): (1332.5, 1.3),  # 5.33 GB; with no middle block at all it would have 31 less
    ("ssd-1b", "text_encoder"): CLIP_L,
    ("ssd-1b", "text_encoder_2"): CLIP_G,
    ("ssd-1b", "vae"): VAE,
    ("if-stage1", "unet"): (4305, 2.5),  # 8.61 GB in fp16; the model card: 4.3B
    ("if-stage1", "text_encoder"): T5_XXL,
    ("if-stage2", "unet"): (1242.5, 1.3),  # 4.97 GB; the model card: 1.2B
    ("if-stage2", "text_encoder"): T5_XXL,
    ("if-stage3", "unet"): (473.5, 0.3),  # 947 MB in fp16
    ("if-stage3", "text_encoder"): (340, 1.3),  # 1.36 GB
    ("if-stage3", "vae"): (55.3, 0.2),  # 221 MB
    ("flux-dev", "transformer"): (11901, 5),  # 23.8 GB in bf16; the model card: 12B
    ("flux-dev", "text_encoder"): CLIP_L,
    ("flux-dev", "text_encoder_2"): T5_XXL,
    ("flux-dev", "vae"): VAE_16,
    ("flux-schnell", "transformer"): (11891, 5),  # dev without the embedding of its guidance
    ("flux-schnell", "text_encoder"): CLIP_L,
    ("flux-schnell", "text_encoder_2"): T5_XXL,
    ("flux-schnell", "vae"): VAE_16,
    ("flux-kontext", "transformer"): (11901, 5),  # as dev
    ("flux-kontext", "text_encoder"): CLIP_L,
    ("flux-kontext", "text_encoder_2"): T5_XXL,
    ("flux-kontext", "vae"): VAE_16,
    ("flux2-klein", "transformer"): (3876, 5),  # 7.75 GB in bf16; the model card: 4B
    ("flux2-klein", "text_encoder"): QWEN3_4B,
    ("flux2-klein", "vae"): (84.0, 0.3),  # 168 MB in bf16
    ("chroma", "transformer"): (8900, 50),  # the model card: 8.9B
    ("chroma", "text_encoder"): T5_XXL,
    ("chroma", "vae"): VAE_16,
    # 4.94 GB and 16.3 GB in bf16, without the table of positions, a buffer of 384 x 384 x 1536 and 192 x 192 x 2432
    ("sd3.5-medium", "transformer"): (2470 - 226.5, 5),
    ("sd3.5-medium", "text_encoder"): CLIP_L_PROJECTED,
    ("sd3.5-medium", "text_encoder_2"): CLIP_G,
    ("sd3.5-medium", "text_encoder_3"): T5_XXL,
    ("sd3.5-medium", "vae"): VAE_16,
    ("sd3.5-large", "transformer"): (8146 - 89.7, 10),
    ("sd3.5-large", "text_encoder"): CLIP_L_PROJECTED,
    ("sd3.5-large", "text_encoder_2"): CLIP_G,
    ("sd3.5-large", "text_encoder_3"): T5_XXL,
    ("sd3.5-large", "vae"): VAE_16,
    ("qwen-image", "transformer"): (20430, 50),  # 40.9 GB in bf16; the model card: 20B
    ("qwen-image", "text_encoder"): (8292, 10),  # 16.6 GB in bf16
    ("qwen-image", "vae"): (126.9, 0.3),  # 254 MB in bf16
    ("z-image-turbo", "transformer"): (6155, 50),  # the model card: 6B
    ("z-image-turbo", "text_encoder"): QWEN3_4B,
    ("z-image-turbo", "vae"): VAE_16,
    ("sana", "transformer"): (1604, 5),  # the model card: 1.6B
    ("sana", "text_encoder"): GEMMA2_2B,
    ("sana", "vae"): (312.3, 0.5),  # 1.25 GB
    ("lumina2", "transformer"): (2610, 15),  # the model card: 2.6B
    ("lumina2", "text_encoder"): GEMMA2_2B,
    ("lumina2", "vae"): VAE_16,
    ("pixart-sigma", "transformer"): (610.9, 1.3),  # 2.44 GB; the paper: 0.6B
    ("pixart-sigma", "text_encoder"): T5_XXL,
    ("pixart-sigma", "vae"): VAE,
    # Figures of the model cards, from memory
    ("wan2.2-5b", "transformer"): (5000, 25),  # 10.0 GB in fp16; the model card: 5B
    ("wan2.2-5b", "text_encoder"): (5681, 10),  # 11.4 GB in bf16
    ("wan2.2-5b", "vae"): (704.7, 1.3),  # 2.82 GB
    ("ltx", "transformer"): (1923, 5),  # the paper: 1.9B
    ("ltx", "text_encoder"): T5_XXL,
    ("ltx", "vae"): (419.2, 1.3),  # 1.68 GB
    ("flux2-dev", "transformer"): (32223, 250),  # 64.4 GB in bf16; the model card: 32B
    ("flux2-dev", "text_encoder"): (24011, 25),  # 48 GB in bf16; Mistral Small 3.2: 24B
    ("flux2-dev", "vae"): (84.0, 0.3),
    ("hidream", "transformer"): (17105, 50),  # 34.2 GB in bf16; the model card: 17B
    ("hidream", "text_encoder"): (123.8, 0.2),  # 248 MB in bf16
    ("hidream", "text_encoder_2"): CLIP_G,
    ("hidream", "text_encoder_3"): T5_XXL,
    ("hidream", "text_encoder_4"): (8030, 5),  # 16.1 GB in bf16; Llama 3.1: 8B
    ("hidream", "vae"): VAE_16,
    ("qwen-image-edit", "transformer"): (20430, 50),  # as qwen-image
    ("qwen-image-edit", "text_encoder"): (8292, 10),
    ("qwen-image-edit", "vae"): (126.9, 0.3),
}
FOLDERS = sorted({folder for folder, _ in PUBLISHED})
PIPELINES = [folder for folder in FOLDERS if (folder, "") not in PUBLISHED]


def index_of(folder: str) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((ARCHITECTURES / folder / "model_index.json").read_text())
    return index


def parts_of(folder: str) -> dict[str, tuple[Path, Any]]:
    """Where each part is configured, and its class; tokenizers, whose vocabularies aren't shipped, left out."""
    if (folder, "") in PUBLISHED:
        where = ARCHITECTURES / folder
        name = json.loads((where / "config.json").read_text())["_class_name"]
        return {"": (where, getattr(import_module("diffusers"), name))}
    specs = {name: spec for name, spec in index_of(folder).items() if isinstance(spec, list) and spec[0] is not None}
    return {
        name: (ARCHITECTURES / folder / name, getattr(import_module(library), cls))
        for name, (library, cls) in specs.items()
        if "Tokenizer" not in cls
    }


def is_model(cls: Any) -> bool:
    return issubclass(cls, torch.nn.Module)


def made(where: Path, cls: Any) -> Any:
    """The part as its configuration describes it; a model without its weights, tied ones still tied."""
    if not is_model(cls):
        return cls.from_pretrained(where)
    with torch.device("meta"):
        if hasattr(cls, "config_class"):
            return cls(cls.config_class.from_pretrained(where))
        return cls.from_config(cls.load_config(where))


_COUNTS: dict[tuple[Any, str], int] = {}


def _counted(cls: Any, configuration: str, where: Path) -> int:
    """How many parameters the part has. Text encoders of several pipelines are the same: they are made once."""
    if (cls, configuration) not in _COUNTS:
        model = made(where, cls)
        assert {p.device.type for p in model.parameters()} == {"meta"}
        _COUNTS[cls, configuration] = sum(p.numel() for p in model.parameters())
    return _COUNTS[cls, configuration]


@pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated")  # in diffusers' own Chroma
@pytest.mark.parametrize(("folder", "part"), PUBLISHED)
def test_every_model_has_its_published_size(folder: str, part: str) -> None:
    where, cls = parts_of(folder)[part]
    millions, off = PUBLISHED[folder, part]
    counted = _counted(cls, (where / "config.json").read_text(), where)
    assert counted / 1e6 == pytest.approx(millions, abs=off)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_model_goes_uncounted(folder: str) -> None:
    models = {(folder, name) for name, (_, cls) in parts_of(folder).items() if is_model(cls)}
    assert models == {key for key in PUBLISHED if key[0] == folder}


@pytest.mark.parametrize("folder", FOLDERS)
def test_diffusers_knows_every_key(
    folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only warns of a key that it doesn't know: a misspelled one would silently have its default."""
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    for where, cls in parts_of(folder).values():
        if cls.__module__.startswith("diffusers"):
            cls.extract_init_dict(dict(cls.load_config(where)))  # what from_config() begins with, and what warns
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("folder", PIPELINES)
def test_the_index_has_what_the_pipeline_is_made_from(folder: str) -> None:
    index = index_of(folder)
    cls = getattr(import_module("diffusers"), index.pop("_class_name"))
    taken = inspect.signature(cls).parameters
    needed = {name for name, parameter in taken.items() if parameter.default is parameter.empty}
    assert needed <= set(index) <= set(taken)
    there = {path.name for path in (ARCHITECTURES / folder).iterdir() if path.is_dir()}
    assert set(parts_of(folder)) <= there <= set(index)
