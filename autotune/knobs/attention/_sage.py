"""_sage: SageAttention as one operator of torch, so that whole graphs can hold it. A helper of the knob `attention`."""

from typing import Any


def as_operator(dispatch: Any) -> None:
    """Let diffusers call SageAttention's function as an operator. Called twice, it changes nothing more.

    The function itself launches Triton and CUDA kernels by hand, where Dynamo breaks the graph.

    dispatch  diffusers' module `attention_dispatch`, which holds the function as `sageattn`
    """
    import torch

    plain = dispatch.sageattn
    if getattr(plain, "is_operator", False):
        return

    @torch.library.custom_op("autotune::sage_attention", mutates_args=())  # type: ignore[untyped-decorator]
    def sage(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: str, causal: bool, scale: float
    ) -> torch.Tensor:
        how = {"tensor_layout": layout, "is_causal": causal, "sm_scale": scale}
        output: torch.Tensor = plain(q=q, k=k, v=v, **how)
        return output

    @sage.register_fake  # type: ignore[untyped-decorator]
    def _(q: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.empty_like(q)

    def sageattn(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        tensor_layout: str = "HND",
        is_causal: bool = False,
        sm_scale: float | None = None,
        return_lse: bool = False,
    ) -> Any:
        if return_lse:
            return plain(
                q=q, k=k, v=v, tensor_layout=tensor_layout, is_causal=is_causal, sm_scale=sm_scale, return_lse=True
            )
        scale = q.shape[-1] ** -0.5 if sm_scale is None else sm_scale
        return sage(q, k, v, tensor_layout, is_causal, scale)

    sageattn.is_operator = True  # type: ignore[attr-defined]
    dispatch.sageattn = sageattn
