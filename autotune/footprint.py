"""Footprint: the bytes of a pipeline's weights under a config, predicted before anything is loaded.

What a call needs beside the weights (activations, workspaces, the CUDA context) is not predicted.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from autotune.frozen_model import FrozenModel

FLOAT32_BYTES = 4


class Component(FrozenModel):
    """The weights of one component, counted on its class without weights. All counts are of floating-point weights.

    weights         all, shared ones once
    largest_layer   of the module that has the most of its own: what offloading by layers holds at once
    linear          (in, out, number) of the linear layers, without biases
    cast            that layerwise casting stores in 8 bits
    kept_float32    number format ("fp16", "bf16") -> that the libraries keep in float32 where this format is asked for
    runs_each_step  the denoiser, a ControlNet; not a second denoiser, which takes turns with the first
    offloaded       by model offloading: "in turn" (one at a time), "at the end" (stays until the call ends), "never"
    packed_bytes    of all weights, where the checkpoint has quantized them: they keep their format. None: it has not
    stored          number format in the files (its name in safetensors or GGUF) -> weights that have it; empty: unknown
    """

    name: str
    weights: int
    largest_layer: int
    linear: tuple[tuple[int, int, int], ...] = ()
    cast: int = 0
    kept_float32: dict[str, int] = Field(default_factory=dict)
    runs_each_step: bool = False
    offloaded: str = "in turn"
    packed_bytes: int | None = None
    stored: dict[str, int] = Field(default_factory=dict)

    @property
    def stored_format(self) -> str | None:
        """The format of most of the weights in the files; None: not known."""
        return max(self.stored, key=lambda name: self.stored[name], default=None)


@dataclass(frozen=True)
class Part:
    """One component under a config: the bytes of all its weights, of a plain weight, and of its largest layer."""

    component: Component
    bytes: int
    weight_bytes: int
    layer_bytes: int

    def stored_smaller(self, weights: int, bits: float) -> "Part":
        """The same with so many of its plain weights in `bits` each."""
        return replace(self, bytes=self.bytes - int(weights * (self.weight_bytes - bits / 8)))


@dataclass(frozen=True)
class Footprint:
    """All components under a config. Each knob that changes the weights returns another one (`Knob.weighs`).

    device_bytes  of the weights that must be on the device at the same time; None: all of them
    """

    parts: tuple[Part, ...]
    device_bytes: int | None = None

    @staticmethod
    def of(components: Sequence[Component]) -> "Footprint":
        """As loaded, in float32."""

        def loaded(c: Component) -> Part:
            held = FLOAT32_BYTES * c.weights if c.packed_bytes is None else c.packed_bytes
            return Part(c, held, FLOAT32_BYTES, FLOAT32_BYTES * c.largest_layer)

        return Footprint(tuple(map(loaded, components)))

    @property
    def weights_bytes(self) -> int:
        """Of all weights, wherever they are. Offloaded ones are in host memory."""
        return sum(part.bytes for part in self.parts)

    @property
    def resident_bytes(self) -> int:
        """Of the weights that must be on the device at the same time."""
        return self.weights_bytes if self.device_bytes is None else self.device_bytes

    def of_denoisers(self, change: Callable[[Part], Part], denoisers: Collection[str]) -> "Footprint":
        """The same with the parts of these names changed."""
        return replace(self, parts=tuple(change(p) if p.component.name in denoisers else p for p in self.parts))

    def in_format(self, name: str, weight_bytes: int) -> "Footprint":
        """All weights in this number format, but for those that the libraries keep in float32."""

        def converted(part: Part) -> Part:
            kept = part.component.kept_float32.get(name, 0)
            held = weight_bytes * (part.component.weights - kept) + FLOAT32_BYTES * kept
            held = held if part.component.packed_bytes is None else part.component.packed_bytes
            return Part(part.component, held, weight_bytes, weight_bytes * part.component.largest_layer)

        return replace(self, parts=tuple(converted(part) for part in self.parts))

    def offloaded(self, how: str, only: Collection[str] | None = None) -> "Footprint":
        """The weights in host memory: whole models ("model"), or layers ("sequential", "group") move to the device.

        only  names of the components that are moved; the others stay on the device. None: all are moved
        """

        def stays(part: Part) -> bool:
            never = part.component.offloaded == "never" and how != "group"
            return never or (only is not None and part.component.name not in only)

        always = sum(part.bytes for part in self.parts if stays(part))
        moving = [part for part in self.parts if not stays(part)]
        if how == "model":
            in_turn = max((p.bytes for p in moving), default=0)
            each_step = sum(p.bytes for p in moving if p.component.runs_each_step)
            return replace(self, device_bytes=always + max(in_turn, each_step))
        layer = max((p.layer_bytes for p in moving), default=0)
        return replace(self, device_bytes=always + layer * (2 if how == "group" else 1))
