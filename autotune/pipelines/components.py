"""Components: how many weights each component of a pipeline has, counted on its class without weights ("meta")."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.footprint import Component
from autotune.pipeline import Pipeline
from autotune.pipelines import checkpoint, locate, parts
from autotune.pipelines.adapters import gguf_file
from autotune.pipelines.checkpoint import is_single_file
from autotune.pipelines.classes import names_class
from autotune.pipelines.random_weights import assemble, component
from autotune.pipelines.weight_files import Counts, counted, stored_formats

# Number format, as safetensors calls it -> its bits; 8 where it is another one.
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "F4": 4}

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def components_of(pipeline: Pipeline, configured: Pipeline | None = None) -> tuple[Component, ...]:
    """The components that have weights, as the pipeline would be loaded. Raises UserError as locate.folder_of() does.

    configured  the pipeline whose configurations are read, where the weights of `pipeline` are not on this disk
    """
    import torch

    configured = configured or pipeline
    pipe: Any = assemble(configured, dtype=torch.float32, device="meta")
    models = {name: m for name, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
    if pipeline.weights == "pretrained" and pipeline.factory is None:
        models |= _left_out(pipe, locate.folder_of(configured, configurations_only=configured.weights == "random"))
    stored = _stored(pipeline, models) if pipeline.weights == "pretrained" else {}
    at_random = pipeline.weights == "random"
    folder = locate.folder_of(configured, configurations_only=True) if _in_folders(pipeline) else None
    quantized = checkpoint.quantized_components(folder) if folder is not None else {}
    packed = _packed_by_gguf(pipeline, folder)
    stored |= {name: {kind: weights for kind, (weights, _) in kinds.items()} for name, kinds in packed.items()}
    denoisers, in_turn = parts.denoisers(pipe), (pipe.model_cpu_offload_seq or "").split("->")
    each_step = parts.denoiser_name(pipe), "controlnet"
    return tuple(
        Component(
            name=name,
            weights=sum(size for _, size in _weights(model)),
            largest_layer=max((_own(module) for module in model.modules()), default=0),
            linear=_linear(model),
            kept_float32=_kept_float32(model, at_random=at_random),
            packed_bytes=sum(size for _, size in packed[name].values())
            if name in packed
            else _packed_bytes(model, stored.get(name, {}), quantized=name in quantized),
            cast=_cast(model) if name in denoisers else 0,  # the last that is asked of it
            runs_each_step=name in each_step,
            offloaded="never"
            if name in pipe._exclude_from_cpu_offload
            else "in turn"
            if name in in_turn
            else "at the end",
            stored=stored.get(name, {}),
        )
        for name, model in models.items()
    )


def _in_folders(pipeline: Pipeline) -> bool:
    """Are its weights files of a checkpoint, in a folder for each component?"""
    return pipeline.weights == "pretrained" and pipeline.factory is None and not is_single_file(pipeline.source)


def _packed_by_gguf(pipeline: Pipeline, folder: Path | None) -> dict[str, dict[str, tuple[int, int]]]:
    """The denoiser's name -> the formats of its weights in a GGUF file; empty where there is none on this disk."""
    if pipeline.gguf is None or folder is None:
        return {}
    try:
        file = gguf_file.file_of(pipeline, local_files_only=True)
    except UserError:
        return {}
    return {gguf_file.denoiser_of(folder, pipeline.gguf)[0]: gguf_file.formats_of(file)}


def _packed_bytes(model: "torch.nn.Module", stored: Counts, *, quantized: bool) -> int | None:
    """The bytes of weights that the checkpoint has quantized: those of its files, or of what a factory has loaded.

    None: it has quantized none, or its files are not known.
    """
    held = [*model.parameters()]
    if any(not p.is_floating_point() for p in held):
        return sum(int(p.numel() * p.element_size()) for p in held)
    sizes = {name: BITS.get(name, 8) for name in stored}
    return sum(count * sizes[name] // 8 for name, count in stored.items()) if quantized and stored else None


def _left_out(pipe: "DiffusionPipeline", folder: Path) -> dict[str, "torch.nn.Module"]:
    """The models that the folder names and the pipe lacks, without weights."""
    import torch

    index = json.loads((folder / "model_index.json").read_text())
    lost = [n for n, spec in index.items() if names_class(spec) and None not in spec and not hasattr(pipe, n)]
    lost += [name for name, part in pipe.components.items() if part is None]
    models = [name for name in lost if (folder / name / "config.json").is_file()]
    return {name: component(folder / name, index[name], torch.float32, "meta") for name in models}


def _stored(pipeline: Pipeline, models: dict[str, "torch.nn.Module"]) -> dict[str, Counts]:
    """Component -> the number formats in its files."""
    if pipeline.factory is not None:
        return {}
    if is_single_file(pipeline.source):  # its tensors have other names: most of its weights tell the format of all
        counts = counted(Path(pipeline.source))
        format_ = max(counts, key=lambda name: counts[name])
        return {name: {format_: sum(size for _, size in _weights(model))} for name, model in models.items()}
    source = str(locate.folder_of(pipeline)) if pipeline.source == "demo" else pipeline.source
    own = [name for name in models if name != "controlnet" or pipeline.controlnet is None]
    found = stored_formats(source, pipeline.revision, own, pipeline.variant)
    total: Counter[str] = Counter()
    for name, (source, _) in pipeline.controlnets.items():
        revision = locate.hub_revision(pipeline.part_revisions.get(name))
        total.update(stored_formats(source, revision, [""]).get("", {}))
    return found | ({"controlnet": dict(total)} if total else {})


def _weights(model: "torch.nn.Module") -> list[tuple[str, int]]:
    """(name, number of weights) of the floating-point parameters and buffers; shared ones once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.numel()) for name, tensor in named if tensor.is_floating_point()]


def _own(module: "torch.nn.Module") -> int:
    return sum(p.numel() for p in module.parameters(recurse=False) if p.is_floating_point())


def _linear(model: "torch.nn.Module") -> tuple[tuple[int, int, int], ...]:
    import torch

    shapes = Counter((m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear))
    return tuple((wide, high, count) for (wide, high), count in sorted(shapes.items()))


def _kept_float32(model: Any, *, at_random: bool) -> dict[str, int]:
    """Number format -> weights that stay in float32.

    transformers keeps some of a checkpoint's in float16, others in any 16-bit format; diffusers keeps its own in both.
    Buffers that are in no file are not converted; random weights convert no buffer.
    """
    strict = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    plain = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    both = strict if hasattr(model, "_keep_in_fp32_modules_strict") else plain
    unconverted = {name for name, _ in model.named_buffers()} - (set() if at_random else set(model.state_dict()))

    def count(words: set[str]) -> int:
        kept = set() if at_random else words
        return sum(size for name, size in _weights(model) if name in unconverted or kept & set(name.split(".")))

    found = {"fp16": count(plain | strict), "bf16": count(both)}
    return {name: number for name, number in found.items() if number}


def _cast(denoiser: Any) -> int:
    """The weights that layerwise casting stores in 8 bits. Asked by casting; the denoiser can't be used afterwards."""
    import torch

    if not hasattr(denoiser, "enable_layerwise_casting"):
        return 0
    stored = torch.float8_e4m3fn
    denoiser.enable_layerwise_casting(storage_dtype=stored, compute_dtype=torch.float32)
    return sum(p.numel() for p in denoiser.parameters() if p.dtype == stored)
