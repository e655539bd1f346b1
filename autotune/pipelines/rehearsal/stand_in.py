"""Stand-ins: a copy of a pipe whose weights are empty: they have shapes, but no values (torch's "meta" device)."""

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def stand_in(pipe: "DiffusionPipeline", dtype: torch.dtype | None, done: dict[int, Any] | None = None) -> Any:
    """A copy of the pipe with empty models and a scheduler of its own.

    Combined pipes (Kandinsky 2.2) call pipes that they hold, of the same parts: these are replaced by stand-ins, too.

    done  id of an original -> what stands in for it
    """
    from diffusers import DiffusionPipeline

    made, done = copy.copy(pipe), {} if done is None else done
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            vars(made)[name] = emptied(part, dtype, done)
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        vars(made)["scheduler"] = done.setdefault(id(scheduler), copy.deepcopy(scheduler))
    for name, part in list(vars(pipe).items()):
        if isinstance(part, DiffusionPipeline):
            vars(made)[name] = stand_in(part, dtype, done)
    vars(made)["_progress_bar_config"] = {"disable": True}
    if getattr(made, "safety_checker", None) is not None:
        vars(made)["safety_checker"] = None
    return made


def emptied(
    module: torch.nn.Module, dtype: torch.dtype | None, done: dict[int, torch.nn.Module] | None = None
) -> torch.nn.Module:
    """A copy of the module with empty weights. Tables of integers, as positions, keep their values.

    What is neither a weight nor a module is shared with the original: deep copies of large models take seconds.
    """
    done = {} if done is None else done
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, torch.nn.Linear) and not module.weight.is_floating_point():
        done[id(module)] = _plain(module, dtype)
        return done[id(module)]
    made = done[id(module)] = copy.copy(module)

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device="meta")

    of = vars(module)
    own: dict[str, dict[str, Any]] = {
        name: {} for name, value in of.items() if name.endswith("_hooks") and isinstance(value, dict)
    }
    own |= {"_forward_hooks_with_kwargs": {}, "_forward_pre_hooks_with_kwargs": {}}
    own["_parameters"] = {
        name: None if p is None else torch.nn.Parameter(empty(p), requires_grad=False)
        for name, p in of["_parameters"].items()
    }
    own["_buffers"] = {
        name: b if b is None or not b.is_floating_point() else empty(b) for name, b in of["_buffers"].items()
    }
    own["_modules"] = {name: m and emptied(m, dtype, done) for name, m in of["_modules"].items()}
    vars(made).update({name: OrderedDict(value) for name, value in own.items()})
    return made


def _plain(packed: torch.nn.Linear, dtype: torch.dtype | None) -> torch.nn.Module:
    """An empty layer in place of one whose weights are packed (GGUF, NF4): it takes and gives the same shapes."""
    kind = dtype or getattr(packed, "compute_dtype", None) or torch.get_default_dtype()
    plain = torch.nn.Linear(packed.in_features, packed.out_features, packed.bias is not None, device="meta", dtype=kind)
    return plain.eval().requires_grad_(False)
