"""loaded(): autotune.load() of a tiny checkpoint with any settings, and a LoRA for it."""

from pathlib import Path
from typing import Any

import torch
from made_up import measured, record
from tiny import WIDTH
from tiny_pipes import tiny_pipeline, tiny_traits, tiny_workload

import autotune
from autotune.config import Value
from autotune.devices import find_device
from autotune.devices.probe import probe_device, versions
from autotune.pipelines import parts
from autotune.target import Target
from autotune.tuning.export import export
from autotune.workload import Workload

UNET, FLUX = "StableDiffusionPipeline", "FluxPipeline"


def target_of(family: str, root: Path, workload: Workload | None = None) -> Target:
    """The tiny checkpoint on this processor, in calls of two steps where no workload is given."""
    pipeline = tiny_pipeline(family, root).model_copy(update={"traits": tiny_traits(family, root)})
    workload = workload or tiny_workload(family, steps=2)
    return Target(pipeline=pipeline, workload=workload, device=probe_device(find_device("cpu")), versions=versions())


def loaded(
    family: str,
    root: Path,
    *,
    into: Path | None = None,
    workload: Workload | None = None,
    thread_safe: bool = False,
    **values: Value,
) -> Any:
    """The pipe that autotune.load() makes of a file with these settings."""
    path = (into or root) / "best.json"
    export(record(target_of(family, root, workload)), measured(1, values), measured(0), None).save(path)
    pipe = autotune.load(path, device="cpu", local_files_only=True, thread_safe=thread_safe)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lora_of(pipe: Any) -> dict[str, torch.Tensor]:
    """The weights of a LoRA that changes the pictures of this pipe much, by their names in a file."""
    name, made = parts.denoiser_name(pipe), dict[str, torch.Tensor]()
    generator = torch.Generator().manual_seed(1)
    for path, module in parts.denoiser(pipe).named_modules():
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in ("to_q", "to_k", "to_v"):
            down, up = (2, module.in_features), (module.out_features, 2)
            made[f"{name}.{path}.lora_A.weight"] = 2 * torch.randn(down, generator=generator)
            made[f"{name}.{path}.lora_B.weight"] = 2 * torch.randn(up, generator=generator)
    return made


def adapter_of(pipe: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Put a tiny IP-Adapter on a pipe with a UNet. Its picture is given as embeddings, 1 x 32. Returns its weights."""
    generator = torch.Generator().manual_seed(2)
    weights: dict[str, torch.Tensor] = {}
    crossed = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossed):
        wide = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for which in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * number + 1}.{which}.weight"] = torch.randn(wide, WIDTH, generator=generator)
    projection = {
        "proj.weight": torch.randn(4 * WIDTH, WIDTH, generator=generator),
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }
    state = {"image_proj": projection, "ip_adapter": weights}
    pipe.load_ip_adapter(state, subfolder=None, weight_name=None, image_encoder_folder=None)
    return state
