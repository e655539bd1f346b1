"""Loading: a live diffusers pipe, from the weights on the disk or at full size with random weights."""

import inspect
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autotune.errors import UserError, nearest
from autotune.pipeline import Pipeline
from autotune.pipelines import checkpoint, factory, locate
from autotune.pipelines.adapters import controlnet, gguf_file, ip_adapter, textual_inversion
from autotune.pipelines.classes import component_class, names_class, pipeline_class, scheduler_class
from autotune.pipelines.random_weights import assemble
from autotune.pipelines.replacement_vae import load_vae
from autotune.pipelines.running import remember

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load(
    pipeline: Pipeline,
    *,
    dtype: torch.dtype,
    device: str,
    drawn_on: str | None = None,
    vae: str = "own",
    local_files_only: bool = False,
    given: Mapping[str, Any] | None = None,
) -> "DiffusionPipeline":
    """The pipe, its floating-point weights in `dtype`. Raises UserError where it can't be loaded.

    device    torch's name: random weights end there; pretrained weights are loaded into host memory
    drawn_on  where random weights are drawn, one at a time; None: on `device`
    vae       "own", a key of REPLACEMENT_VAES, or the hub id or folder of another VAE
    given     components that are loaded already, by name
    """
    if pipeline.factory is not None:
        pipe = factory.make(pipeline, dtype)
    elif pipeline.weights == "random":
        pipe = assemble(pipeline, dtype=dtype, device=device, drawn_on=drawn_on, given=given)
    else:
        pipe = _pretrained(pipeline, dtype, local_files_only, given or {})
    remember(pipe, task=pipeline.task)
    if vae != "own":
        own = getattr(pipe, "vae", None)
        pipe.register_modules(vae=load_vae(pipeline, vae, own, dtype, device, local_files_only, drawn_on))
    set_scheduler(pipe, pipeline)
    textual_inversion.put_on(pipe, pipeline, local_files_only=local_files_only)
    if pipeline.loras:
        _fuse_loras(pipe, pipeline, local_files_only)
    if pipeline.ip_adapter is not None:
        ip_adapter.put_on(pipe, pipeline, local_files_only=local_files_only)
    return pipe


def import_classes(pipeline: Pipeline) -> None:
    """Import the classes of this pipeline and its components, which diffusers and transformers import late.

    Of a pipe that the user's function builds, the function's file is imported.
    """
    if pipeline.factory is not None:
        factory.find(pipeline)
        return
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random", local_files_only=True)
    pipeline_class(pipeline, folder)
    for spec in json.loads((folder / "model_index.json").read_text()).values():
        if names_class(spec) and None not in spec:
            component_class(*spec)


def set_scheduler(pipe: "DiffusionPipeline", pipeline: Pipeline) -> None:
    """Replace the scheduler where the pipeline names another one, as distilled models need. Raises UserError."""
    if pipeline.scheduler is not None:
        made = scheduler_class(pipeline.scheduler)
        known = list(inspect.signature(made.__init__).parameters)[1:]
        for name in pipeline.scheduler_settings:
            if name not in known:
                raise UserError(f"{pipeline.scheduler} has no setting {name!r}: {nearest(name, known)}")
        pipe.scheduler = made.from_config(pipe.scheduler.config, **pipeline.scheduler_settings)


def _pretrained(
    pipeline: Pipeline, dtype: torch.dtype, local_files_only: bool, given: Mapping[str, Any]
) -> "DiffusionPipeline":
    folder = locate.folder_of(pipeline, local_files_only=local_files_only)
    how: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    components = dict(given)
    try:
        if pipeline.gguf is not None:
            components = gguf_file.load(pipeline, folder, dtype, local_files_only=local_files_only) | components
        if pipeline.controlnets:
            components["controlnet"] = controlnet.load(pipeline, dtype, local_files_only=local_files_only)
        if checkpoint.is_single_file(pipeline.source):
            from_file = {"config": str(folder), "torch_dtype": dtype, "local_files_only": True}
            return pipeline_class(pipeline, folder).from_single_file(pipeline.source, **components, **from_file)
        how["variant"] = pipeline.variant or checkpoint.variant_in(folder)
        return pipeline_class(pipeline, folder).from_pretrained(folder, **components, **how)
    except Exception as error:  # of any library that reads the files
        if isinstance(error, UserError | MemoryError) or "memory" in str(error).lower():
            raise  # what has too little memory is no fault of the files
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}"
        if isinstance(error, PackageNotFoundError):  # of a checkpoint that this package has quantized
            said = f"the package {error.name} is not installed: pip install {error.name}"
        raise UserError(f"{pipeline.source!r} can't be loaded: {said}") from error


def _fuse_loras(pipe: "DiffusionPipeline", pipeline: Pipeline, local_files_only: bool) -> None:
    """Fuse the LoRAs into the weights, each with its weight. Raises UserError.

    A LoRA that is not fused would be lost where projections are fused, and could not be quantized.
    """
    for name, (source, _) in pipeline.loras.items():
        revision = locate.hub_revision(pipeline.part_revisions.get(name))
        where = locate.part_folder(source, revision=revision, local_files_only=local_files_only)
        _load_lora(pipe, source, where, name)
    names = list(pipeline.loras)
    pipe.set_adapters(names, [weight for _, weight in pipeline.loras.values()])
    pipe.fuse_lora(adapter_names=names)
    pipe.unload_lora_weights()


def _load_lora(pipe: "DiffusionPipeline", source: str, where: Path, name: str) -> None:
    """Put the LoRA in this file or folder on the pipe, under this name. Raises UserError."""
    files = [where] if where.is_file() else sorted(where.glob("*.safetensors"))
    if len(files) != 1:
        names, way = ", ".join(file.name for file in files) or "none", "name a folder or a repository that has one"
        if files:
            way = f"name one, --lora {source}{'/' if Path(source).exists() else ':'}{files[0].name}"
        raise UserError(f"the LoRA {source!r} is not one .safetensors file ({names}): {way}.")
    several = "Already found a `peft_config` attribute"  # peft's warning of a second LoRA, which is wanted
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=several)
            pipe.load_lora_weights(files[0].parent, use_safetensors=True, weight_name=files[0].name, adapter_name=name)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"the LoRA {source!r} can't be loaded: {str(error).splitlines()[0]}") from error
    if not any(name in names for names in pipe.get_list_adapters().values()):
        raise UserError(f"the LoRA {source!r} fits nothing in {type(pipe).__name__}.")
