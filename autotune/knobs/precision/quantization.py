"""quantization: the denoiser's linear layers in 8 or 4 bits. `quantization_filter` selects the layers.

The files whose names begin with "_" say what each method does (_torchao.py, _bitsandbytes.py, _quanto.py). A method
takes layers of certain sizes only; the others keep their format, and so do layers whose weights the model reads without
calling the layer. Layers that were really quantized are counted. Convolutions are not quantized.

Pretrained weights are read as they are needed, and quantized on the GPU one layer after another: there, the model in 16
bits never has to fit.
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.footprint import Footprint, Part
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.precision._linear_layers import SDXL_LEFT_OUT, quantized, script_of, selected
from autotune.knobs.precision._methods import Method, all_methods
from autotune.pipelines import parts
from autotune.pipelines.running import traits_for, workload_for
from autotune.target import Target
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PLACED_ON_GPU = ("none", "text_encoders")  # offload modes with which the denoiser lies there


def why_not(value: Value, target: Target) -> str | None:
    method, known = all_methods().get(str(value)), target.pipeline.known
    if method is None:
        return None
    lacks = target.lacks(method.package)
    if lacks:
        return lacks
    if target.denoiser_is_quantized:
        return target.denoiser_is_quantized
    if not known.linear_shapes:
        return f"{known.denoiser_class} has no linear layers"
    why, kind = method.why_not(target), target.device.kind
    if why is None and not any(method.fits(shape, kind) for shape in known.linear_shapes):
        return f"no linear layer of {known.denoiser_class} has {method.size_needed(kind)}, as {value} needs"
    return why


def clash(config: Config, target: Target) -> str | None:
    method, known = all_methods().get(str(config["quantization"])), target.pipeline.known
    if method is None:
        return None
    layers, kind = str(config.get("quantization_filter", "all")), target.device.kind
    taken = [shape for shape in known.linear_shapes if method.fits(shape, kind)]
    if taken and not any(selected(layers, shape) for shape in taken):
        return f"quantization_filter={layers} selects no layer that has {method.size_needed(kind)}"
    return method.clash(config, target)


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    method, kind = all_methods()[str(config["quantization"])], device.partition(":")[0]
    left_out, why = _left_out(pipe, config, method, kind)
    # On the GPU, one layer after another: a processor takes minutes for a large model. With an offload the weights stay
    # where they are, except where a method can quantize on the GPU only.
    where = device if kind == "cuda" and (method.on_gpu or config["offload"] in PLACED_ON_GPU) else None
    layers = str(config["quantization_filter"])
    denoisers, whose = parts.denoisers(pipe), "the denoiser's"
    return quantized(denoisers, method, where, kind, layers=layers, left_out=left_out, whose=whose, why=why)


def _left_out(pipe: "DiffusionPipeline", config: Config, method: Method, kind: str) -> tuple[set[str], str]:
    """The names of the denoiser's layers that can't be quantized whatever the filter, and the reason."""
    from autotune.pipelines.rehearsal.rehearse import rehearse

    traits, workload, least = traits_for(pipe), workload_for(pipe), method.more_rows(kind)
    direct = set() if traits is None else set(traits.used_directly)
    if least < 0 or workload is None:
        return direct, f", {len(direct)} used directly" if direct else ""
    seen = rehearse(pipe, _fewest_rows(workload), until="denoised")
    if seen.fault:
        return direct, f", rows not known ({seen.fault})"
    # Steps without guidance, or with half of it predicted, have half of the rows of the call's first step, which is
    # rehearsed guided.
    predicted = str(config["cache"]).startswith("cfg_cache:")
    halved = config["guidance_cutoff"] != 1.0 or config["guidance_start"] != 0.0 or predicted
    few = {name for name, rows in seen.rows.items() if rows <= least * (2 if halved else 1)}
    return direct | seen.used_directly | few, f", without {len(few)} of at most {least} rows"


def _fewest_rows(workload: Workload) -> Workload:
    """A call in which each layer has no more rows than in any call of the workload.

    Some layers have a row for each picture, others for each place in it: the smallest batch and the smallest picture
    may be those of two sizes.
    """
    batch = min(shape.batch for shape in workload.shapes)
    small = min(workload.shapes, key=lambda shape: shape.width * shape.height)
    return workload.model_copy(update={"prompts": ("a",) * batch}).at(small.model_copy(update={"batch": batch}))


def weighs(footprint: Footprint, config: Config, target: Target) -> Footprint:
    method = all_methods().get(str(config["quantization"]))
    if method is None:
        return footprint
    layers, kind = str(config.get("quantization_filter")), target.device.kind

    def smaller(part: Part) -> Part:
        fits = [s for s in part.component.linear if selected(layers, s[:2]) and method.fits(s[:2], kind)]
        return method.weighs(part, fits)

    return footprint.of_denoisers(smaller, target.pipeline.known.denoisers)


def undone_by(value: Value, change: Change) -> str | None:
    if change == "ip_adapter":
        return "has packed weights, and an IP-Adapter casts all weights of the denoiser"
    return f"has packed weights, which only {all_methods()[str(value)].package} can read" if change == "save" else None


def script(config: Config, target: Target) -> Script:
    method, layers = all_methods()[str(config["quantization"])], str(config["quantization_filter"])
    known, wanted, left_out = target.pipeline.known, [], ""
    if known.used_directly:
        wanted.append(f"name not in {sorted(known.used_directly)}")
    if layers.startswith("min_features:"):
        wanted.append(f"min(module.in_features, module.out_features) >= {layers.partition(':')[2]}")
    if layers == "sdxl":
        left_out = f"left_out = {sorted(SDXL_LEFT_OUT)}  # (inputs, outputs): too small to gain by it"
        wanted += ["module.in_features > 16", "(module.in_features, module.out_features) not in left_out"]
    models = [f"pipe.{name}" for name in known.denoisers]
    return script_of(method, target.device.kind, models, wanted, left_out)


KNOB = Knob(
    name="quantization",
    stage=Stage.QUANTIZE,
    values=("none", *all_methods()),
    changes_output=True,
    rounds=True,
    nearest={method.name: method.nearest for method in all_methods().values() if method.nearest},
    summary="linear layers of the denoiser in 8 or 4 bits",
    why_not=why_not,
    clash=clash,
    apply=apply,
    weighs=weighs,
    undone_by=undone_by,
    script=script,
)
