"""Locate: the folder on this disk that a pipeline is loaded from. It is downloaded from the hub if needed.

Weights are downloaded as safetensors only.
"""

import filecmp
import hashlib
import json
from pathlib import Path
from typing import Any

from autotune import demo
from autotune.errors import UserError
from autotune.frozen_model import absolute
from autotune.pipeline import GGUF, SAFETENSORS, Pipeline, split_hub_file
from autotune.pipelines import checkpoint, contents, factory, parts

ARCHITECTURES = Path(__file__).parent / "architectures"
CONFIGURATIONS = ("*.json", "*.txt", "*.model")  # with vocabularies
WEIGHTS = (*CONFIGURATIONS, "*.safetensors")
HUB_FILES = (SAFETENSORS, GGUF)


def folder_of(pipeline: Pipeline, *, local_files_only: bool = False, configurations_only: bool = False) -> Path:
    """The folder with the `model_index.json`; of a pipe that the user's function builds, the function's file.

    Raises UserError where it is not on this disk and can't be downloaded.

    configurations_only  the folder needs no weights
    """
    from autotune.pipelines import presets

    preset = presets().get(pipeline.name)
    if pipeline.factory is not None:
        return _factory_file(pipeline)
    if pipeline.source == "demo":
        return demo.PIPELINE
    if pipeline.weights == "random" and preset and preset.architecture:
        return ARCHITECTURES / preset.architecture
    if checkpoint.is_single_file(pipeline.source):
        return _configuration_folder(pipeline, local_files_only)
    if Path(pipeline.source).is_absolute():
        if not Path(pipeline.source).is_dir():
            raise UserError(f"the pipeline's folder {pipeline.source!r} does not exist.")
        return _checked(Path(pipeline.source))
    if configurations_only:
        return part_folder(
            pipeline.source, revision=pipeline.revision, local_files_only=local_files_only, only=CONFIGURATIONS
        )
    return _checked(_from_hub(pipeline, local_files_only))


def _factory_file(pipeline: Pipeline) -> Path:
    if not Path(pipeline.source).is_file():
        raise UserError(f"the factory's file {pipeline.source!r} does not exist.")
    return Path(pipeline.source)


def _configuration_folder(pipeline: Pipeline, local_files_only: bool) -> Path:
    """The folder with the configurations of a pipeline whose weights are a single file. Raises UserError."""
    path = Path(pipeline.source)
    if not path.is_file():
        raise UserError(f"the pipeline's file {pipeline.source!r} does not exist.")
    source = pipeline.config or checkpoint.configuration_of(path)
    try:
        folder = part_folder(source, local_files_only=local_files_only, only=CONFIGURATIONS)
    except UserError as error:
        raise UserError(
            f"{path.name} is loaded with the configurations of {source}: {error} Or give --config."
        ) from None
    if not (folder / "model_index.json").is_file():
        raise UserError(f"--config {source}: it has no model_index.json.")
    return folder


def _checked(folder: Path) -> Path:
    """The folder (or file), where its indices name only safetensors files. Raises UserError."""
    if folder.is_dir():
        contents.check_indices(folder)
    return folder


def part_folder(
    source: str, *, revision: str | None = None, local_files_only: bool = False, only: tuple[str, ...] = WEIGHTS
) -> Path:
    """The folder (or file) of a ControlNet, a LoRA, a VAE or a CLIP model. Raises UserError, as folder_of() does.

    source  a hub id, or a local folder or file
    only    the patterns of the files to download
    """
    if Path(source).exists():
        return _checked(absolute(source))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, file = split_hub_file(source, HUB_FILES) or (source, None)
    how = {"revision": revision, "local_files_only": local_files_only, "allow_patterns": [file] if file else list(only)}
    try:
        folder = Path(snapshot_download(repository, **how))
    except HFValidationError:
        raise UserError(f"{source!r} is neither a path that exists nor a hub id (owner/name).") from None
    except (OSError, ValueError) as error:
        what = " ".join([repository, *([file] if file else [])])
        raise _unavailable(
            repository,
            error,
            f"{source} is not on this disk and can't be downloaded ({type(error).__name__}): "
            f"run `hf download {what}` where there is a network.",
        ) from error
    if file is not None and not (folder / file).is_file():
        raise UserError(f"{source}: the repository {repository} has no file {file!r}, or it is not on this disk.")
    return folder / file if file is not None else _checked(folder)


def _unavailable(repository: str, error: BaseException, otherwise: str) -> UserError:
    """What to do where the hub does not give a repository. `otherwise`: the sentence where it could not be asked."""
    causes = _causes(error)
    if "GatedRepoError" in causes:
        page = f"https://huggingface.co/{repository}"
        return UserError(f"{repository} is gated: accept its licence at {page} and run `hf auth login`.")
    if "RepositoryNotFoundError" in causes:
        return UserError(
            f"the hub has no repository {repository}, or it is a private one: check the name, or run `hf auth login`."
        )
    return UserError(otherwise)


def hub_revision(revision: str | None) -> str | None:
    """The revision if it is a commit of the hub; None for the digest of a local folder."""
    return None if revision is None or revision.startswith("files-") else revision


def _causes(error: BaseException | None) -> set[str]:
    """The names of the classes of this exception, of those that caused it, and of their bases."""
    causes, seen = set[str](), set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        causes |= {cls.__name__ for cls in type(error).__mro__}
        error = error.__cause__ or error.__context__
    return causes


def controlnet_folder(pipeline: Pipeline, name: str) -> Path:
    """The folder of the ControlNet of this name (Pipeline.controlnets); with random weights, of its configuration.

    Raises UserError.
    """
    from autotune.pipelines import presets

    source, _ = pipeline.controlnets[name]
    preset = presets().get(pipeline.name)
    if pipeline.weights == "random" and preset and preset.controlnet_architecture and source == preset.controlnet:
        return ARCHITECTURES / preset.controlnet_architecture
    needed = CONFIGURATIONS if pipeline.weights == "random" else WEIGHTS
    folder = part_folder(source, only=needed)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError):
        kind = None
    if kind != "ControlNetModel":
        why = f"it is a {kind}" if kind else "its config.json names no class"
        raise UserError(f"{source!r} is not a ControlNet that autotune can load: {why}.")
    return folder


def _from_hub(pipeline: Pipeline, local_files_only: bool) -> Path:
    from diffusers import DiffusionPipeline

    how: dict[str, Any] = {"revision": pipeline.revision, "use_safetensors": True, "local_files_only": local_files_only}
    how |= _not_needed(pipeline, local_files_only)
    try:
        try:
            return Path(DiffusionPipeline.download(pipeline.source, variant=pipeline.variant, **how))
        except OSError as error:
            known = pipeline.variant or local_files_only or "RepositoryNotFoundError" in _causes(error)
            variant = None if known else _variant_on_hub(pipeline)
            if variant is None:
                raise
            return Path(DiffusionPipeline.download(pipeline.source, variant=variant, **how))
    except (OSError, ValueError) as error:
        from autotune.pipelines import presets

        random = " or --weights random" if pipeline.name in presets() else ""
        raise _unavailable(
            pipeline.source,
            error,
            f"the weights of {pipeline.source} are not on this disk and can't be downloaded "
            f"({type(error).__name__}): run `hf download {pipeline.source}` where there is a network, "
            f"or give a local folder{random}.",
        ) from error


def _not_needed(pipeline: Pipeline, local_files_only: bool) -> dict[str, None]:
    """The component whose weights are in a GGUF file: diffusers downloads none that it is given. Raises UserError."""
    if pipeline.gguf is None:
        return {}
    how: dict[str, Any] = {"revision": pipeline.revision, "local_files_only": local_files_only}
    folder = part_folder(pipeline.source, only=CONFIGURATIONS, **how)  # with the component's configuration
    index = json.loads((folder / "model_index.json").read_text())
    return {name: None for name in parts.DENOISERS if name in index}


def _variant_on_hub(pipeline: Pipeline) -> str | None:
    """The variant that a repository has instead of plain weights; None: it has plain ones, or can't be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    no_answer = HfHubHTTPError.__mro__[1:3]  # of the library that the hub is asked by, whose name has changed
    try:
        return checkpoint.variant_of(HfApi().list_repo_files(pipeline.source, revision=pipeline.revision))
    except (*no_answer, OSError):
        return None


def fetch(pipeline: Pipeline) -> None:
    """Download the files of the pipeline that are not on this disk. Raises UserError."""
    random = pipeline.weights == "random"
    folder_of(pipeline, configurations_only=random)
    for name, source in pipeline.added.items():
        if name in pipeline.controlnets:
            controlnet_folder(pipeline, name)
        else:
            part_folder(source)


def is_on_disk(pipeline: Pipeline) -> bool:
    """Are the pipeline and its weights on this disk, so that it can be loaded without a network?"""
    if pipeline.weights == "random":
        return True  # a folder of configurations, which is all that it takes, is small
    try:
        folders = [folder_of(pipeline, local_files_only=True)]
        folders += [part_folder(source, local_files_only=True) for source in pipeline.added.values()]
    except UserError:
        return False
    if checkpoint.is_single_file(pipeline.source):
        folders = folders[1:]  # the file is there, beside the folder of its configurations
    return all(folder.is_file() or any(folder.rglob("*.safetensors")) for folder in folders)


def revisions(pipeline: Pipeline) -> dict[str, Any]:
    """The fields of a Pipeline that identify its weights: `revision` and `part_revisions`."""
    folder = folder_of(pipeline, configurations_only=pipeline.weights == "random", local_files_only=True)
    parts = {
        name: controlnet_folder(pipeline, name)
        if name in pipeline.controlnets
        else part_folder(source, local_files_only=True)
        for name, source in pipeline.added.items()
    }
    single = checkpoint.is_single_file(pipeline.source)
    variant = pipeline.variant or (None if single or pipeline.weights == "random" else checkpoint.variant_in(folder))
    return {
        "revision": revision_of(weights_of(pipeline, folder)),
        "variant": variant,
        "part_revisions": {name: _part_revision(pipeline, name, where) for name, where in parts.items()},
    }


def _part_revision(pipeline: Pipeline, name: str, where: Path) -> str:
    """As revision_of(). Of one file of a repository it is the repository's commit."""
    of_hub = split_hub_file(pipeline.added[name], HUB_FILES)
    return revision_of(where if of_hub is None else where.parents[of_hub[1].count("/")])


def weights_of(pipeline: Pipeline, folder: Path) -> Path:
    """The single file with the weights, or else the pipeline's folder."""
    return Path(pipeline.source) if checkpoint.is_single_file(pipeline.source) else folder


def same_files(one: Path, other: Path) -> bool:
    """Do these folders hold the same files? Links to one file of the hub's cache are not compared byte by byte."""
    names, other_names = (sorted(p.name for p in folder.glob("*") if p.is_file()) for folder in (one, other))
    if not names or names != other_names:
        return False
    pairs = [((one / name).resolve(), (other / name).resolve()) for name in names]
    return all(a == b or filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def revision_of(folder: Path) -> str:
    """The hub's commit for a folder of its cache, else "files-", a digest of the files' names and sizes, and one of
    their contents. Raises UserError where a file can't be read.
    """
    if folder.suffix == ".py":
        return factory.digest_of(folder)
    if folder.parent.name == "snapshots":
        return folder.name
    files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
    try:
        named = sorted((str(p.relative_to(folder)), p) for p in files)
        listing = [(name, p.stat().st_size) for name, p in named]
        return f"files-{hashlib.sha256(repr(listing).encode()).hexdigest()[:12]}-{contents.digest_of(named)}"
    except OSError as error:
        raise UserError(f"{str(folder)!r} can't be read: {error.strerror or error}.") from None


def scorer_folder(scorer: str) -> Path:
    """The folder of a CLIP model. Raises UserError, as folder_of() does."""
    try:
        return demo.CLIP if scorer == "demo" else part_folder(scorer)
    except UserError as error:
        raise UserError(f"the scorer: {error} Or give --scorer none, which judges by SSIM alone.") from None
