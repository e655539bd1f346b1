"""Rehearse: call a copy of a pipe whose weights are empty, and note what each model is given and gives.

The weights have shapes but no values (torch's "meta" device), so that a call of a model of any size takes seconds and
no memory. What does not depend on weights, as tokens, masks, noise and timesteps, is computed for real.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import flex_attention

from autotune.errors import UserError
from autotune.pipelines import call, inputs
from autotune.pipelines.rehearsal.stand_in import stand_in
from autotune.pipelines.rehearsal.values import Functions, RealWhereKnown
from autotune.pipelines.rehearsal.watch import Enough, Seen, Stage, Until
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

flex = flex_attention.flex_attention


def rehearse(
    pipe: "DiffusionPipeline",
    workload: Workload,
    *,
    dtype: torch.dtype | None = None,
    until: Until = "decoding",
    memory: dict[Any, Any] | None = None,
    change: Callable[[Any], Any] | None = None,
) -> Seen:
    """Make the first call of the workload with a copy of the pipe that has empty weights. The pipe stays as it is.

    Raises UserError where the call needs a package that is not installed.

    dtype   the format of the weights; None: their own
    until   when the call is ended: when the denoiser is called first, after that call, or when the VAE is called
    change  what is done to the copy before it is called, to see whether it still works
    memory  what models and operations gave, to be handed on to the next call: none runs again for the same shapes
    """
    seen = Seen()
    stage = Stage(seen, until, {} if memory is None else memory)
    prompts, seeds = next(workload.calls())
    try:
        rehearsed = stand_in(pipe, dtype)
        if change is not None:
            change(rehearsed)
        arguments = inputs.call_arguments(rehearsed, workload, prompts, seeds) | call.workload_values(pipe, workload)
        if "strength" in call.parameters(pipe):
            arguments |= {"strength": 1.0}  # otherwise some of the steps are left out
        stage.watch(rehearsed)
        with _quiet(), RealWhereKnown(stage), Functions(stage), torch.no_grad():
            rehearsed(**arguments, output_type="pt")
    except Enough:
        pass
    except Exception as error:  # any pipeline of any library: the reason is kept, and what was seen until then
        if package := missing_package(error):
            raise UserError(
                f"the call of {type(pipe).__name__} needs the package {package}, which is not installed: "
                f"pip install {package}."
            ) from None
        seen.fault = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return seen


def missing_package(error: Exception) -> str | None:
    """The package for lack of which a call failed; None: it failed for another reason.

    diffusers imports optional packages only where they are installed, so that a call without one is a NameError.
    """
    from diffusers.utils import import_utils

    name = error.name if isinstance(error, NameError) else None
    asked: Callable[[], bool] = getattr(import_utils, f"is_{name}_available", lambda: True)
    return None if asked() else name


class _Autocast(torch.autocast):  # type: ignore[misc]
    """torch.autocast, which refuses the device type "meta". Some pipelines (Mochi) ask for that of their weights."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


def _flex_attention(query: Any, key: Any, value: Any, *args: Any, return_lse: bool = False, **kwargs: Any) -> Any:
    """torch's flex_attention, which refuses tensors without values: what it gives for them."""
    if not query.is_meta:
        return flex(query, key, value, *args, return_lse=return_lse, **kwargs)
    attended = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return (attended, query.new_empty(query.shape[:-1], dtype=torch.float32)) if return_lse else attended


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' warnings and refusals of formats and devices do not concern a copy without weights.

    A mask without values selects all.
    """
    from torch.fx.experimental import _config as meta

    loggers = [logging.getLogger(library) for library in ("diffusers", "transformers")]
    before, before_autocast = [logger.level for logger in loggers], torch.autocast
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), meta.patch(meta_nonzero_assume_all_nonzero=True):
            warnings.simplefilter("ignore")
            torch.autocast, flex_attention.flex_attention = _Autocast, _flex_attention
            yield
    finally:
        torch.autocast, flex_attention.flex_attention = before_autocast, flex
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
