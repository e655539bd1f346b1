"""Textual inversions: embeddings of a token of their own, learned for the text encoder, from a safetensors file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import locate
from autotune.pipelines.checkpoint import tensors_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TWO = {"clip_l": "", "clip_g": "_2"}  # tensors for SDXL's text encoders -> the suffix of the encoder's name
WITHOUT_NAME = {"emb_params", *TWO}  # tensors whose name is not the token


def put_on(pipe: "DiffusionPipeline", pipeline: Pipeline, *, local_files_only: bool) -> None:
    """Add the tokens of the pipeline's textual inversions to the pipe. Raises UserError where one does not fit."""
    from safetensors.torch import load_file

    any_pipe: Any = pipe
    for source in pipeline.textual_inversions:
        check(pipe, source)
        file = file_of(pipeline, source, local_files_only=local_files_only)
        token, tensors = token_of(pipeline, source, file), load_file(file)
        try:
            for name, tensor in tensors.items():
                encoder = TWO.get(name, "")
                of = {kind: getattr(pipe, f"{kind}{encoder}") for kind in ("text_encoder", "tokenizer")}
                any_pipe.load_textual_inversion({token: tensor}, token=token, **of)
        except (ValueError, RuntimeError, AttributeError, KeyError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"the textual inversion {source!r} does not fit {type(pipe).__name__}: {said}") from error


def check(pipe: "DiffusionPipeline", source: str) -> None:
    """Raises UserError where the pipeline takes no textual inversions."""
    if not hasattr(type(pipe), "load_textual_inversion"):
        raise UserError(f"--textual-inversion {source}: {type(pipe).__name__} takes none.")


def file_of(pipeline: Pipeline, source: str, *, local_files_only: bool) -> Path:
    """The file, which is downloaded if needed. Raises UserError where there is not one."""
    name = next(name for name, (where, _) in pipeline.named_inversions.items() if where == source)
    revision = locate.hub_revision(pipeline.part_revisions.get(name))
    where = locate.part_folder(source, revision=revision, local_files_only=local_files_only)
    files = [where] if where.is_file() else sorted(where.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise UserError(f"the textual inversion {source!r} is not one .safetensors file ({names}): name one.")
    return files[0]


def token_of(pipeline: Pipeline, source: str, file: Path) -> str:
    """The word in prompts that stands for it: as requested, or as the file or its name says. Raises UserError."""
    names = list(tensors_of(file))
    if len(names) != 1 and not set(names) == set(TWO):
        raise UserError(f"the textual inversion {source!r} has the tensors {', '.join(names[:4])}, not one embedding.")
    return pipeline.textual_inversions[source] or (file.stem if names[0] in WITHOUT_NAME else names[0])


def tokens(pipeline: Pipeline) -> dict[str, Any]:
    """The field of a Pipeline with the token of each of them, where there are any. Raises UserError.

    The files must be on this disk.
    """
    found = {s: token_of(pipeline, s, file_of(pipeline, s, local_files_only=True)) for s in pipeline.textual_inversions}
    return {"textual_inversions": found} if found else {}
