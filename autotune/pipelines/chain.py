"""A chain of pipes: what one draws, the next starts from. DeepFloyd IF is one, of three stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import inputs, locate, parts
from autotune.workload import Workload


class Chain:
    """Ordinary pipes, called one after another with the same prompt. `stages[0]` starts from noise.

    Later stages read the prompt through the first one's text encoder where theirs is of the same kind: DeepFloyd IF's
    is the largest model of the chain, and needed once.
    """

    def __init__(self, stages: Sequence[Any], workloads: Sequence[Workload]) -> None:
        for stage in stages[1:]:
            if "image" not in inputs.picture_arguments(stage):
                name = type(stage).__name__
                raise UserError(f"{name} does not start from a picture: it can only be the first stage of a chain.")
        self.stages, self.workloads = tuple(stages), tuple(workloads)

    def __call__(self, prompt: str | list[str], *, seed: int = 0, given: Mapping[str, Any] | None = None) -> list[Any]:
        """The last stage's pictures (PIL), one for each prompt; picture i of every stage has the seed `seed + i`.

        given  pictures that the first stage starts from instead of ours, by the name of the argument
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = list(range(seed, seed + len(prompts)))
        images: list[Any] = []
        for stage, workload in zip(self.stages, self.workloads, strict=True):
            drawn = {"image": images} if images else {}
            mine = inputs.call_arguments(stage, workload, prompts, seeds, None if images else given)
            images = stage(**mine | drawn, output_type="pil").images
        return images

    def set_progress_bar_config(self, **how: Any) -> None:
        for stage in self.stages:
            stage.set_progress_bar_config(**how)


def shared_parts(first: Any, pipelines: tuple[Pipeline, Pipeline]) -> dict[str, Any]:
    """What the second pipeline need not load, as the chain's first pipe has the very same: what reads its prompts."""
    encoder = parts.text_encoders(first).get("text_encoder")
    mine, theirs = (
        locate.folder_of(p, local_files_only=True, configurations_only=p.weights == "random") for p in pipelines
    )
    if encoder is None or not locate.same_files(mine / "text_encoder", theirs / "text_encoder"):
        return {}
    return {"text_encoder": encoder, "tokenizer": first.tokenizer}
