"""Chain: pipes called one after another, each starting from the pictures of the one before (DeepFloyd IF)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import inputs, locate, parts
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


class Chain:
    """Ordinary pipes, called one after another with the same prompts. The first stage starts from noise.

    Stages may share a text encoder, see shared_parts().

    stages     the loaded pipes
    workloads  of each stage
    """

    def __init__(self, stages: "Sequence[DiffusionPipeline]", workloads: Sequence[Workload]) -> None:
        for stage in stages[1:]:
            kind = inputs.picture_arguments(stage).get("image")
            if kind is None or inputs.picture_number(stage, kind) > 1:
                takes = "no picture" if kind is None else "several pictures"
                raise UserError(f"{type(stage).__name__} takes {takes}: it can only be the first stage of a chain.")
        self.stages, self.workloads = tuple(stages), tuple(workloads)

    def __call__(
        self, prompt: str | list[str], *, seed: int = 0, given: "Mapping[str, Sequence[Image]] | None" = None
    ) -> "list[Image]":
        """The last stage's pictures, one for each prompt. Picture i of every stage has the seed `seed + i`.

        given  pictures for the first stage, by argument name, in place of those of `pipelines/pictures.py`
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = list(range(seed, seed + len(prompts)))
        images: list[Image] = []
        for stage, workload in zip(self.stages, self.workloads, strict=True):
            from_before = {"image": images} if images else {}
            arguments = inputs.call_arguments(stage, workload, prompts, seeds, None if images else given)
            images = stage(**arguments | from_before, output_type="pil").images
        return images

    def set_progress_bar_config(self, **how: Any) -> None:
        """The method of the same name of every stage."""
        for stage in self.stages:
            stage.set_progress_bar_config(**how)


def shared_parts(first: "DiffusionPipeline", pipelines: tuple[Pipeline, Pipeline]) -> dict[str, Any]:
    """The components of the first pipe that the second pipeline can use: the text encoder with its tokenizer.

    Empty unless both have the same text encoder. That of DeepFloyd IF is the largest model of its chain.

    pipelines  the first pipe's pipeline and the second pipeline
    """
    encoder = parts.text_encoders(first).get("text_encoder")
    first_folder, second_folder = (
        locate.folder_of(p, local_files_only=True, configurations_only=p.weights == "random") for p in pipelines
    )
    if encoder is None or not locate.same_files(first_folder / "text_encoder", second_folder / "text_encoder"):
        return {}
    return {"text_encoder": encoder, "tokenizer": first.tokenizer}
