"""Attention calls: what is asked is really called, and an error's sentence is the answer. Packages are fakes."""

from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch

from autotune.devices import attention_calls
from autotune.devices.attention_calls import ask

FORMATS = {"fp32", "fp16", "bf16"}
REGISTRY = attention_dispatch._AttentionBackendRegistry
SAGE = attention_dispatch.AttentionBackendName.SAGE


@pytest.fixture
def with_sage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes diffusers believe in SageAttention, computed by this function of query, key, value (and mask)."""

    def install(compute: Any, *, takes_mask: bool = False) -> None:
        def backend(query: Any, key: Any, value: Any, attn_mask: Any = None) -> Any:
            if takes_mask:
                return compute(query, key, value, attn_mask)
            if attn_mask is not None:
                raise ValueError("`attn_mask` is not supported for sage attention")
            return compute(query, key, value)

        monkeypatch.setattr(attention_dispatch, "_CAN_USE_SAGE_ATTN", True)
        monkeypatch.setitem(REGISTRY._backends, SAGE, backend)
        monkeypatch.setitem(REGISTRY._supported_arg_names, SAGE, {"query", "key", "value", "attn_mask"})
        monkeypatch.setattr(REGISTRY, "list_backends", lambda: [SAGE, attention_dispatch.AttentionBackendName.NATIVE])

    return install


def half_only(query: Any, key: Any, value: Any) -> Any:
    if query.dtype == torch.float32:
        raise TypeError("sage takes half precision\nand more that nobody reads")
    return attention_dispatch._native_attention(query, key, value)


def test_torchs_own_kernels_are_called_on_a_processor_and_what_is_not_installed_is_not_asked() -> None:
    answers, commits = ask("cpu", {(8, False)})
    assert (answers["_native_math"], answers["_native_flash"], commits) == ({}, {}, {})
    assert set(answers["_native_cudnn"]) == FORMATS
    assert answers["_native_cudnn"]["bf16"].startswith("a tiny call of it fails here: RuntimeError: No viable backend")
    assert not {"flash", "sage", "xformers", "flash_hub", "native", "flex"} & set(answers)


def test_a_mask_is_asked_with() -> None:
    answers, _ = ask("cpu", {(8, True), (16, False)})
    assert answers["_native_math"] == {}
    assert "`attn_mask` is not supported" in answers["_native_flash"]["fp16"]


def test_each_number_format_has_its_own_answer(with_sage: Any) -> None:
    with_sage(half_only)
    said = "a tiny call of it fails here: TypeError: sage takes half precision"
    assert ask("cpu", ())[0] == {"sage": {"fp32": said}}


def test_a_kernel_that_computes_something_else_does_not_work(with_sage: Any) -> None:
    with_sage(lambda query, key, value: query * 0)
    assert ask("cpu", ())[0] == {"sage": dict.fromkeys(FORMATS, "a tiny call of it is off by 100% here")}


def test_a_kernel_that_takes_the_first_keys_or_none_of_the_mask_is_found(with_sage: Any) -> None:
    """As diffusers' `sage_varlen`, which is right only where the padding comes last."""
    native = attention_dispatch._native_attention
    with_sage(lambda q, k, v, mask: native(q, k[:, : int(mask.sum())], v[:, : int(mask.sum())]), takes_mask=True)
    assert "is off by" in ask("cpu", {(64, True)})[0]["sage"]["bf16"]
    with_sage(lambda q, k, v, mask: native(q, k, v), takes_mask=True)
    assert "is off by" in ask("cpu", {(64, True)})[0]["sage"]["bf16"]
    with_sage(native, takes_mask=True)
    assert ask("cpu", {(64, True)})[0]["sage"] == {}


def test_a_kernel_that_is_no_number_does_not_work(with_sage: Any) -> None:
    with_sage(lambda query, key, value: query * float("nan"))
    assert set(ask("cpu", ())[0]["sage"]) == FORMATS


def test_a_kernel_that_breaks_the_graph_is_found_without_compiling(with_sage: Any) -> None:
    def by_hand(query: Any, key: Any, value: Any) -> Any:
        torch._dynamo.graph_break()
        return half_only(query, key, value)

    with_sage(by_hand)
    answer = ask("cpu", ())[0]["sage"]
    assert set(answer) == {"fp32", "graph"}
    assert answer["graph"].startswith("no whole graph can hold it: Unsupported: ")


def test_after_a_kernel_that_leaves_the_gpu_unusable_nothing_more_is_asked(
    with_sage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_sage(half_only)
    math = attention_dispatch.AttentionBackendName._NATIVE_MATH
    monkeypatch.setattr(REGISTRY, "list_backends", lambda: [SAGE, math])
    monkeypatch.setattr(attention_calls, "_works", lambda device: False)
    answers, _ = ask("cpu", ())
    assert answers["_native_math"] == dict.fromkeys(FORMATS, "was not asked, as sage left the device unusable")
