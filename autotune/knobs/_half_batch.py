"""_half_batch: a denoiser that runs on the half of a guided batch that has the prompt. A helper of several knobs.

A guided call doubles the batch: the first half is without the prompt. Which arguments are doubled is told by their
size, whatever they are called.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Forward = Callable[..., Any]


def around(denoiser: Any, wrap: Callable[[Forward], Forward]) -> None:
    """Put the wrapper around the denoiser's calls, outside of what torch.compile has compiled, if anything."""
    inner = vars(denoiser).get("_compiled_call_impl") or denoiser._call_impl
    vars(denoiser)["_compiled_call_impl"] = wrap(inner)


def batch_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The size of the batch in these arguments of a denoiser; 0: there is no tensor of more than two dimensions."""
    found: list[torch.Tensor] = []
    each([args, kwargs], found.append)
    return next((len(tensor) for tensor in found if tensor.dim() > 2), 0)


def second_half(value: Any, size: int) -> Any:
    """The same with the second half of every tensor that is a batch of this size."""
    return each(value, lambda t: t[size // 2 :] if t.dim() and len(t) == size else t)


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same with every tensor changed, in lists, dicts and diffusers' outputs."""
    if hasattr(value, "dim"):
        return change(value)
    if isinstance(value, dict):
        changed = {name: each(part, change) for name, part in value.items()}
        return changed if type(value) is dict else type(value)(**changed)
    return type(value)(each(part, change) for part in value) if type(value) in (list, tuple) else value
