"""Shared int8: can Inductor write C++ for a bfloat16 input that several layers quantize, where its tokens lie apart?

Torch 2.13 can't: it stores the reductions of the three layers under the same names, and the compiler finds "conflicting
declarations". So it was in all 18 recorded trials of UNets with such a config, whose blocks are compiled by themselves
and are given the transposed output of a convolution. Only Inductor is run, as compiling takes longer.
"""

import re
import warnings
from collections import Counter

DECLARED = re.compile(r"\bauto (at_BFloat16_\w+) =")
CHANNELS, TOKENS, LAYERS = 64, 64, 3  # query, key and value


def declared_twice(source: str) -> str | None:
    """A name of a converted vector that is declared twice in one scope of this C++; None: there is none."""
    scopes: list[Counter[str]] = [Counter()]
    for line in source.splitlines():
        for name in DECLARED.findall(line):
            scopes[-1][name] += 1
            if scopes[-1][name] > 1:
                return str(name)
        for brace in re.findall(r"[{}]", line):
            if brace == "{":
                scopes.append(Counter())
            elif len(scopes) > 1:
                scopes.pop()
    return None


def fault() -> str | None:
    """Why such layers can't be compiled on a processor by this torch, as a clause; None: they can, or nobody knows."""
    for source in _sources():
        name = declared_twice(source)
        if name is not None:
            return f"Inductor's C++ for a bfloat16 input that several int8 layers share declares {name} twice"
    return None


def _sources() -> list[str]:
    """The C++ that Inductor writes for three quantized layers of one input, which is not compiled."""
    import torch
    from torch._inductor import async_compile
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    written: list[str] = []

    class WrittenError(Exception):
        pass

    def keep(self: object, argtypes: object, source: str, *args: object, **kwargs: object) -> None:
        written.append(source)
        raise WrittenError

    class Shared(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(CHANNELS)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(CHANNELS, CHANNELS, bias=False) for _ in range(LAYERS))

        def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
            normed = self.norm(tokens)
            return [layer(normed) for layer in self.layers]

    block = Shared().to(torch.bfloat16)
    quantize_(block, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    plain = async_compile.AsyncCompile.cpp_pybinding
    async_compile.AsyncCompile.cpp_pybinding = keep
    try:
        with torch.no_grad(), torch._inductor.config.patch(fx_graph_cache=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchao's, about a cache's key
            torch.compile(block, dynamic=False)(torch.zeros(1, CHANNELS, TOKENS, dtype=torch.bfloat16).transpose(1, 2))
    except Exception:  # what `keep` raises, in whatever Inductor wraps it: without a source nothing is known
        return written
    finally:
        async_compile.AsyncCompile.cpp_pybinding = plain
        torch._dynamo.reset()
    return written
