"""Which calls a tuned pipe was measured at: to make each of them once before the first customer comes, and to say so
where a call is of another size. Such a call works; compiled code is compiled again for it, and its speed is unknown."""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any

from autotune.frozen_model import FrozenModel
from autotune.workload import Shape, Workload

LOG = logging.getLogger("autotune")


class Serving(FrozenModel):
    """What was measured, for people: WIDTHxHEIGHT@BATCH of each size, and how long the prompts were.

    Prompts are padded to the text encoder's context, so that their length changes no shape and hardly any time.
    """

    sizes: tuple[str, ...]
    prompt_words: tuple[int, int]  # of the shortest and of the longest

    @classmethod
    def of(cls, workload: Workload) -> "Serving":
        words = [len(prompt.split()) for prompt in workload.prompts]
        return cls(sizes=tuple(map(str, workload.shapes)), prompt_words=(min(words), max(words)))


def warm_up(pipe: Any, workload: Workload) -> None:
    """One call of every size that was measured: whatever compiles, compiles now."""
    import torch

    from autotune.pipelines.inputs import call_arguments

    for shape in workload.shapes:
        one = workload.at(shape)
        with torch.no_grad():
            pipe(**call_arguments(pipe, one, *next(one.calls())))


def note_other_shapes(pipe: Any, workload: Workload) -> None:
    """From now on the pipe logs, once for each, what sizes it is called at that were not measured.

    The pipe becomes an instance of a subclass of the same name: an ordinary pipeline in every other respect.
    """
    cls = type(pipe)
    signature = inspect.signature(cls.__call__)
    noted: set[Shape] = set()

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **given: Any) -> Any:
        shape = shape_of(signature.bind_partial(self, *args, **given).arguments, workload)
        if shape not in workload.shapes and shape not in noted:
            noted.add(shape)
            measured = ", ".join(map(str, workload.shapes))
            LOG.warning(
                "a call of %s was not tuned for (measured: %s): its speed is unknown, and what is compiled is "
                "compiled again for it.",
                shape,
                measured,
            )
        return cls.__call__(self, *args, **given)

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def shape_of(arguments: Mapping[str, Any], workload: Workload) -> Shape:
    """The size of a call with these arguments; what is not given is the workload's, a batch is counted."""
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    batch = len(prompt) if isinstance(prompt, list | tuple) else len(embeds) if embeds is not None else 1
    batch *= arguments.get("num_images_per_prompt") or 1
    size = (arguments.get(name) or getattr(workload, name) for name in ("width", "height"))
    width, height = map(int, size)
    return Shape.model_construct(width=width, height=height, batch=batch)
