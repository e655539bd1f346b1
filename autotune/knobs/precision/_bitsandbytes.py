"""_bitsandbytes: linear layers in 4 or 8 bits, by the package bitsandbytes.

"bnb_nf4" holds weights in 4 bits, of which 64 share a scale, and turns them back for each product. Any GPU can, and a
processor. "bnb_int8" (LLM.int8) computes in 8 bits but for the inputs with outliers, for which it keeps float16.

The layers become modules of bitsandbytes, as in diffusers' BitsAndBytesConfig with its defaults. Those of 8 bits are
changed in two ways: they take inputs of more than 3 dimensions, and all of their weights follow to another device, as
model offloading needs. Seen on a processor, not yet on a GPU. Where bitsandbytes is installed, diffusers imports it:
each process then starts some seconds later.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from autotune.config import Config
from autotune.knobs.precision._methods import Method, Shape
from autotune.target import Target

BLOCK = 64  # weights that share a scale in NF4
CPU_OUTPUTS = 32  # the CPU's kernel computes this many outputs at a time
OUTLIER = 6.0  # inputs above it are computed in 16 bits: the default of diffusers and of the paper of LLM.int8
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def why_not_nf4(target: Target) -> str | None:
    fault = target.device.capability_fault(6) if target.device.is_nvidia else None
    return target.lacks("bitsandbytes") or fault


def why_not_int8(target: Target) -> str | None:
    fault = target.device.capability_fault(7, 5) if target.device.is_nvidia else None
    return target.lacks("bitsandbytes") or fault


def clash_nf4(config: Config, target: Target) -> str | None:
    if config["offload"] in ("sequential", "group"):
        return "offloading by layers moves weights alone, without the scales that bitsandbytes keeps beside them"
    return None


def clash_int8(config: Config, target: Target) -> str | None:
    if config["offload"] in ("sequential", "group"):
        return (
            "offloading by layers moves weights alone, and the 8-bit layers of bitsandbytes hold them on the GPU, too"
        )
    if config["compile"] != "off" and config.get("compile_mode") in CUDA_GRAPHS:
        return "the 8-bit layers of bitsandbytes pick outliers, as many as there are, which no CUDA graph can"
    return None


def multiples_of_nf4(kind: str) -> Shape:
    return (BLOCK, CPU_OUTPUTS if kind == "cpu" else 1)


def multiples_of_int8(kind: str) -> Shape:
    return (1, 1) if kind == "cpu" else (4, 1)  # others are computed in float32


def quantize_nf4(model: Any, names: Collection[str], where: str | None, kind: str) -> set[str]:
    from bitsandbytes import nn

    def made(layer: Any, home: Any) -> Any:
        how = {"compute_dtype": layer.weight.dtype, "quant_type": "nf4", "compress_statistics": False}
        new = nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, device="meta", **how)
        kept = {"quant_type": "nf4", "compress_statistics": False, "blocksize": BLOCK, "module": new}
        new.weight = nn.Params4bit(layer.weight.data, requires_grad=False, **kept).to(home)
        return new

    return _replaced(model, names, where, made)


def movable(cls: type) -> type:
    """This class of layers, for inputs of any number of dimensions, and with all of its weights moved as one."""

    def forward(self: Any, given: Any) -> Any:
        flat = cls.forward(self, given.reshape(-1, given.shape[-1]))  # type: ignore[attr-defined]
        return flat.reshape(*given.shape[:-1], self.out_features)

    def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
        cls._apply(self, fn, recurse)  # type: ignore[attr-defined]
        for held in (self.weight, self.state):  # before the first call, and after it
            if getattr(held, "CB", None) is not None:
                held.CB, held.SCB = self.weight.data, held.SCB.to(self.weight.device)
        return self

    return type(cls.__name__, (cls,), {"forward": forward, "_apply": _apply})


def quantize_int8(model: Any, names: Collection[str], where: str | None, kind: str) -> set[str]:
    import logging

    from bitsandbytes import nn

    # At each call of each layer, it says that inputs are cast to float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    linear = movable(nn.Linear8bitLt)

    def made(layer: Any, home: Any) -> Any:
        how = {"has_fp16_weights": False, "threshold": OUTLIER}
        new = linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta", **how)
        weight = layer.weight.data.cpu()  # it quantizes what it moves from the CPU, and nothing else
        new.weight = nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(home)
        return new

    return _replaced(model, names, where, made)


def _replaced(model: Any, names: Collection[str], where: str | None, made: Callable[[Any, Any], Any]) -> set[str]:
    """Replace these layers one after another, so that one of them at a time is held twice."""
    for name in names:
        layer = model.get_submodule(name)
        home = layer.weight.device if where is None else where
        new = made(layer, home)
        new.bias = None if layer.bias is None else layer.bias.to(home)
        model.set_submodule(name, new.requires_grad_(False).train(layer.training))
    return set(names)


NEW = {
    "bnb_nf4": (
        'new = bnb.nn.Linear4bit(*sizes, compute_dtype=layer.weight.dtype, quant_type="nf4", device="meta")',
        'weight = bnb.nn.Params4bit(layer.weight.data, compress_statistics=False, quant_type="nf4", module=new)',
    ),
    "bnb_int8": (
        f'new = movable(bnb.nn.Linear8bitLt)(*sizes, has_fp16_weights=False, threshold={OUTLIER}, device="meta")',
        "weight = bnb.nn.Int8Params(layer.weight.data.cpu(), requires_grad=False, has_fp16_weights=False)",
    ),
}


def lines_of(value: str) -> Callable[[str, str], tuple[str, ...]]:
    def lines(model: str, kind: str) -> tuple[str, ...]:
        where = "cpu" if kind == "cpu" else "cuda"
        return (
            f"for name, layer in list({model}.named_modules()):",
            "    if is_quantized(layer, name):",
            "        sizes = (layer.in_features, layer.out_features, layer.bias is not None)",
            *(f"        {line}" for line in NEW[value]),
            f'        new.weight = weight.to("{where}")',
            "        new.bias = layer.bias",
            f'        {model}.set_submodule(name, new.requires_grad_(False).to("{where}"))',
        )

    return lines


METHODS = (
    Method(
        name="bnb_nf4",
        package="bitsandbytes",
        bits=4,
        scale_bytes=lambda wide, high, plain: 4 * wide * high / BLOCK,
        quantize=quantize_nf4,
        imports=("import bitsandbytes as bnb",),
        lines=lines_of("bnb_nf4"),
        multiples=multiples_of_nf4,
        why_not=why_not_nf4,
        clash=clash_nf4,
        on_gpu=True,
        nearest=("int4_weight_only", "int8_weight_only"),
        hides_format=True,
    ),
    Method(
        name="bnb_int8",
        package="bitsandbytes",
        bits=8,
        scale_bytes=lambda wide, high, plain: 4 * high,
        quantize=quantize_int8,
        imports=("from typing import Any", "import bitsandbytes as bnb"),
        before=tuple(inspect.getsource(movable).splitlines()),
        lines=lines_of("bnb_int8"),
        multiples=multiples_of_int8,
        why_not=why_not_int8,
        clash=clash_int8,
        on_gpu=True,
        nearest=("int8_weight_only",),
        hides_format=True,
    ),
)
