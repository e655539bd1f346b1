"""torch.jit.trace of a UNet, at its first call. Not a knob: `compile` asks for it."""

import warnings
from typing import Any


def trace_on_first_call(unet: Any) -> None:
    """From now on the UNet runs as recorded: one recording for each set of shapes and types, made when it is met."""
    unet.forward = _Traced(unet)


def traced_graphs(unet: Any) -> int:
    return len(unet.forward.graphs) if isinstance(unet.forward, _Traced) else 0


class _Traced:
    """Stands in for the UNet's forward. Only tensors may change between calls of the same shapes."""

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
        if key not in self.graphs:
            self.graphs[key] = self._record(leaves, tensors, plain)
        made = self.graphs[key](*leaves)
        return UNet2DConditionOutput(sample=made) if more.get("return_dict", True) else (made,)

    def _record(self, leaves: list[Any], tensors: dict[str, Any], plain: dict[str, Any]) -> Any:
        import torch

        class Straight(torch.nn.Module):  # type: ignore[misc]
            """Takes tensors and gives one. It holds the UNet, so that the recording shares its weights."""

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
    import torch

    if isinstance(value, dict):
        return bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, torch.Tensor) for v in value)
    return isinstance(value, torch.Tensor)


def _leaves(tensors: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for value in tensors.values():
        found += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return found


def _rebuilt(tensors: dict[str, Any], leaves: Any) -> dict[str, Any]:
    """The arguments in the shape of `tensors`, filled with these leaves."""
    made: dict[str, Any] = {}
    for name, value in tensors.items():
        if isinstance(value, dict):
            made[name] = {key: next(leaves) for key in value}
        elif isinstance(value, list | tuple):
            made[name] = [next(leaves) for _ in value]
        else:
            made[name] = next(leaves)
    return made
