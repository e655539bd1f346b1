"""_methods: what a file of methods of quantization says, and all methods by name. A helper of quantization.

A file of this folder whose name begins with "_" and that has `METHODS` is found by itself; it imports torch and its
package inside functions only. A method changes the layers of a model that is loaded, one after another: only one of
them at a time is on the GPU in its own format. Fused LoRAs, fused projections and random weights are quantized, too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from autotune.config import Config
from autotune.footprint import Part
from autotune.knob import no_objection
from autotune.target import Target

Shape = tuple[int, int]  # (inputs, outputs) of a linear layer


def any_size(kind: str) -> Shape:
    """The default of `multiples`: a layer of any size."""
    return (1, 1)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to hold linear layers in fewer bits. `kind` is a device's kind: "cuda", "cpu".

    name          the value of the knob, such as "int8_weight_only"
    package       whose code it is, by the name that pip knows
    bits          of a weight, without its scales
    scale_bytes   (inputs, outputs, bytes of a plain weight) -> the bytes of a layer's scales
    quantize      (model, names of layers, where, kind) -> the names of those that were quantized. where: the device on
                  which it is done, and on which they then lie; None: where they are
    imports       the import statements of a plain script
    before        lines of a plain script that come first: what its `lines` need
    lines         (the model in a plain script, kind) -> the lines that quantize its layers, those that the script's
                  function is_quantized(module, name) takes
    multiples     (kind) -> a layer's inputs and outputs must be multiples of these
    more_rows     (kind) -> a layer must see more rows than these in every call; -1: any number
    why_not       (target) -> why the method is not available, as a clause; None: it is
    clash         (config, target) -> why it can't be combined with the config's other values; None: it can
    for_words     can text encoders be quantized by it? Those that quantize what a layer is given can't: it costs time
    on_gpu        must the layers be on the GPU while they are quantized?
    hides_format  do quantized weights no longer tell in which format is computed? Then the layers that a model's class
                  keeps in float32 stay as they are: its code asks their weights for their format
    nearest       the values that replace it where it is not available, best first
    no_script     (kind) -> why a short script can't do it, as a clause; None: it can
    """

    name: str
    package: str
    bits: float
    scale_bytes: Callable[[int, int, int], float]
    quantize: Callable[[Any, Collection[str], str | None, str], set[str]]
    imports: tuple[str, ...]
    lines: Callable[[str, str], tuple[str, ...]]
    before: tuple[str, ...] = ()
    multiples: Callable[[str], Shape] = any_size
    more_rows: Callable[[str], int] = lambda kind: -1
    why_not: Callable[[Target], str | None] = no_objection
    clash: Callable[[Config, Target], str | None] = no_objection
    for_words: bool = True
    on_gpu: bool = False
    hides_format: bool = False
    nearest: tuple[str, ...] = ()
    no_script: Callable[[str], str | None] = no_objection

    def fits(self, shape: Shape, kind: str) -> bool:
        """Does a layer of this size fit the method on this kind of device?"""
        return all(size % least == 0 for size, least in zip(shape, self.multiples(kind), strict=True))

    def size_needed(self, kind: str) -> str:
        """What a layer's size must be, in words."""
        inputs, outputs = self.multiples(kind)
        return f"a multiple of {inputs} inputs" + (f" and of {outputs} outputs" if outputs > 1 else "")

    def conditions(self, kind: str) -> list[str]:
        """What a plain script asks of a layer's size, as source text."""
        sizes = zip(("in_features", "out_features"), self.multiples(kind), strict=True)
        return [f"module.{name} % {least} == 0" for name, least in sizes if least > 1]

    def weighs(self, part: Part, layers: Collection[tuple[int, int, int]]) -> Part:
        """The component with these of its linear layers (inputs, outputs, number) quantized."""
        made = sum(wide * high * count for wide, high, count in layers)
        scales = sum(self.scale_bytes(wide, high, part.weight_bytes) * count for wide, high, count in layers)
        smaller = part.stored_smaller(made, self.bits)
        return replace(smaller, bytes=smaller.bytes + int(scales))


@cache
def all_methods() -> Mapping[str, Method]:
    """Every method by name, in the order of the files' names, those of torchao first."""
    package = __name__.rpartition(".")[0]
    names = [m.name for m in iter_modules(import_module(package).__path__) if m.name.startswith("_")]
    modules = [import_module(f"{package}.{name}") for name in names if f"{package}.{name}" != __name__]
    found = [method for module in modules for method in getattr(module, "METHODS", ())]
    return {method.name: method for method in sorted(found, key=lambda method: method.package != "torchao")}
