"""From a pipeline's source to a folder on this disk. Downloads from the hub, only ever safetensors."""

import hashlib
from pathlib import Path

from autotune import demo
from autotune.errors import UserError
from autotune.pipeline import Pipeline

ARCHITECTURES = Path(__file__).parent / "architectures"


def folder_of(pipeline: Pipeline, *, local_files_only: bool = False) -> Path:
    """The folder with `model_index.json`. Of random weights, one with configurations only may do.

    Raises UserError where the weights are neither on this disk nor to be had.
    """
    from autotune.pipelines import presets

    preset = presets().get(pipeline.name)
    if pipeline.source == "demo":
        return demo.PIPELINE
    if pipeline.weights == "random" and preset and preset.architecture:
        return ARCHITECTURES / preset.architecture
    if Path(pipeline.source).is_absolute():
        if not Path(pipeline.source).is_dir():
            raise UserError(f"the pipeline's folder {pipeline.source!r} is not there.")
        return Path(pipeline.source)
    return _from_hub(pipeline, local_files_only)


def _from_hub(pipeline: Pipeline, local_files_only: bool) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(
            DiffusionPipeline.download(
                pipeline.source,
                revision=pipeline.revision,
                use_safetensors=True,
                local_files_only=local_files_only,
            )
        )
    except (OSError, ValueError) as error:
        from autotune.pipelines import presets

        random = " or --weights random" if pipeline.name in presets() else ""
        raise UserError(
            f"the weights of {pipeline.source} are not on this disk and can't be downloaded "
            f"({type(error).__name__}): run `hf download {pipeline.source}` where there is a network, "
            f"or give a local folder{random}."
        ) from error


def revision_of(folder: Path) -> str:
    """The hub's commit of a snapshot folder, otherwise a digest of the names and sizes of the folder's files."""
    if folder.parent.name == "snapshots":
        return folder.name
    listing = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in folder.rglob("*") if p.is_file())
    return "files-" + hashlib.sha256(repr(listing).encode()).hexdigest()[:12]


def scorer_folder(scorer: str) -> Path:
    """The folder of a CLIP model; raises UserError where it can't be had."""
    if scorer == "demo":
        return demo.CLIP
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.safetensors"]
    try:
        return Path(snapshot_download(scorer, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the CLIP model {scorer} that judges the pictures is not on this disk and can't be downloaded "
            f"({type(error).__name__}): run `hf download {scorer}` where there is a network."
        ) from error
