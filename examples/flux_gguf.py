"""FLUX.1-dev whose transformer is read from a GGUF file, in 2 to 8 bits: it never has to fit in 16.

    pip install gguf
    autotune search --factory examples/flux_gguf.py:make --run-code

`autotune search --pipeline flux-dev --gguf FILE` does the same without a function. This is for what it can't do: two
denoisers, each from a file, or a LoRA that stays unfused. Any transformer of diffusers that `from_single_file` takes
goes the same way: put its class and its checkpoint here.
"""

from typing import Any

from diffusers import FluxPipeline, FluxTransformer2DModel, GGUFQuantizationConfig

CHECKPOINT = "black-forest-labs/FLUX.1-dev"
FILE = "https://huggingface.co/city96/FLUX.1-dev-gguf/blob/main/flux1-dev-Q4_K_S.gguf"  # or a file on this disk


def make(dtype: Any) -> FluxPipeline:
    """The pipe in host memory. The transformer's weights stay as the file has them; it computes in `dtype`."""
    how = {"config": CHECKPOINT, "subfolder": "transformer", "dtype": dtype}
    packed = GGUFQuantizationConfig(compute_dtype=dtype)
    transformer = FluxTransformer2DModel.from_single_file(FILE, quantization_config=packed, **how)
    return FluxPipeline.from_pretrained(CHECKPOINT, transformer=transformer, dtype=dtype)
