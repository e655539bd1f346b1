"""_trace: torch.jit.trace of a UNet at its first call. A helper of the knob `compile`."""

import warnings
from collections.abc import Iterator
from typing import Any

MOST_GRAPHS = 64  # each keeps memory; calls of further shapes run untraced


def trace_on_first_call(unet: Any) -> None:
    """Make the UNet run as traced: one graph for each set of input shapes and types, traced when they first occur."""
    unet.forward = _Traced(unet)


def traced_graphs(unet: Any) -> int:
    """The number of graphs that were traced so far."""
    return len(unet.forward.graphs) if isinstance(unet.forward, _Traced) else 0


class _Traced:
    """Replaces the UNet's forward. Between calls of the same shapes, only tensors may change."""

    def __init__(self, unet: Any) -> None:
        self.forward = unet.forward  # bound to the UNet
        self.graphs: dict[Any, Any] = {}

    def __call__(self, sample: Any, timestep: Any, encoder_hidden_states: Any, **more: Any) -> Any:
        import torch
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        tensors = {name: value for name, value in more.items() if _holds_tensors(value)}
        plain = {name: value for name, value in more.items() if name not in tensors and name != "return_dict"}
        timestep = torch.as_tensor(timestep, device=sample.device)
        leaves = [sample, timestep, encoder_hidden_states, *_leaves(tensors)]
        key = (tuple((t.shape, t.dtype) for t in leaves), tuple(tensors), repr(plain))
        if key not in self.graphs and len(self.graphs) >= MOST_GRAPHS:
            return self.forward(sample, timestep, encoder_hidden_states, **more)
        if key not in self.graphs:
            self.graphs[key] = self._trace(leaves, tensors, plain)
        output = self.graphs[key](*leaves)
        return UNet2DConditionOutput(sample=output) if more.get("return_dict", True) else (output,)

    def _trace(self, leaves: list[Any], tensors: dict[str, Any], plain: dict[str, Any]) -> Any:
        import torch

        class Straight(torch.nn.Module):  # type: ignore[misc]
            """The UNet as a function of tensors. It has the UNet as a submodule, so the graph shares its weights."""

            def __init__(self, unet_forward: Any) -> None:
                super().__init__()
                self.unet = unet_forward.__self__
                self.unet_forward = unet_forward

            def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any, *rest: Any) -> Any:
                more = {**_rebuilt(tensors, iter(rest)), **plain}
                return self.unet_forward(sample, timestep, encoder_hidden_states, **more, return_dict=False)[0]

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.trace(_method)?` is deprecated", DeprecationWarning)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return torch.jit.trace(Straight(self.forward).eval(), tuple(leaves), check_trace=False)


def _holds_tensors(value: Any) -> bool:
    """Is this a tensor, or a non-empty dict, list or tuple of tensors?"""
    import torch

    if isinstance(value, dict):
        return bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, torch.Tensor) for v in value)
    return isinstance(value, torch.Tensor)


def _leaves(tensors: dict[str, Any]) -> list[Any]:
    """The tensors of these arguments as a flat list."""
    leaves: list[Any] = []
    for value in tensors.values():
        leaves += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return leaves


def _rebuilt(tensors: dict[str, Any], leaves: Iterator[Any]) -> dict[str, Any]:
    """The arguments with the structure of `tensors`, filled with these leaves."""
    arguments: dict[str, Any] = {}
    for name, value in tensors.items():
        if isinstance(value, dict):
            arguments[name] = {key: next(leaves) for key in value}
        elif isinstance(value, list | tuple):
            arguments[name] = [next(leaves) for _ in value]
        else:
            arguments[name] = next(leaves)
    return arguments
