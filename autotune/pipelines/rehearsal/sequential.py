"""Sequential: can sequential offloading hold a pipe's weights? accelerate is asked, with one of each kind of them.

It takes the weights of a layer away after each call (torch's "meta" device), and makes them anew before the next one.
Packed weights may have parts that it does not know.
"""

import copy
from collections.abc import Iterable
from typing import Any


def sequential_fault(weights: Iterable[Any]) -> str | None:
    """Why sequential offloading fails with one of these parameters, as a clause; None: it does not."""
    import torch

    kinds = {(type(weight), type(weight.data)): weight for weight in weights if not weight.is_meta}
    kinds.pop((torch.nn.Parameter, torch.Tensor), None)
    for (kind, _), weight in kinds.items():
        fault = _fault(_copied(weight))
        if fault is not None:
            return f"sequential offloading can't move weights of the class {kind.__name__} ({fault})"
    return None


def _copied(weight: Any) -> Any:
    """A copy, as the question may spoil what it is asked with; the weight itself where its class can't be copied."""
    try:
        return copy.deepcopy(weight)
    except Exception:  # of any class of weights (GGUFParameter)
        return weight


def _fault(weight: Any) -> str | None:
    import torch
    from accelerate import cpu_offload

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, given: Any) -> Any:
            return given

    layer = Layer()
    try:
        cpu_offload(layer, execution_device=weight.device)
        for _ in range(2):
            layer(torch.zeros(1, device=weight.device))
    except Exception as error:  # of any class of weights
        return type(error).__name__
    return None
