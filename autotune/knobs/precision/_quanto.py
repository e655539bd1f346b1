"""_quanto: linear layers whose weights are held in 8 bits, by the package optimum-quanto.

Its layers turn the weights back for each product, so that arithmetic stays in the pipeline's format: unlike torchao's
int8, they don't overflow in float16. int8 and fp8 have a scale for each output. diffusers drops its own use of quanto
in version 1.0; these are quanto's own layers. Their bias is added outside of quanto's product, because that of fp8 on a
GPU (Marlin, in quanto 0.2.7) leaves it out. Seen on a processor, not yet on a GPU.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from autotune.config import Config
from autotune.knobs.precision._methods import Method
from autotune.target import Target

TYPES = {"quanto_int8": "qint8", "quanto_fp8": "qfloat8"}


def why_not(target: Target) -> str | None:
    return target.lacks("optimum-quanto")


def clash(config: Config, target: Target) -> str | None:
    if config["offload"] in ("sequential", "group"):
        return "offloading by layers moves weights alone, without the scales that quanto keeps in them"
    return None


def with_bias_apart(cls: type) -> type:
    """This class of layers, with the bias added outside of its product."""
    import torch

    def forward(self: "torch.nn.Linear", given: "torch.Tensor") -> "torch.Tensor":
        output = torch.nn.functional.linear(given, self.qweight)
        return output if self.bias is None else output + self.bias

    return type(cls.__name__, (cls,), {"forward": forward})


def quantizer(value: str) -> Callable[[Any, Collection[str], str | None, str], set[str]]:
    def quantize(model: Any, names: Collection[str], where: str | None, kind: str) -> set[str]:
        from optimum import quanto

        linear: Any = with_bias_apart(quanto.QLinear)
        for name in names:
            layer = model.get_submodule(name)
            new = linear.from_module(layer.to(device=where), weights=getattr(quanto, TYPES[value]))
            new.freeze()
            model.set_submodule(name, new.requires_grad_(False).train(layer.training))
        return set(names)

    return quantize


def lines_of(value: str) -> Callable[[str, str], tuple[str, ...]]:
    def lines(model: str, kind: str) -> tuple[str, ...]:
        where = "" if kind == "cpu" else '.to("cuda")'
        return (
            f"for name, layer in list({model}.named_modules()):",
            "    if is_quantized(layer, name):",
            f"        new = with_bias_apart(QLinear).from_module(layer{where}, weights={TYPES[value]})",
            "        new.freeze()",
            f"        {model}.set_submodule(name, new.requires_grad_(False))",
        )

    return lines


METHODS = tuple(
    Method(
        name=value,
        package="optimum-quanto",
        bits=8,
        scale_bytes=lambda wide, high, plain: plain * high,
        quantize=quantizer(value),
        imports=(f"from optimum.quanto import QLinear, {kind}",),
        before=tuple(inspect.getsource(with_bias_apart).splitlines()),
        lines=lines_of(value),
        why_not=why_not,
        clash=clash,
        nearest=("fp8_weight_only", "int8_weight_only") if value == "quanto_fp8" else ("int8_weight_only",),
    )
    for value, kind in TYPES.items()
)
