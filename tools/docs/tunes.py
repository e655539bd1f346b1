"""tunes: the table of pipelines and settings, made from what `autotune knobs` has found for each pipeline.

`python -m tools.docs.tunes` asks it and writes reports/showcase/tunes.json: for each pipeline the knobs that can act on
an H100, by the probe of its classes with random weights. `make showcase` runs it.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOUND = ROOT / "reports" / "showcase" / "tunes.json"
DEVICE = "h100"
PIPELINES = {
    "Stable Diffusion 1.5": "sd15",
    "SDXL": "sdxl",
    "FLUX.1": "flux-dev",
    "SD 3.5": "sd3.5-medium",
    "Qwen-Image": "qwen-image",
    "Sana": "sana",
    "PixArt-Sigma": "pixart-sigma",
}
GROUPS = {
    "16 bits, TF32": ("dtype", "tf32", "reduced_sums", "fp16_accumulation"),
    "attention kernels": ("attention",),
    "`torch.compile`": ("compile",),
    "kernels that are timed": ("cudnn_benchmark", "tunable_op"),
    "fused projections": ("qkv_fusion",),
    "int8, fp8, int4": ("quantization", "layerwise_casting", "quantize_text_encoder"),
    "caches": ("cache",),
    "token merging": ("tome_ratio",),
    "fewer steps, schedulers": ("steps", "scheduler"),
    "guidance cut off": ("guidance_cutoff", "guidance_start"),
    "offload": ("offload", "encoding", "allocator"),
    "VAE tiling, slicing, other VAEs": ("vae_tiling", "vae_slicing", "vae"),
}


def table(*, link: str) -> str:
    """One row a group of knobs, one column a pipeline: a tick where a value beside the default can act."""
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    names = [name for name in PIPELINES if name in found]
    lines = [f"| | {' | '.join(names)} |", "|---|" + ":-:|" * len(names)]
    for group, knobs in GROUPS.items():
        linked = f"[{group}]({link}#{knobs[0]})"
        ticks = ["✓" if any(found[name].get(knob) for knob in knobs) else "" for name in names]
        lines.append(f"| {linked} | {' | '.join(ticks)} |")
    return "\n".join(lines)


def ask(preset: str) -> dict[str, list[str]]:
    """Knob -> its values beside the default that can act there. Starts a process that imports torch."""
    from autotune.devices.specs import find_spec
    from autotune.tuning.probe_space import probe_space

    _, space = probe_space(preset, "random", find_spec(DEVICE))
    return {name: [str(value) for value in values[1:]] for name, values in space.values.items() if len(values) > 1}


def main() -> None:
    """Ask for the presets that are named, or for all; what is known of the others is kept."""
    named = sys.argv[1:] or list(PIPELINES.values())
    for name, preset in PIPELINES.items():
        if preset in named:
            found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
            found[name] = ask(preset)
            FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
