"""Serving: the sizes that a config was measured at, a warm-up call at each, and a warning for any other size.

A call of another size works, but code is compiled again for it, and its speed is unknown.
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotune.frozen_model import FrozenModel
from autotune.workload import Shape, Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LOG = logging.getLogger("autotune")


class Serving(FrozenModel):
    """The measured calls, for a reader of the file: the sizes as WIDTHxHEIGHT@BATCH, and the length of the prompts.

    The length of a prompt changes no shape and hardly any latency: prompts are padded to the text encoder's context.
    """

    sizes: tuple[str, ...]
    prompt_words: tuple[int, int]  # words of the shortest prompt and of the longest

    @classmethod
    def of(cls, workload: Workload) -> "Serving":
        words = [len(prompt.split()) for prompt in workload.prompts]
        return cls(sizes=tuple(map(str, workload.shapes)), prompt_words=(min(words), max(words)))


def warm_up(pipe: "DiffusionPipeline", workload: Workload) -> None:
    """Call the pipe once at every measured size, so that all compilation happens now."""
    import torch

    from autotune.pipelines.inputs import call_arguments

    for shape in workload.shapes:
        at_shape = workload.at(shape)
        with torch.no_grad():
            pipe(**call_arguments(pipe, at_shape, *next(at_shape.calls())))


def warn_of_other_shapes(pipe: "DiffusionPipeline", workload: Workload) -> None:
    """Make the pipe log a warning, once per size, when it is called at a size that was not measured.

    The pipe's class becomes a subclass of the same name. Otherwise the pipe is unchanged.
    """
    cls = type(pipe)
    signature = inspect.signature(cls.__call__)
    warned: set[Shape] = set()

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **given: Any) -> Any:
        shape = shape_of(signature.bind_partial(self, *args, **given).arguments, workload)
        if shape not in workload.shapes and shape not in warned:
            warned.add(shape)
            measured = ", ".join(map(str, workload.shapes))
            LOG.warning(
                "this config was not tuned for a call of size %s (measured: %s): its speed is unknown, and code is "
                "compiled again for it.",
                shape,
                measured,
            )
        return cls.__call__(self, *args, **given)

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def shape_of(arguments: Mapping[str, Any], workload: Workload) -> Shape:
    """The size of a call with these arguments. Width and height default to the workload's; the batch is counted."""
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    batch = len(prompt) if isinstance(prompt, list | tuple) else len(embeds) if embeds is not None else 1
    batch *= arguments.get("num_images_per_prompt") or 1
    size = (arguments.get(name) or getattr(workload, name) for name in ("width", "height"))
    width, height = map(int, size)
    return Shape.model_construct(width=width, height=height, batch=batch)
