"""Sequential offloading is asked with one weight of each kind: packed weights that it can't make anew are told."""

from typing import Any

import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from autotune.pipelines.rehearsal.sequential import sequential_fault


class Odd(torch.nn.Parameter):
    """A weight that can't be made of its values alone."""

    def __new__(cls, data: torch.Tensor, requires_grad: bool = False, scale: float | None = None) -> Any:
        if scale is None:
            raise TypeError("no scale")
        return torch.Tensor._make_subclass(cls, data, requires_grad)


def test_plain_weights_and_those_of_torchao_can_be_moved() -> None:
    layer = torch.nn.Linear(64, 64).bfloat16().requires_grad_(False)
    assert sequential_fault(layer.parameters()) is None
    quantize_(layer, Int8WeightOnlyConfig())
    assert type(layer.weight.data) is not torch.Tensor
    assert sequential_fault(layer.parameters()) is None
    given = torch.ones(1, 64, dtype=torch.bfloat16)
    assert torch.isfinite(layer(given)).all(), "what was asked with is as it was"


def test_weights_with_parts_that_it_does_not_know_are_told() -> None:
    said = "sequential offloading can't move weights of the class Odd (TypeError)"
    assert sequential_fault([torch.nn.Parameter(torch.ones(2)), Odd(torch.ones(2), scale=1.0)]) == said


def test_weights_without_values_are_not_asked() -> None:
    assert sequential_fault([Odd(torch.ones(2, device="meta"), scale=1.0)]) is None
