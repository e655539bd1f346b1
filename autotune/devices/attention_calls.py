"""Attention calls: what diffusers' attention dispatcher can compute on a device, found by one tiny call each."""

import sys
import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from autotune.devices import hub_kernels

if TYPE_CHECKING:
    import torch

FORMATS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
GRAPH = "graph"  # beside the formats: can Dynamo hold the call in a whole graph?
NATIVE = "native"  # the dispatcher's default, with which the others are compared
FLEX = "flex"  # one kernel only when compiled, which takes seconds; on a processor it is not offered, and not asked
TOKENS, HEADS, MOST_OFF = 128, 2, 0.25
LONGEST = 160  # characters of an error's sentence that are kept

Answers = dict[str, dict[str, str]]


def ask(device: str, wanted: Collection[tuple[int, bool]]) -> tuple[Answers, dict[str, str]]:
    """Call every backend of the installed diffusers once in each number format, for each kind of attention.

    device  torch's name
    wanted  (head size, is there a mask?) of the model's attention; empty: one of 64 without a mask

    Returns the answers: backend -> format (or "graph") -> why the call fails, as a clause; formats that work are left
    out, and so are backends whose package is not installed. And the hub's kernels that were loaded: backend -> commit.
    """
    from diffusers.models import attention_dispatch

    answers: Answers = {}
    commits: dict[str, str] = {}
    broken: str | None = None
    for backend in attention_dispatch._AttentionBackendRegistry.list_backends():
        name, of_hub = str(backend.value), backend in attention_dispatch._HUB_KERNELS_REGISTRY
        left_out = name == NATIVE or (name == FLEX and device == "cpu") or (of_hub and not hub_kernels.allowed())
        if left_out or not _is_here(attention_dispatch, backend):
            continue
        if broken is not None:
            answers[name] = dict.fromkeys(FORMATS, f"was not asked, as {broken} left the device unusable")
            continue
        sys.stderr.write(f"attention: {name} is asked by a tiny call\n")  # the log's last line where it crashes
        try:
            if of_hub:
                commits[name] = hub_kernels.fetch(name)
        except Exception as error:
            answers[name] = dict.fromkeys(FORMATS, f"can't be loaded: {_sentence(error)}")
            continue
        answers[name] = _answers(name, device, sorted(wanted) or [(64, False)])
        broken = None if _works(device) else name
    return answers, commits


def _is_here(dispatch: Any, backend: Any) -> bool:
    """Is what this backend needs installed, in a version that diffusers takes?"""
    try:
        dispatch._check_attention_backend_requirements(backend)
    except RuntimeError:
        return False
    return True


def _answers(name: str, device: str, wanted: list[tuple[int, bool]]) -> dict[str, str]:
    """Number format -> why a call of this backend fails in it; also "graph" for what is not torch's own."""
    found = {}
    for short, long in FORMATS.items():
        for head, masked in wanted:
            fault = _fault(name, device, long, head, masked)
            if fault is not None:
                found[short] = fault
                break
    works = [short for short in FORMATS if short not in found]
    if works and not name.startswith("_native") and name != FLEX:
        fault = _graph_fault(name, device, FORMATS[works[-1]], *wanted[0])
        found |= {GRAPH: fault} if fault is not None else {}
    return found


def _fault(name: str, device: str, dtype: str, head: int, masked: bool) -> str | None:
    """Why this backend can't compute such attention here, as a clause; None: it can, and rightly."""
    import torch

    q, k, v, mask = _inputs(device, dtype, head, masked)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that flex is slow uncompiled
        try:
            call = torch.compile(_call) if name == FLEX else _call
            result = call(name, q, k, v, mask).float().cpu()
        except Exception as error:
            return f"a tiny call of it fails here: {_sentence(error)}"
        expected = _call(NATIVE, q, k, v, mask).float().cpu()
    off = float((result - expected).abs().mean() / expected.abs().mean())
    return None if off <= MOST_OFF else f"a tiny call of it is off by {off:.0%} here"


def _graph_fault(name: str, device: str, dtype: str, head: int, masked: bool) -> str | None:
    """Why no whole graph can hold a call of this backend, as a clause; None: Dynamo captures it. It is not compiled."""
    import torch

    q, k, v, mask = _inputs(device, dtype, head, masked)
    try:
        with torch.no_grad():
            torch.compile(_call, fullgraph=True, backend="eager")(name, q, k, v, mask)
    except Exception as error:
        return f"no whole graph can hold it: {_sentence(error)}"
    finally:
        torch._dynamo.reset()
    return None


def _inputs(device: str, dtype: str, head: int, masked: bool) -> tuple[Any, ...]:
    """Query, key and value: 1 x TOKENS x HEADS x head, as the dispatcher takes them; and a mask, or None.

    What is masked lies in the middle: some kernels take the first keys, as many as the mask allows.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    shape, how = (1, TOKENS, HEADS, head), {"device": device, "dtype": getattr(torch, dtype)}
    place = torch.arange(TOKENS, device=device).view(1, 1, 1, TOKENS)
    mask = (place < TOKENS // 4) | (place >= TOKENS // 2) if masked else None
    return (*(torch.randn(shape, generator=generator).to(**how) for _ in range(3)), mask)


def _call(name: str, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", mask: Any) -> "torch.Tensor":
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    result: torch.Tensor = dispatch_attention_fn(q, k, v, attn_mask=mask, backend=AttentionBackendName(name))
    return result


def _works(device: str) -> bool:
    """Does the device still compute? A kernel that reads outside of its memory leaves a GPU unusable to its process."""
    import torch

    try:
        return float(torch.ones(2, device=device).sum()) == 2.0
    except RuntimeError:
        return False


def _sentence(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {line}"[:LONGEST]
