"""Values: operations of a rehearsed call: computed where all values are known, of shapes alone where they are not."""

import functools
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from autotune.pipelines.rehearsal.watch import Stage

READS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "numpy")  # a value is needed


class RealWhereKnown(TorchDispatchMode):  # type: ignore[misc]
    """Compute with values where all are known. A result of empty tensors is an empty tensor."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.stage.used(tensors)
        empty = any(tensor.is_meta for tensor in tensors)
        if not empty:
            return func(*args, **kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        if any(tensor.is_meta for tensor in tensors[1:]) and not tensors[0].is_meta and func._schema.is_mutable:
            return args[0]  # written in place with what is not known
        if func is torch.ops.aten.index.Tensor:  # what a mask selects is known where the mask is
            args = (args[0], [place for index in args[1] for place in _places(index)], *args[2:])
        return self._of_shapes(func, args, kwargs) if _makes_new(func) else _of_empty(func, args, kwargs)

    def _of_shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        """As equal blocks ask for the same again, what was given is remembered: torch takes a millisecond for each.

        It is a copy that is remembered: others may change the shape of what they are given (`squeeze_`).
        """
        key = (func, _layout(args), _layout(kwargs))
        if key not in self.stage.memory:
            self.stage.memory[key] = tree_map(_another, _of_empty(func, args, kwargs))
        return tree_map(_another, self.stage.memory[key])


class Functions(TorchFunctionMode):  # type: ignore[misc]
    """Notes calls of SDPA and of what needs the value of a tensor, which is 1 where it is not known.

    What is made on or moved to the weights' device is made on the CPU instead, where it has values.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch.nn.functional.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            self.stage.attends(args[0] if args else kwargs["query"], mask is not None)
        elif name in READS and args and isinstance(args[0], torch.Tensor) and func is getattr(torch.Tensor, name, None):
            self.stage.breaks(f"reads a value (Tensor.{name})")
            if args[0].is_meta and name not in ("nonzero", "numpy"):
                return getattr(torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu"), name)()
        if "device" in kwargs and any(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()):
            self.stage.breaks("sets a device (with torch.device)")
        return func(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in kwargs.items()})


@functools.cache
def _makes_new(func: Any) -> bool:
    """Does the operation return new tensors alone, neither views nor what it was given?"""
    schema = func._schema
    return not schema.is_mutable and all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


def _layout(value: Any) -> Any:
    """Of tensors what decides on the layout of what an operation makes of them; other values as they are."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, dict):
        return tuple((name, _layout(part)) for name, part in value.items())
    return tuple(map(_layout, value)) if isinstance(value, list | tuple) else (type(value), value)


def _another(leaf: Any) -> Any:
    """An empty tensor of the same layout, in a storage of its own; a copy where it has values."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if not leaf.is_meta:
        return leaf.clone()
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")


def _places(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """The index as positions, where it is a mask with values."""
    is_mask = index is not None and index.dtype in (torch.bool, torch.uint8) and not index.is_meta
    return list(torch.nonzero(index).unbind(1)) if is_mask and index is not None else [index]


def _of_empty(func: Any, args: Any, kwargs: Any) -> Any:
    """What the operation makes of empty tensors. One that needs their values, as `bincount` does, is given ones."""
    try:
        return func(*tree_map(_without_value, args), **tree_map(_without_value, kwargs))
    except NotImplementedError:
        return func(*tree_map(_with_values, args), **tree_map(_with_values, kwargs))


def _without_value(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, torch.Tensor) and not leaf.is_meta else leaf


def _with_values(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return torch.ones(leaf.shape, dtype=leaf.dtype, device="cpu") if leaf.is_meta else leaf
    return _on_cpu(leaf)


def _on_cpu(value: Any) -> Any:
    return (
        torch.device("cpu")
        if (isinstance(value, str) and value == "meta") or (isinstance(value, torch.device) and value.type == "meta")
        else value
    )
