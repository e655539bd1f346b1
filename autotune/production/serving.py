"""Serving: what a loaded pipe does around each call, the sizes that it was measured at, and a warm-up at each.

A call of another size works, but code is compiled again for it, and its speed is unknown.
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.devices import current_device
from autotune.frozen_model import FrozenModel
from autotune.pictures.own import at_hand
from autotune.production.compiled_shapes import CompiledShapes
from autotune.production.guard import Installed, guard
from autotune.production.library_messages import COMPILERS, kept_in_log
from autotune.production.turns import Turns
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
        at_shape = at_hand(workload).at(shape)
        with torch.no_grad():
            pipe(**call_arguments(pipe, at_shape, *next(at_shape.calls())))


def serve(pipe: "DiffusionPipeline", config: Config, workload: Workload, *, thread_safe: bool) -> None:
    """Make the tuned pipe survive what people do with pipes. Its class becomes a subclass of the same name.

    Each call: a size that was not measured is logged, once per size; calls that overlap are logged, or wait for one
    another (`thread_safe`); parts that were replaced are logged; after many sizes nothing more is compiled.
    Changes that would undo the config's settings raise UserError, see guard.py.
    """
    guard(pipe, config)
    cls = type(pipe)
    signature = inspect.signature(cls.__call__)
    turns, shapes = Turns(thread_safe=thread_safe), CompiledShapes(len(workload.shapes))
    installed, warned = Installed(pipe, config), set[Shape]()

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **given: Any) -> Any:
        arguments = signature.bind_partial(self, *args, **given).arguments
        _warn_of_other_shape(shape_of(arguments, workload), workload, warned)
        device = str(getattr(self, "_execution_device", "cpu"))
        with turns.take(), current_device(device), kept_in_log(COMPILERS):
            installed.check(self)
            with shapes.one_call():
                return cls.__call__(self, *args, **given)

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def _warn_of_other_shape(shape: Shape, workload: Workload, warned: set[Shape]) -> None:
    """Log a size that was not measured, unless it is in `warned`, to which it is added."""
    if shape not in workload.shapes and shape not in warned:
        warned.add(shape)
        LOG.warning(
            "this config was not tuned for a call of size %s (measured: %s): its speed is unknown, and code is "
            "compiled again for it.",
            shape,
            ", ".join(map(str, workload.shapes)),
        )


def shape_of(arguments: Mapping[str, Any], workload: Workload) -> Shape:
    """The size of a call with these arguments. Width and height default to the workload's; the batch is counted."""
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    batch = len(prompt) if isinstance(prompt, list | tuple) else len(embeds) if embeds is not None else 1
    batch *= arguments.get("num_images_per_prompt") or 1
    size = (arguments.get(name) or getattr(workload, name) for name in ("width", "height"))
    width, height = map(int, size)
    return Shape.model_construct(width=width, height=height, batch=batch)
