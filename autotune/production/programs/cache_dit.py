"""cache_dit: the YAML file of cache_dit.load_configs: attention, quantization and the cache of a transformer.

Its DBCache with one block at the front and none at the end decides as diffusers' FirstBlockCache does: by the mean
change of the first block's residual, relative to its mean.
"""

from autotune.production.programs.handed_on import HandedOn, Scalar, Settings, notes, yaml_file
from autotune.production.tuned_config import TunedConfig

# Names of diffusers' attention dispatcher, to which cache-dit hands on the names that it does not know itself.
ATTENTION = {
    "sdpa_flash": "_native_flash",
    "sdpa_efficient": "_native_efficient",
    "sdpa_cudnn": "_native_cudnn",
    "sdpa_math": "_native_math",
    "flash_attn": "flash",
    "sage": "sage",
    "xformers": "xformers",
    "flex": "flex",
}
QUANTIZATION = {
    "fp8_dynamic": "float8_per_tensor",
    "fp8_dynamic_row": "float8_per_row",
    "fp8_weight_only": "float8_weight_only",
    "int8_weight_only": "int8_weight_only",
}
DENOISER = "transformer"  # the component that it works on


def hand_on(tuned: TunedConfig, name: str) -> HandedOn:
    """Raises UserError where cache-dit takes none of the settings."""
    settings, traits = Settings(tuned, "cache-dit"), tuned.pipeline.known
    values: dict[str, Scalar | dict[str, Scalar | list[str]]] = {}
    if traits.denoiser == DENOISER:
        values |= _cache(settings, tuned.workload.steps) | _attention(settings, traits.dispatches_attention)
        values |= _quantization(settings)
    else:
        for knob in ("cache", "attention", "quantization"):
            settings.leave(knob, f"cache-dit works on the component {DENOISER}; this pipeline has {traits.denoiser}")
    for knob in ("dtype", "compile", "offload", "vae_tiling", "vae_slicing", "scheduler"):
        settings.leave(knob, "is set on the pipe before cache_dit.enable_cache, as --as diffusers shows")
    settings.require_some()
    use = f'For cache-dit: cache_dit.enable_cache(pipe, **cache_dit.load_configs("{name}")).'
    return HandedOn(yaml_file(notes(use, tuned.about, settings.left_out), values), settings.left_out)


def _cache(settings: Settings, steps: int) -> dict[str, Scalar | dict[str, Scalar | list[str]]]:
    kind, _, number = str(settings.get("cache") or "").partition(":")
    if kind == "dbcache":
        settings.leave(
            "cache", "how many first blocks are computed depends on the model, which this file does not know"
        )
        return {}
    if kind != "first_block":
        settings.leave("cache", "cache-dit has another method, with other pictures")
        return {}
    settings.take("cache")
    return {
        "cache_config": {
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "residual_diff_threshold": float(number),
            "max_warmup_steps": 0,
            "num_inference_steps": steps,
        }
    }


def _attention(settings: Settings, dispatches: bool) -> dict[str, Scalar | dict[str, Scalar | list[str]]]:
    name = ATTENTION.get(str(settings.get("attention")))
    if name is None or not dispatches:
        settings.leave("attention", "diffusers' attention dispatcher has no such kernel for this model")
        return {}
    settings.take("attention")
    return {"attention_backend": name}


def _quantization(settings: Settings) -> dict[str, Scalar | dict[str, Scalar | list[str]]]:
    value = str(settings.get("quantization"))
    if settings.get("quantization_filter") is not None:
        settings.leave("quantization", "a file names layers to leave out, and the filter selects them by their sizes")
    elif value in QUANTIZATION:
        settings.take("quantization")
        every_layer: list[str] = []
        how: dict[str, Scalar | list[str]] = {
            "backend": "torchao",
            "quant_type": QUANTIZATION[value],
            "regional_quantize": False,
            "exclude_layers": every_layer,
        }
        return {"quantize_config": how}
    else:
        settings.leave("quantization", "cache-dit quantizes otherwise: other layers, or other groups of weights")
    return {}
