"""_linear_layers: the linear layers that are quantized: selected, found, counted. A helper of quantization."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autotune.knob import Effect, Script
from autotune.knobs.precision._methods import Method

if TYPE_CHECKING:
    from torch import nn

# The shapes (in, out) that the PyTorch team's SDXL guide does not quantize: too small to gain by it.
SDXL_LEFT_OUT = {
    (1280, 640), (1920, 1280), (1920, 640), (2048, 1280), (2048, 2560), (2560, 1280), (256, 128), (2816, 1280),
    (320, 640), (512, 1536), (512, 256), (512, 512), (640, 1280), (640, 1920), (640, 320), (640, 5120), (640, 640),
    (960, 320), (960, 640),
}  # fmt: skip


def selected(layers: str, shape: tuple[int, int]) -> bool:
    """Does the filter `layers` ("all", "min_features:N" or "sdxl") select a linear layer of this (in, out) shape?"""
    if layers == "sdxl":
        return shape[0] > 16 and shape not in SDXL_LEFT_OUT
    kind, _, least = layers.partition(":")
    return kind == "all" or min(shape) >= int(least)


def candidates(model: "nn.Module", method: Method, kind: str, layers: str = "all") -> dict[str, "nn.Linear"]:
    """Name -> linear layer of the model that the filter selects and the method can take.

    Layers that share their weights with an embedding are none, because an embedding looks up single rows.
    """
    import torch

    kept = _kept_in_float32(model) if method.hides_format else frozenset[str]()
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or id(module.weight) in looked_up or kept & set(name.split(".")):
            continue
        shape = (module.in_features, module.out_features)
        if selected(layers, shape) and method.fits(shape, kind):
            found[name] = module
    return found


def _kept_in_float32(model: Any) -> frozenset[str]:
    """Parts of names, as the model's class lists them ("wo" in T5)."""
    lists = (getattr(model, f"_keep_in_fp32_modules{which}", None) or () for which in ("", "_strict"))
    return frozenset(name for names in lists for name in names)


def quantized(
    models: Mapping[str, "nn.Module"],
    method: Method,
    where: str | None,
    kind: str,
    *,
    layers: str = "all",
    left_out: Collection[str] = (),
    whose: str,
    why: str = "",
) -> Effect:
    """Quantize the layers of these models that the filter selects, and count those that hold fewer bits now.

    left_out  names of layers that stay as they are; `why` says so at the end of the effect's text
    """
    count, weights, before, after = 0, 0, 0, 0
    total = sum(p.numel() for model in models.values() for p in model.parameters())
    for model in models.values():
        chosen = {name: m for name, m in candidates(model, method, kind, layers).items() if name not in left_out}
        held = {name: (layer.weight.numel(), bytes_of(layer.weight)) for name, layer in chosen.items()}
        del chosen  # its layers may be replaced, and their weights must go then
        done = method.quantize(model, held.keys(), where, kind)
        count, weights = count + len(done), weights + sum(held[name][0] for name in done)
        before += sum(held[name][1] for name in done)
        after += sum(bytes_of(model.get_submodule(name).weight) for name in done)
    what = f"linear layers quantized, {weights / max(1, total):.0%} of {whose} weights, in {after:,} bytes instead of"
    return Effect(count=count, what=f"{what} {before:,}{why}")


def script_of(
    method: Method, kind: str, models: Iterable[str], wanted: Iterable[str] = (), left_out: str = ""
) -> Script:
    """The same as source text, for these models of a plain script ("pipe.unet").

    wanted    further conditions on a layer, as expressions of `module` and `name`
    left_out  a line that they need
    """
    fault = method.no_script(kind)
    if fault:
        return Script(why_not=fault)
    asked = ["isinstance(module, torch.nn.Linear)", "id(module.weight) not in looked_up", *method.conditions(kind)]
    facts = ["looked_up = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}"]
    if method.hides_format:
        asked.append("not kept & {*name.split('.')}")
        facts += [
            'lists = [getattr(model, f"_keep_in_fp32_modules{which}", None) for which in ("", "_strict")]',
            "kept = {name for names in lists for name in names or ()}  # asked for their format",
        ]
    lines = (
        *method.before,
        *([left_out] if left_out else []),
        f"for model in ({', '.join(models)},):",
        *(f"    {fact}" for fact in facts),
        "    def is_quantized(module, name):",
        f"        return {' and '.join([*asked, *wanted])}",
        "",
        *(f"    {line}" for line in method.lines("model", kind)),
    )
    return Script(imports=method.imports, lines=lines)


def bytes_of(weight: Any) -> int:
    """The bytes of a weight; of a quantized one, with its scales, which are parts of it or lie beside it."""
    if hasattr(weight, "__tensor_flatten__"):
        return sum(bytes_of(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    beside = (getattr(getattr(weight, "quant_state", None), "absmax", None), getattr(weight, "SCB", None))
    return int(weight.numel() * weight.element_size()) + sum(bytes_of(scale) for scale in beside if scale is not None)
