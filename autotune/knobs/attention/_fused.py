"""_fused: the projections that a fused product replaces, as parts of its result. A helper of `qkv_fusion`.

diffusers keeps them beside the fused weights, where they take memory and are quantized for nothing. Here they hold no
weights: whoever still calls one, such as an attention processor that is set later, has its part of the fused product.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The fused product -> the projections whose results it holds side by side (diffusers' fuse_projections)
REPLACED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


@cache
def _part_of_fused() -> type:
    """The class of a projection without weights of its own."""
    import torch

    class PartOfFused(torch.nn.Module):  # type: ignore[misc]
        """Columns `start` to `end` of what the fused projection computes."""

        def __init__(self, fused: Any, start: int, end: int) -> None:
            super().__init__()
            self._fused = [fused]  # in a list: it is a module of the attention block already
            self._columns = slice(start, end)
            self.in_features, self.out_features = fused.in_features, end - start

        def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            return self._fused[0](hidden_states)[..., self._columns]

        @property
        def weight(self) -> Any:
            return self._fused[0].weight[self._columns]

        @property
        def bias(self) -> Any:
            bias = self._fused[0].bias
            return None if bias is None else bias[self._columns]

    return PartOfFused


def drop_replaced(model: "torch.nn.Module") -> int:
    """Let go of the weights that the fused ones hold as well. Returns the number of such projections."""
    from torch import nn

    part, dropped = _part_of_fused(), 0
    for block in list(model.modules()):
        if not getattr(block, "fused_projections", False):
            continue
        for fused_name, names in REPLACED.items():
            fused: Any = getattr(block, fused_name, None)
            own: list[Any] = [getattr(block, name, None) for name in names]
            if fused is None or not all(type(one) is nn.Linear for one in own):
                continue
            start = 0
            for name, one in zip(names, own, strict=True):
                setattr(block, name, part(fused, start, start + one.out_features))
                start += one.out_features
                dropped += 1
    return dropped
